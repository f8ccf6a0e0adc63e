//! Where the binaries under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The folder with `gantry` and `gantry-operator`: `GANTRY_BIN_DIR`, else the folder that cargo built this program
/// into, else the release folder beside it. Builds nothing.
pub fn folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("GANTRY_BIN_DIR") {
        let folder = PathBuf::from(folder);
        return if has_both(&folder) {
            Ok(folder)
        } else {
            bail!("GANTRY_BIN_DIR={} lacks {NAMES:?}", folder.display())
        };
    }
    let me = std::env::current_exe().context("finding this program's own file")?;
    let mut own = me.parent().context("this program's file has no folder")?;
    if own.ends_with("deps") {
        own = own.parent().context("deps has no parent")?;
    }
    let release = own.with_file_name("release");
    match [own.to_path_buf(), release].into_iter().find(|folder| has_both(folder)) {
        Some(folder) => Ok(folder),
        None => bail!(
            "no {NAMES:?} in {} or in release beside it: run `cargo build --release --workspace`, or set GANTRY_BIN_DIR",
            own.display()
        ),
    }
}

const NAMES: [&str; 2] = ["gantry", "gantry-operator"];

fn has_both(folder: &Path) -> bool {
    NAMES.iter().all(|name| folder.join(name).is_file())
}
