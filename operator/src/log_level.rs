//! The log's level, read again and again from a file: a ConfigMap that is mounted, so that whoever may change that may change the level,
//! and nobody else.

use std::path::PathBuf;
use std::time::Duration;

use gantry_logging::Level;
use tokio::time::sleep;
use tracing::{info, warn};

/// Kubelets bring a changed ConfigMap within a minute or so; a look costs nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Goes by what the file says, for ever. What can't be read or is no level changes nothing, and is told once.
pub(crate) async fn follow(file: PathBuf) {
    let mut last = None;
    loop {
        let said = tokio::fs::read_to_string(&file).await.map_err(|error| error.to_string());
        if last.as_ref() != Some(&said) {
            match apply(&said) {
                Ok(level) => info!(%level, file = %file.display(), "the log's level is this from now on"),
                Err(why) => warn!(file = %file.display(), why, "the log's level stays as it is"),
            }
            last = Some(said);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn apply(said: &Result<String, String>) -> Result<Level, String> {
    let level: Level = said.as_ref()?.parse().map_err(|bad: gantry_logging::BadLevel| bad.to_string())?;
    gantry_logging::set_level(&level).map_err(|error| error.to_string())?;
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_level_is_taken_from_the_file() {
        assert_eq!(apply(&Ok("debug\n".to_owned())).unwrap().to_string(), "debug");
        assert!(apply(&Ok("louder".to_owned())).unwrap_err().contains("\"louder\" is no level"));
        assert_eq!(apply(&Err("no such file".to_owned())), Err("no such file".to_owned()));
    }
}
