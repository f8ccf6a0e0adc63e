//! What is told to the person at the terminal: the logs of a group that failed a test.
#![expect(clippy::print_stderr, reason = "this is the module that talks")]

use std::fs;
use std::path::{Path, PathBuf};

const TAIL_LINES: usize = 30;

/// One line on standard error; libtest shows it with the failure.
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// The last lines of every log below a group's folder.
pub fn tell_tails(folder: &Path) {
    let mut logs = Vec::new();
    collect(folder, &mut logs);
    logs.sort();
    for log in logs {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {} ({} lines)", log.display(), lines.len());
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            eprintln!("{line}");
        }
    }
}

/// The last lines of one file.
pub fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn collect(folder: &Path, logs: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, logs);
        } else if path.extension().is_some_and(|extension| extension == "log" || extension == "out") {
            logs.push(path);
        }
    }
}
