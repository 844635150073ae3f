//! The documentation against what it documents: the reference pages are written from the schema, the configuration's keys
//! and the command line, and every link leads somewhere. `make docs` writes what has changed; without it this only compares.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "docs/configuration.rs"]
mod configuration;
#[path = "docs/events.rs"]
mod events;
#[path = "docs/links.rs"]
mod links;

use std::path::{Path, PathBuf};

/// A page that is not what it is written from is an error, or is written, where `FLEETBUS_WRITE_DOCS` is set.
#[track_caller]
fn is_written(page: &str, expected: &str) {
    let path = root().join(page);
    if std::env::var_os("FLEETBUS_WRITE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    let line = differs.unwrap_or_else(|| found.lines().count().min(expected.lines().count())) + 1;
    assert!(found == expected, "{page} is out of date from line {line}: run `make docs`, and commit it");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
