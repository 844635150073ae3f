//! Who the bridge is to NATS: a credentials file, a user or a token. Invariants: read anew for every connection, so that a secret is
//! changed without a restart; one that cannot be read is no connection, and the client tries again, but for one whose disk hangs
//! a thread at most waits, however often it tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::aside::{Aside, Miss};
use crate::bus::OpenError;
use crate::config::{self, Secret, SecretError, SecretSource};

/// How long reading may take: less than the client has for a connection, so that it hears why there is none.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before the line that holds a user's JWT, and before the one that holds the seed that proves it.
const JWT: &str = "BEGIN NATS USER JWT";
const SEED: &str = "BEGIN USER NKEY SEED";

/// Who it is. Cheap to clone: all tries to connect share one read.
#[derive(Clone)]
pub(super) struct Login {
    sources: Said<SecretSource>,
    reading: Arc<Aside<Said<Secret>, SecretError>>,
}

/// What the configuration names, or what is read there. Nothing of it where the server asks nothing.
#[derive(Clone)]
struct Said<S> {
    credentials: Option<S>,
    user: Option<(String, S)>,
    token: Option<S>,
}

#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error("a secret cannot be read")]
    Secret(#[from] SecretError),
    #[error("a secret does not come: its disk hangs")]
    Late,
    #[error("the credentials are not a NATS credentials file")]
    NotCredentials,
}

impl Said<SecretSource> {
    /// Blocks.
    fn read(&self) -> Result<Said<Secret>, SecretError> {
        let user = |(user, password): &(String, SecretSource)| Ok((user.clone(), password.read()?));
        Ok(Said {
            credentials: self.credentials.as_ref().map(SecretSource::read).transpose()?,
            user: self.user.as_ref().map(user).transpose()?,
            token: self.token.as_ref().map(SecretSource::read).transpose()?,
        })
    }
}

impl Said<Secret> {
    fn answer(self, nonce: &[u8]) -> Result<Auth, LoginError> {
        let mut auth = Auth::new();
        if let Some(text) = &self.credentials {
            let (jwt, seed) = after(text.reveal(), JWT)
                .zip(after(text.reveal(), SEED))
                .ok_or(LoginError::NotCredentials)?;
            let signed = KeyPair::from_seed(seed).and_then(|key| key.sign(nonce));
            auth.signature = Some(signed.map_err(|_| LoginError::NotCredentials)?);
            auth.jwt = Some(jwt.to_owned());
        }
        if let Some((user, password)) = self.user {
            auth.username = Some(user);
            auth.password = Some(password.reveal().to_owned());
        }
        auth.token = self.token.map(|token| token.reveal().to_owned());
        Ok(auth)
    }
}

impl Login {
    /// # Errors
    /// Where it cannot be read now.
    pub(super) fn open(nats: &config::Nats) -> Result<Self, OpenError> {
        let sources = Said {
            credentials: nats.credentials.clone(),
            user: nats.user.clone(),
            token: nats.token.clone(),
        };
        sources.read()?.answer(b"any").map_err(|error| OpenError::Nats(error.to_string()))?;
        Ok(Self { sources, reading: Arc::new(Aside::with_patience(PATIENCE)) })
    }

    async fn answer(&self, nonce: &[u8]) -> Result<Auth, LoginError> {
        let sources = self.sources.clone();
        match self.reading.read(move || sources.read()).await {
            Ok(said) => said.answer(nonce),
            Err(Miss::Failed(error)) => Err(error.into()),
            Err(Miss::Late(_)) => Err(LoginError::Late),
        }
    }

    /// What the client calls for every connection. That it fails is said once.
    pub(super) async fn answers(self, nonce: Vec<u8>, fails: Arc<AtomicBool>) -> Result<Auth, AuthError> {
        let answer = self.answer(&nonce).await;
        let failed = fails.swap(answer.is_err(), Ordering::Relaxed);
        answer.map_err(|error| {
            if !failed {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error, "nats.login_unreadable");
            }
            AuthError::new(error)
        })
    }
}

/// The line after the one with this mark.
fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.contains(mark));
    lines.nth(1).map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;
    use crate::hanging::Hanging;

    /// The client gives a try to connect up, and the thread that reads goes on: once there were no threads left, nothing was read
    /// or written any more.
    #[test]
    fn tries_to_connect_while_the_disk_hangs_leave_one_thread_and_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "secret").unwrap();
        let user = Some(("me".to_owned(), SecretSource::File(path.clone())));
        let login = Login {
            sources: Said { credentials: None, user, token: None },
            reading: Arc::new(Aside::with_patience(Duration::from_millis(200))),
        };
        let fails = Arc::new(AtomicBool::new(false));
        let answer = || login.clone().answers(b"any".to_vec(), Arc::clone(&fails));
        let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(2).build().unwrap();
        runtime.block_on(async {
            assert_eq!(answer().await.unwrap().password.as_deref(), Some("secret"));
            let hanging = Hanging::put(&path);
            for _ in 0..3 {
                timeout(Duration::from_millis(20), answer()).await.ok();
            }
            hanging.is_read().await;
            assert!(timeout(PATIENCE, answer()).await.expect("an answer").is_err());
            let other = tokio::task::spawn_blocking(|| ());
            timeout(PATIENCE, other).await.expect("a thread is left").unwrap();
            drop(hanging);
            std::fs::write(&path, "another").unwrap();
            let opens = async {
                loop {
                    match answer().await {
                        Ok(auth) => return auth,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            };
            let auth = timeout(PATIENCE, opens).await.expect("it has answered");
            assert_eq!(auth.password.as_deref(), Some("another"));
        });
    }

    #[test]
    fn the_lines_after_their_marks_are_read_and_nothing_else() {
        let text = "-----BEGIN NATS USER JWT-----\r\n eyJ0\r\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\nSUAB";
        assert_eq!((after(text, JWT), after(text, SEED)), (Some("eyJ0"), Some("SUAB")));
        assert_eq!(after("-----BEGIN NATS USER JWT-----", JWT), None);
        assert_eq!(after("-----BEGIN NATS USER JWT-----\n\n", JWT), None);
        assert_eq!(after("SUAB", SEED), None);
    }
}
