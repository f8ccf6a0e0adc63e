//! The state directory: one operator at a time, and a secret a group.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::plan::Layout;
use crate::platform::token;

/// A locked state directory. The lock ends with this value, and with the process.
#[derive(Debug)]
pub struct StateDir {
    layout: Layout,
    _lock: File,
}

/// Where state is kept if not told: the user's data directory (`$XDG_DATA_HOME`, else `~/.local/share`) + `gantry/local`.
pub fn default_dir() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| set("HOME").map(|home| home.join(".local").join("share")));
    let data =
        data.ok_or_else(|| anyhow!("neither XDG_DATA_HOME nor HOME is set; say where to keep state with --dir"))?;
    Ok(data.join("gantry").join("local"))
}

impl StateDir {
    /// Makes the directory if need be, and locks it.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("state directory {}", dir.display()))?;
        fs::create_dir_all(&dir).with_context(|| format!("can't make state directory {}", dir.display()))?;
        let layout = Layout::new(dir);
        let lock = lock(&layout)?;
        Ok(Self { layout, _lock: lock })
    }

    /// Whether an operator runs on that directory.
    pub fn is_locked(dir: &Path) -> anyhow::Result<bool> {
        let path = Layout::new(dir).lock();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("can't open {}", path.display())),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error).with_context(|| format!("can't lock {}", path.display())),
        }
    }

    /// What lies where in it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The group's secret, made at its first use.
    pub fn token(&self, group: &str) -> anyhow::Result<String> {
        let path = self.layout.token(group);
        fs::create_dir_all(self.layout.group(group))
            .with_context(|| format!("can't make the directory of group {group}"))?;
        match fs::read_to_string(&path) {
            Ok(token) if token.len() == 2 * token::TOKEN_BYTES && token.chars().all(|c| c.is_ascii_hexdigit()) => {
                Ok(token)
            }
            Ok(_) => bail!("{} is no token; remove it while nothing runs, and a new one is made", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_token(&path),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }
}

fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.lock();
    let describe = || format!("can't lock state directory {}", layout.root().display());
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).with_context(describe)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only for the message.
            file.read_to_string(&mut pid).ok();
            bail!("an operator{} runs on {} at present", mention(pid.trim()), layout.root().display());
        }
        Err(error) => return Err(error).with_context(describe),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).with_context(describe)?;
    Ok(file)
}

fn mention(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

fn make_token(path: &Path) -> anyhow::Result<String> {
    let token = token::random().context("can't read /dev/urandom")?;
    write_private(path, token.as_bytes())?;
    Ok(token)
}

/// Writes a file that nobody else may read, whole or not at all.
pub(super) fn write_private(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operator_a_directory_and_the_second_is_told_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(&dir.path().join("state")).unwrap();
        let line = StateDir::open(&dir.path().join("state")).unwrap_err().to_string();
        assert!(line.contains(&format!("an operator (process {}) runs on", std::process::id())), "{line}");
        assert!(StateDir::is_locked(&dir.path().join("state")).unwrap());
        drop(first);
        assert!(!StateDir::is_locked(&dir.path().join("state")).unwrap());
        StateDir::open(&dir.path().join("state")).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let line = format!("{:#}", StateDir::open(Path::new("/proc/nowhere/state")).unwrap_err());
        assert!(line.contains("can't make state directory /proc/nowhere/state: "), "{line}");
    }

    #[test]
    fn a_groups_token_is_random_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let token = state.token("a").unwrap();
        assert_eq!(token.len(), 2 * token::TOKEN_BYTES);
        assert_eq!(state.token("a").unwrap(), token);
        assert_ne!(state.token("b").unwrap(), token);
        let mode = fs::metadata(state.layout().token("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(state.layout().token("a"), "").unwrap();
        assert!(state.token("a").unwrap_err().to_string().contains("is no token"));
    }
}
