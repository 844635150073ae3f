//! Secrets: where they come from, and a text that cannot be printed. Invariant: no `Debug` or `Display` here shows a value.

use std::fmt;
use std::path::PathBuf;

/// Where a secret is read from: never a literal in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable, read at start.
    Env(String),
    /// A file, read again when it changes; trailing line breaks are cut.
    File(PathBuf),
}

/// A secret's text. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends or compares it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
