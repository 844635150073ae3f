//! Secrets: where they come from, and a text that cannot be printed. Invariant: no `Debug` or `Display` here shows a value.

use std::env::VarError;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where a secret is read from: never a literal in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// An environment variable, read at start.
    Env(String),
    /// A file, read again when it changes; trailing line breaks are cut.
    File(PathBuf),
}

/// A secret that somebody sends has so many characters, at least: with fewer it can be guessed.
pub const SHORTEST_SENT: usize = 16;

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

    /// Whether a header carries it.
    #[must_use]
    pub fn can_be_sent(&self) -> bool {
        !self.0.trim_ascii().bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("{path} cannot be read: {why}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's words: in the sentence, for logs show no causes.
        why: io::Error,
    },
    /// There is nothing in it.
    #[error("the secret in {0} is empty")]
    Empty(String),
    /// It is not text.
    #[error("the secret in {0} is not UTF-8 text")]
    NotText(String),
    /// Its disk hangs.
    #[error("the secret in {0} does not come: its disk hangs")]
    Late(SecretSource),
    /// It comes in a header, and no header carries it.
    #[error("the secret in {0} has a line break within, or another character that no header carries")]
    Unsendable(SecretSource),
}

/// The most of a secret's file that is read: a credentials file or a key in PEM is far smaller.
const MOST: u64 = 64 << 10;

impl SecretSource {
    /// Reads it now. Line breaks at the end are cut.
    ///
    /// # Errors
    /// Where it cannot be read, or is empty.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|error| match error {
                    VarError::NotPresent => SecretError::Unset(name.clone()),
                    VarError::NotUnicode(_) => SecretError::NotText(self.to_string()),
                })?;
                self.parse(&text)
            }
            Self::File(path) => {
                let unreadable = |why| SecretError::Unreadable { path: path.clone(), why };
                let bytes = read_bounded(path).map_err(unreadable)?;
                let text = str::from_utf8(&bytes).map_err(|_| SecretError::NotText(self.to_string()))?;
                self.parse(text)
            }
        }
    }

    /// Reads one that is to come in a header.
    ///
    /// # Errors
    /// Where it cannot be read, is empty, or is nothing that a header carries.
    pub fn read_sendable(&self) -> Result<Secret, SecretError> {
        self.read().and_then(|secret| {
            if secret.can_be_sent() { Ok(secret) } else { Err(SecretError::Unsendable(self.clone())) }
        })
    }

    /// The secret in what was read. Line breaks at the end are cut, and the mark that editors put before it.
    ///
    /// # Errors
    /// Where it is empty.
    pub fn parse(&self, text: &str) -> Result<Secret, SecretError> {
        let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        if text.trim().is_empty() {
            return Err(SecretError::Empty(self.to_string()));
        }
        Ok(Secret(text.to_owned()))
    }
}

/// A file's bytes, at most [`MOST`] of them.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than any secret"));
    }
    Ok(bytes)
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_trimmed_and_never_printed() {
        let source = SecretSource::File(PathBuf::from("/run/secrets/acme"));
        let secret = source.parse("s3cret\r\n").expect("a secret");
        assert_eq!(secret.reveal(), "s3cret");
        assert_eq!(source.parse("\u{feff}s3cret\r\n").expect("a secret"), secret);
        assert_eq!(format!("{secret:?}"), "***");
        let empty = source.parse(" \n").expect_err("nothing in it");
        assert_eq!(empty.to_string(), "the secret in file /run/secrets/acme is empty");
    }

    #[test]
    fn a_file_is_read_again_each_time_that_it_is_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let source = SecretSource::File(path.clone());
        let unread = source.read().expect_err("nothing there").to_string();
        assert_eq!(
            unread,
            format!("{} cannot be read: No such file or directory (os error 2)", path.display())
        );
        std::fs::write(&path, "one\n").expect("written");
        assert_eq!(source.read().expect("read").reveal(), "one");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(source.read().expect("read").reveal(), "two");
        std::fs::write(&path, "two\nlines").expect("written");
        assert!(matches!(source.read_sendable(), Err(SecretError::Unsendable(_))));
        assert_eq!(source.read().expect("read").reveal(), "two\nlines");
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(matches!(source.read(), Err(SecretError::NotText(_))));
    }
}
