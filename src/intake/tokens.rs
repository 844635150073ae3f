//! Webhook tokens that the operator made: as many as an account has partners, shown once, kept as digests. Invariants: what
//! is live is on disk first, and what was revoked left the disk first; one change at a time, so that a late write of "last
//! used" never brings a revoked token back. Neighbours: `auth` compares, `admin::tokens` asks, the store keeps.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::auth::{Key, Origin, TokenDigest, Tokens};
use crate::clock;
use crate::config::{SHORTEST_SENT, Secret};
use crate::event::{AccountId, Millis};
use crate::replay::{Act, AskError, Change, Entry, Store, Table};

/// The most tokens of an account: each is compared at every request.
pub const MOST: usize = 100;
/// The length of a token that is imported.
const LENGTH: RangeInclusive<usize> = SHORTEST_SENT..=512;
/// What a token that is imported must have of Shannon's entropy, in bits: sixteen different letters have 64.
const BITS: f64 = 40.0;
/// How much of a token is shown in lists.
const PREFIX: usize = 8;
/// What has expired is listed for so long, in milliseconds.
const REMEMBERED: i64 = 7 * 24 * 3_600_000;

/// A token as it is kept: nothing of it but a digest and its first letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    prefix: String,
    digest: String,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<i64>,
}

/// One token, for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id; [`OF_CONFIG`] where it stands in the configuration.
    pub id: String,
    /// What its maker called it.
    pub name: Option<String>,
    /// Its first letters, where they are known.
    pub prefix: Option<String>,
    /// Who made it.
    pub origin: Origin,
    /// When it was made.
    pub created: Option<Millis>,
    /// When it last opened something.
    pub last_used: Option<Millis>,
    /// From when on it opens nothing.
    pub expires: Option<Millis>,
}

/// The id under which the configuration's token is listed.
pub const OF_CONFIG: &str = "config";

/// What is wanted of a new token.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What to call it.
    pub name: Option<String>,
    /// One that exists, such as the provider's portal holds.
    pub token: Option<Secret>,
    /// When it ends.
    pub expires: Option<Millis>,
}

/// A new token.
#[derive(Debug)]
pub struct Made {
    /// As lists show it.
    pub listed: Listed,
    /// The token, where it was made here; one that was imported is known to who sent it.
    pub token: Option<Secret>,
}

/// Why a token was not made, revoked or rotated.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The account is not configured.
    #[error("no account with that id is configured")]
    UnknownAccount,
    /// No such token.
    #[error("the account has no token with that id")]
    Unknown,
    /// It stands in the configuration.
    #[error("this token stands in the configuration: change or remove it there")]
    OfConfig,
    /// Another of the account is the same.
    #[error("the account has that token already")]
    Same,
    /// There are [`MOST`] already.
    #[error("the account has {MOST} tokens already: revoke one")]
    TooMany,
    /// It could be guessed, or cannot be sent.
    #[error("the token {0}")]
    Weak(&'static str),
    /// It would have ended before it began.
    #[error("the token would have expired already")]
    Past,
    /// The store.
    #[error(transparent)]
    Store(#[from] AskError),
}

/// An account's tokens, by id, in the order in which they were made.
type OfAccount = Vec<(String, Kept)>;

/// The tokens that operators made.
pub struct Registry {
    store: Store,
    live: Arc<Tokens>,
    kept: Mutex<HashMap<AccountId, OfAccount>>,
}

impl Registry {
    /// With what the store had; those of configured accounts are live from now on.
    #[must_use]
    pub fn new(store: Store, live: Arc<Tokens>, entries: Vec<Entry>) -> Self {
        let mut kept: HashMap<AccountId, OfAccount> = HashMap::new();
        for Entry { account, key, value, .. } in entries {
            match serde_json::from_str::<Kept>(&value) {
                Ok(token) => kept.entry(account).or_default().push((key, token)),
                Err(error) => tracing::error!(%account, token.id = key, error = %error, "token.damaged"),
            }
        }
        for (account, tokens) in &kept {
            live.replace(account, Origin::Operator, keys(tokens));
        }
        Self { store, live, kept: Mutex::new(kept) }
    }

    /// An account's tokens, the configuration's first, then in the order in which they were made.
    ///
    /// # Errors
    /// Where the account is not configured.
    pub async fn list(&self, account: &AccountId) -> Result<Vec<Listed>, TokenError> {
        let kept = self.kept.lock().await;
        let live = self.live.keys(account, Origin::Config).ok_or(TokenError::UnknownAccount)?;
        let used = self.live.keys(account, Origin::Operator).unwrap_or_default();
        let made = kept.get(account).into_iter().flatten().map(|(id, token)| listed(id, token, &used));
        Ok(live.iter().map(|key| of_config(key)).chain(made).collect())
    }

    /// The stored tokens of accounts that have just been configured are live from now on.
    pub async fn enliven(&self) {
        for (account, tokens) in &*self.kept.lock().await {
            self.live.replace(account, Origin::Operator, keys(tokens));
        }
    }

    /// Makes a token, or takes one that exists.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing was changed.
    pub async fn create(&self, account: &AccountId, wanted: Wanted, who: &str) -> Result<Made, TokenError> {
        let mut all = self.kept.lock().await;
        let tokens = self.of(&mut all, account)?;
        let now = clock::now();
        let (id, new, token) = self.make(account, tokens, wanted, now)?;
        let act = act(now, who, "token.create", account, &id, None, Some(&new));
        self.store.act(vec![put(account, &id, &new, now)], act).await?;
        let listed = listed(&id, &new, &[]);
        tokens.push((id, new));
        self.live.replace(account, Origin::Operator, keys(tokens));
        Ok(Made { listed, token })
    }

    /// Ends a token: it opens nothing from the next request on.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing was changed.
    pub async fn revoke(&self, account: &AccountId, id: &str, who: &str) -> Result<(), TokenError> {
        let mut all = self.kept.lock().await;
        let tokens = self.of(&mut all, account)?;
        let (at, old) = find(tokens, id)?;
        let act = act(clock::now(), who, "token.revoke", account, id, Some(&old), None);
        let change = Change::Remove(Table::Tokens, account.clone(), id.to_owned());
        self.store.act(vec![change], act).await?;
        tokens.remove(at);
        self.live.replace(account, Origin::Operator, keys(tokens));
        Ok(())
    }

    /// Makes a token in the place of another, which opens for `overlap` still: both are live until then.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing was changed.
    pub async fn rotate(
        &self,
        account: &AccountId,
        id: &str,
        overlap: Duration,
        who: &str,
    ) -> Result<Made, TokenError> {
        let mut all = self.kept.lock().await;
        let tokens = self.of(&mut all, account)?;
        let (at, old) = find(tokens, id)?;
        let now = clock::now();
        let wanted = Wanted { name: old.name.clone(), ..Wanted::default() };
        let (new_id, new, token) = self.make(account, tokens, wanted, now)?;
        let ends = now.0.saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
        let ending = Kept { expires_at: Some(old.expires_at.map_or(ends, |at| at.min(ends))), ..old.clone() };
        let changes = vec![put(account, id, &ending, now), put(account, &new_id, &new, now)];
        let act = Act {
            object: format!("{id}, now {new_id}"),
            ..act(now, who, "token.rotate", account, id, Some(&old), Some(&new))
        };
        self.store.act(changes, act).await?;
        let listed = listed(&new_id, &new, &[]);
        tokens[at].1 = ending;
        tokens.push((new_id, new));
        self.live.replace(account, Origin::Operator, keys(tokens));
        Ok(Made { listed, token })
    }

    /// Writes down when tokens were last used, and forgets those that ended a week ago.
    ///
    /// # Errors
    /// Where the store cannot write: it is tried again with the next ones.
    pub async fn flush(&self) -> Result<(), AskError> {
        let mut all = self.kept.lock().await;
        let now = clock::now();
        let (mut news, mut fewer) = (Vec::new(), Vec::new());
        for (account, tokens) in all.iter_mut() {
            let ended = |token: &Kept| token.expires_at.is_some_and(|at| at < now.0 - REMEMBERED);
            let gone = tokens.iter().filter(|(_, token)| ended(token)).map(|(id, _)| id.clone());
            let gone: Vec<String> = gone.collect();
            if !gone.is_empty() {
                self.store.remove(Table::Tokens, account.clone(), gone.clone()).await?;
                tokens.retain(|(id, _)| !gone.contains(id));
                fewer.push(account.clone());
            }
            let used = self.live.keys(account, Origin::Operator).unwrap_or_default();
            for (id, token) in tokens.iter() {
                let last = last_used(token, &used).map(|at| at.0);
                if last > token.last_used_at {
                    let token = Kept { last_used_at: last, ..token.clone() };
                    news.push((account.clone(), id.clone(), token));
                }
            }
        }
        // What is forgotten may come again.
        for (account, tokens) in all.iter().filter(|(account, _)| fewer.contains(account)) {
            self.live.replace(account, Origin::Operator, keys(tokens));
        }
        if news.is_empty() {
            return Ok(());
        }
        let rows = news.iter().map(|(account, id, token)| entry(account, id, token, now)).collect();
        self.store.put(Table::Tokens, rows).await?;
        for (account, id, token) in news {
            let kept = all.get_mut(&account).into_iter().flatten().find(|(other, _)| *other == id);
            kept.into_iter().for_each(|(_, kept)| kept.last_used_at = token.last_used_at);
        }
        Ok(())
    }

    fn of<'a>(
        &self,
        all: &'a mut HashMap<AccountId, OfAccount>,
        account: &AccountId,
    ) -> Result<&'a mut OfAccount, TokenError> {
        self.live.keys(account, Origin::Config).ok_or(TokenError::UnknownAccount)?;
        Ok(all.entry(account.clone()).or_default())
    }

    fn make(
        &self,
        account: &AccountId,
        tokens: &OfAccount,
        wanted: Wanted,
        now: Millis,
    ) -> Result<(String, Kept, Option<Secret>), TokenError> {
        let Wanted { name, token, expires } = wanted;
        if tokens.len() >= MOST {
            return Err(TokenError::TooMany);
        }
        if expires.is_some_and(|at| at <= now) {
            return Err(TokenError::Past);
        }
        let (text, shown) = match token {
            Some(token) => (token, None),
            None => {
                let token = random();
                (token.clone(), Some(token))
            }
        };
        let digest = judge(text.reveal())?;
        let live = [Origin::Config, Origin::Operator].into_iter();
        if live.filter_map(|from| self.live.keys(account, from)).flatten().any(|key| key.is_of(&digest)) {
            return Err(TokenError::Same);
        }
        let kept = Kept {
            name,
            // Of one that is as short as may be, no more than a quarter is told.
            prefix: text.reveal().chars().take(PREFIX.min(text.reveal().len() / 4)).collect(),
            digest: hex(digest.as_bytes()),
            created_at: now.0,
            expires_at: expires.map(|at| at.0),
            last_used_at: None,
        };
        Ok((Uuid::now_v7().to_string(), kept, shown))
    }
}

/// 192 bits.
fn random() -> Secret {
    Secret::new(format!("fbw_{}", hex(&rand::random::<[u8; 24]>())))
}

/// The digest of a token that can be sent in a header, and not be guessed.
fn judge(token: &str) -> Result<TokenDigest, TokenError> {
    if !LENGTH.contains(&token.len()) {
        return Err(TokenError::Weak("must have 16 to 512 characters"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Weak("has a blank or another character that no header takes"));
    }
    let mut counts = [0_u32; 128];
    token.bytes().for_each(|byte| counts[usize::from(byte & 127)] += 1);
    let length = f64::from(counts.iter().sum::<u32>());
    let used = counts.into_iter().filter(|count| *count > 0).map(f64::from);
    let bits: f64 = used.map(|count| -count * (count / length).log2()).sum();
    if bits < BITS {
        return Err(TokenError::Weak("can be guessed: its characters repeat too much"));
    }
    TokenDigest::of(token).ok_or(TokenError::Weak("is empty"))
}

fn keys(tokens: &OfAccount) -> Vec<Key> {
    let key = |token: &Kept| {
        let digest = TokenDigest::from_bytes(bytes(&token.digest)?);
        Some(Key::new(digest, token.expires_at.map(Millis), token.last_used_at.map(Millis)))
    };
    tokens.iter().filter_map(|(_, token)| key(token)).collect()
}

fn find(tokens: &OfAccount, id: &str) -> Result<(usize, Kept), TokenError> {
    if id == OF_CONFIG {
        return Err(TokenError::OfConfig);
    }
    let at = tokens.iter().position(|(known, _)| known == id).ok_or(TokenError::Unknown)?;
    Ok((at, tokens[at].1.clone()))
}

fn last_used(token: &Kept, used: &[Arc<Key>]) -> Option<Millis> {
    let digest = bytes(&token.digest).map(TokenDigest::from_bytes);
    let live = digest.and_then(|digest| used.iter().find(|key| key.is_of(&digest))?.last_used());
    live.max(token.last_used_at.map(Millis))
}

fn listed(id: &str, token: &Kept, used: &[Arc<Key>]) -> Listed {
    Listed {
        id: id.to_owned(),
        name: token.name.clone(),
        prefix: Some(token.prefix.clone()),
        origin: Origin::Operator,
        created: Some(Millis(token.created_at)),
        last_used: last_used(token, used),
        expires: token.expires_at.map(Millis),
    }
}

fn of_config(key: &Key) -> Listed {
    Listed {
        id: OF_CONFIG.to_owned(),
        name: None,
        prefix: None,
        origin: Origin::Config,
        created: None,
        last_used: key.last_used(),
        expires: None,
    }
}

fn entry(account: &AccountId, id: &str, token: &Kept, now: Millis) -> Entry {
    let value = serde_json::to_string(token).unwrap_or_default();
    Entry { account: account.clone(), key: id.to_owned(), value, saved_at: now }
}

fn put(account: &AccountId, id: &str, token: &Kept, now: Millis) -> Change {
    Change::Put(Table::Tokens, entry(account, id, token, now))
}

/// What the audit log says of a token: not its digest, by which a guess could be checked.
fn said(token: &Kept) -> String {
    let expires = token.expires_at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    let said = serde_json::json!({
        "name": token.name,
        "prefix": token.prefix,
        "expires_at": expires.map(|at| at.to_string()),
    });
    said.to_string()
}

fn act(
    at: Millis,
    who: &str,
    act: &'static str,
    account: &AccountId,
    id: &str,
    before: Option<&Kept>,
    after: Option<&Kept>,
) -> Act {
    let (before, after) = (before.map(said), after.map(said));
    Act { at, who: who.to_owned(), act, account: Some(account.clone()), object: id.to_owned(), before, after }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_was_written() {
        let digest: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        assert_eq!(bytes(&hex(&digest)), Some(digest));
        assert_eq!(bytes("00"), None);
        assert_eq!(bytes(&"zz".repeat(32)), None);
    }

    #[test]
    fn a_token_is_random_and_would_be_taken() {
        assert_ne!(random().reveal(), random().reveal());
        assert!(judge(random().reveal()).is_ok());
    }

    #[test]
    fn what_can_be_guessed_or_not_be_sent_is_refused() {
        let check = |token: &str, expected: bool| assert_eq!(judge(token).is_ok(), expected, "{token}");
        check("0123456789abcdef", true);
        check("correct-horse-battery-staple", true);
        check("short", false);
        check("aaaaaaaaaaaaaaaaaaaaaaaa", false);
        check("abababababababababababab", false);
        check("with a blank in the middle", false);
        check("with-an-umlaut-überall-hier", false);
        check(&"x1y2z3w4".repeat(65), false);
    }
}
