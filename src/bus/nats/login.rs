//! Who the bridge is to NATS: a credentials file, a user or a token. Invariant: read anew for every connection, so that a secret is
//! changed without a restart. One that cannot be read is no connection: the client tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::bus::OpenError;
use crate::config::{self, SecretError, SecretSource};

/// Before the line that holds a user's JWT, and before the one that holds the seed that proves it.
const JWT: &str = "BEGIN NATS USER JWT";
const SEED: &str = "BEGIN USER NKEY SEED";

/// What the configuration names. Nothing of it where the server asks nothing.
#[derive(Clone)]
pub(super) struct Login {
    credentials: Option<SecretSource>,
    user: Option<(String, SecretSource)>,
    token: Option<SecretSource>,
}

#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error("a secret cannot be read")]
    Secret(#[from] SecretError),
    #[error("the credentials are not a NATS credentials file")]
    NotCredentials,
}

impl Login {
    /// # Errors
    /// Where it cannot be read now.
    pub(super) fn open(nats: &config::Nats) -> Result<Self, OpenError> {
        let login = Self {
            credentials: nats.credentials.clone(),
            user: nats.user.clone(),
            token: nats.token.clone(),
        };
        match login.answer(b"any") {
            Ok(_) => Ok(login),
            Err(LoginError::Secret(error)) => Err(error.into()),
            Err(error @ LoginError::NotCredentials) => Err(OpenError::Nats(error.to_string())),
        }
    }

    fn answer(&self, nonce: &[u8]) -> Result<Auth, LoginError> {
        let mut auth = Auth::new();
        if let Some(source) = &self.credentials {
            let text = source.read()?;
            let (jwt, seed) = after(text.reveal(), JWT)
                .zip(after(text.reveal(), SEED))
                .ok_or(LoginError::NotCredentials)?;
            let signed = KeyPair::from_seed(seed).and_then(|key| key.sign(nonce));
            auth.signature = Some(signed.map_err(|_| LoginError::NotCredentials)?);
            auth.jwt = Some(jwt.to_owned());
        }
        if let Some((user, password)) = &self.user {
            auth.username = Some(user.clone());
            auth.password = Some(password.read()?.reveal().to_owned());
        }
        if let Some(token) = &self.token {
            auth.token = Some(token.read()?.reveal().to_owned());
        }
        Ok(auth)
    }

    /// What the client calls for every connection. That it fails is said once.
    pub(super) async fn answers(self, nonce: Vec<u8>, fails: Arc<AtomicBool>) -> Result<Auth, AuthError> {
        let answer =
            tokio::task::spawn_blocking(move || self.answer(&nonce)).await.map_err(AuthError::new)?;
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
    use super::*;

    #[test]
    fn the_lines_after_their_marks_are_read_and_nothing_else() {
        let text = "-----BEGIN NATS USER JWT-----\r\n eyJ0\r\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\nSUAB";
        assert_eq!((after(text, JWT), after(text, SEED)), (Some("eyJ0"), Some("SUAB")));
        assert_eq!(after("-----BEGIN NATS USER JWT-----", JWT), None);
        assert_eq!(after("-----BEGIN NATS USER JWT-----\n\n", JWT), None);
        assert_eq!(after("SUAB", SEED), None);
    }
}
