//! A log whose level is changed while it is written.

use std::fs::File;
use std::sync::Arc;

use gantry_logging::{Format, Level, set_level, start};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

#[test]
fn a_level_counts_from_the_moment_it_is_set_and_json_has_a_lines_fields() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(File::options().append(true).open(file.path()).unwrap());
    set_level(&"debug".parse().unwrap()).unwrap();
    start(Format::Json, &Level::default(), BoxMakeWriter::new(writer)).unwrap();
    tracing::debug!("one");
    set_level(&"debug".parse().unwrap()).unwrap();
    tracing::debug!(group = "broker-a", election = "broker-a/7", "two");
    set_level(&"error".parse().unwrap()).unwrap();
    tracing::warn!("three");
    start(Format::Text, &Level::default(), BoxMakeWriter::new(std::io::sink)).unwrap_err();
    let log = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in [r#""message":"two""#, r#""group":"broker-a""#, r#""election":"broker-a/7""#, r#""level":"DEBUG""#] {
        assert!(lines[0].contains(part), "{part} in {log}");
    }
}
