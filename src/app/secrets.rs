//! Secrets in files, read again and again. Invariants: one whose disk hangs holds no other up, and is not asked again until that read
//! has ended: a thread at most hangs for each. Neighbours: `look` takes what is new into force.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Secret, SecretError, SecretSource};

/// How long one may take: a network's file system answers far sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was read, and for what.
pub(super) type Secrets<K> = Vec<(K, Result<Secret, SecretError>)>;

/// See the module.
pub(super) struct Reading {
    patience: Duration,
    /// Sources whose reading has not ended, and the thread that waits there.
    hanging: HashMap<SecretSource, JoinHandle<()>>,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { patience: PATIENCE, hanging: HashMap::new() }
    }

    /// Reads these, each with what it is for: secrets that come in a header.
    pub(super) async fn read<K>(&mut self, wanted: Vec<(K, SecretSource)>) -> Secrets<K> {
        self.read_by(wanted, SecretSource::read_sendable).await
    }

    async fn read_by<K, R>(&mut self, wanted: Vec<(K, SecretSource)>, by: R) -> Secrets<K>
    where
        R: Fn(&SecretSource) -> Result<Secret, SecretError> + Copy + Send + 'static,
    {
        self.hanging.retain(|_, reading| !reading.is_finished());
        let hangs = |(_, source): &(K, SecretSource)| self.hanging.contains_key(source);
        let (hanging, rest): (Vec<_>, Vec<_>) = wanted.into_iter().partition(hangs);
        let late = |(wanted, source)| (wanted, Err(SecretError::Late(source)));
        let mut all: Vec<_> = hanging.into_iter().map(late).collect();
        let mut rest = VecDeque::from(rest);
        while !rest.is_empty() {
            let sources: Vec<SecretSource> = rest.iter().map(|(_, source)| source.clone()).collect();
            let (told, mut is_read) = mpsc::channel(1);
            let reading = tokio::task::spawn_blocking(move || {
                for source in sources {
                    // Who waited too long has left.
                    if told.blocking_send(by(&source)).is_err() {
                        return;
                    }
                }
            });
            while let Ok(Some(secret)) = timeout(self.patience, is_read.recv()).await {
                all.extend(rest.pop_front().map(|(wanted, _)| (wanted, secret)));
            }
            if let Some((wanted, source)) = rest.pop_front() {
                self.hanging.insert(source.clone(), reading);
                all.push(late((wanted, source)));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Whether the disk of `slow` does.
    static HANGS: AtomicBool = AtomicBool::new(true);

    fn by(source: &SecretSource) -> Result<Secret, SecretError> {
        while source.to_string().ends_with("slow") && HANGS.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        source.parse("a secret")
    }

    #[tokio::test]
    async fn a_source_that_hangs_holds_up_no_other_and_is_asked_again_once_it_has_answered() {
        let source = |name: &str| SecretSource::File(PathBuf::from(name));
        let wanted = || ["a", "slow", "b"].map(|name| (name.to_owned(), source(name))).to_vec();
        let mut reading = Reading { patience: Duration::from_millis(500), ..Reading::new() };
        for _ in 0..2 {
            let mut read = reading.read_by(wanted(), by).await;
            read.sort_by(|(one, _), (other, _)| one.cmp(other));
            let is_read: Vec<_> = read.iter().map(|(name, secret)| (name.as_str(), secret.is_ok())).collect();
            assert_eq!(is_read, [("a", true), ("b", true), ("slow", false)]);
            assert_eq!(reading.hanging.len(), 1, "one thread");
        }
        HANGS.store(false, Ordering::Relaxed);
        while !reading.hanging.values().all(JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        assert!(reading.read_by(wanted(), by).await.iter().all(|(_, secret)| secret.is_ok()));
        assert!(reading.hanging.is_empty());
    }
}
