//! Secrets in files, read again and again. Invariants: one whose disk hangs holds no other up, and is not asked again until that read
//! has ended: a thread at most hangs for each. Neighbours: `look` takes what is new into force.

use std::collections::HashMap;
use std::time::Duration;

use crate::aside::{Aside, Miss, PATIENCE};
use crate::config::{Secret, SecretError, SecretSource};

/// What was read, and for what.
pub(super) type Secrets<K> = Vec<(K, Result<Secret, SecretError>)>;

/// See the module.
pub(super) struct Reading {
    patience: Duration,
    /// Sources whose reading has not ended.
    hanging: HashMap<SecretSource, Aside<Secret, SecretError>>,
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
        let mut all = Vec::with_capacity(wanted.len());
        for (wanted, source) in wanted {
            let of = source.clone();
            let aside =
                self.hanging.entry(source.clone()).or_insert_with(|| Aside::with_patience(self.patience));
            let secret = match aside.read(move || by(&of)).await {
                Ok(secret) => Ok(secret),
                Err(Miss::Failed(error)) => Err(error),
                // A reload may have read a newer one than the last of here.
                Err(Miss::Late(_)) => Err(SecretError::Late(source)),
            };
            all.push((wanted, secret));
        }
        self.hanging.retain(|_, aside| aside.hangs());
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
        while reading.hanging.values_mut().any(Aside::hangs) {
            tokio::task::yield_now().await;
        }
        assert!(reading.read_by(wanted(), by).await.iter().all(|(_, secret)| secret.is_ok()));
        assert!(reading.hanging.is_empty());
    }
}
