//! Who sends: tokens in, an account or a refusal out. Pure but for the swap that replaces an account's live tokens at
//! run time. Invariants: only digests are held, they are compared in constant time, and neither a refusal nor a log ever
//! shows a value. `webhook` and `admin` ask here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use foldhash::HashMap;
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::event::{AccountId, Millis};

/// The headers in which a token may come. The provider's older documents say the second.
const HEADERS: [&str; 2] = ["authorization", "authentication"];
/// How often `Bearer` may stand before a token: senders put it before what a customer typed with it.
const PREFIXES: usize = 2;

/// A token's SHA-256: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token, blanks around it cut. An empty one opens nothing, so it has none.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        Self::of_bytes(token.as_bytes().trim_ascii())
    }

    /// A digest that was stored.
    #[must_use]
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// What to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn of_bytes(token: &[u8]) -> Option<Self> {
        (!token.is_empty()).then(|| Self(Sha256::digest(token).into()))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// Where a live token comes from: each origin's tokens are replaced by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration's secret, read again when its file changes.
    Config,
    /// Made by the operator at run time.
    Operator,
}

/// A live token: its digest, when it ends, and when it last opened something.
#[derive(Debug)]
pub struct Key {
    digest: TokenDigest,
    expires: Option<Millis>,
    /// In milliseconds; zero where it never did. In memory only: writing it down is not the request's business.
    used: AtomicI64,
}

impl Key {
    /// A token's.
    #[must_use]
    pub fn new(digest: TokenDigest, expires: Option<Millis>, used: Option<Millis>) -> Self {
        Self { digest, expires, used: AtomicI64::new(used.map_or(0, |at| at.0)) }
    }

    /// One that does not end.
    #[must_use]
    pub fn of(digest: TokenDigest) -> Self {
        Self::new(digest, None, None)
    }

    /// Whether it is this token's.
    #[must_use]
    pub fn is_of(&self, digest: &TokenDigest) -> bool {
        self.digest == *digest
    }

    /// When it last opened something.
    #[must_use]
    pub fn last_used(&self) -> Option<Millis> {
        let at = self.used.load(Ordering::Relaxed);
        (at > 0).then_some(Millis(at))
    }
}

#[derive(Debug, Clone, Default)]
struct Live {
    config: Vec<Arc<Key>>,
    operator: Vec<Arc<Key>>,
}

impl Live {
    const fn of(&self, origin: Origin) -> &Vec<Arc<Key>> {
        match origin {
            Origin::Config => &self.config,
            Origin::Operator => &self.operator,
        }
    }
}

/// The live tokens of the configured accounts. Reading takes no lock.
#[derive(Debug)]
pub struct Tokens {
    accounts: ArcSwap<HashMap<AccountId, Live>>,
}

impl Tokens {
    /// No account has a token yet; which accounts there are is settled here.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = AccountId>) -> Self {
        let accounts = accounts.into_iter().map(|id| (id, Live::default())).collect::<HashMap<_, _>>();
        Self { accounts: ArcSwap::from_pointee(accounts) }
    }

    /// Replaces an account's tokens of one origin; when one that stays was used is not forgotten. An account that is not
    /// configured stays unknown.
    pub fn replace(&self, account: &AccountId, origin: Origin, tokens: impl IntoIterator<Item = Key>) {
        let tokens: Vec<Arc<Key>> = tokens.into_iter().map(Arc::new).collect();
        self.accounts.rcu(|accounts| {
            let mut accounts = HashMap::clone(accounts);
            if let Some(live) = accounts.get_mut(account) {
                let was = live.of(origin);
                let same = |new: &Arc<Key>| {
                    was.iter()
                        .find(|old| old.is_of(&new.digest) && old.expires == new.expires)
                        .unwrap_or(new)
                        .clone()
                };
                let now: Vec<Arc<Key>> = tokens.iter().map(same).collect();
                match origin {
                    Origin::Config => live.config = now,
                    Origin::Operator => live.operator = now,
                }
            }
            accounts
        });
    }

    /// Which accounts there are, from now on. One that is new has no token yet; one that is gone has none any more.
    pub fn settle(&self, accounts: &[AccountId]) {
        self.accounts.rcu(|known| {
            let keep = |id: &AccountId| (id.clone(), known.get(id).cloned().unwrap_or_default());
            accounts.iter().map(keep).collect::<HashMap<_, _>>()
        });
    }

    /// An account's tokens of one origin; none where it is not configured.
    #[must_use]
    pub fn keys(&self, account: &AccountId, origin: Origin) -> Option<Vec<Arc<Key>>> {
        self.accounts.load().get(account).map(|live| live.of(origin).clone())
    }

    /// Decides whether a request with these headers speaks for the account, at a time.
    ///
    /// # Errors
    /// A [`Refusal`] that says what was seen, never the value.
    pub fn authenticate(
        &self,
        account: &AccountId,
        headers: &HeaderMap,
        now: Millis,
    ) -> Result<AccountId, Refusal> {
        let accounts = self.accounts.load();
        let Some((id, live)) = accounts.get_key_value(account) else {
            let seen = Seen::of(headers);
            return Err(if seen.any() { Refusal::UnknownAccount } else { Refusal::Unauthorized(seen) });
        };
        let mut fits = Choice::from(0);
        for candidate in candidates(headers) {
            for key in live.config.iter().chain(&live.operator) {
                let opens = Choice::from(u8::from(key.expires.is_none_or(|at| now < at)));
                let this = key.digest.0.ct_eq(&candidate.0) & opens;
                if bool::from(this) {
                    key.used.fetch_max(now.0, Ordering::Relaxed);
                }
                fits |= this;
            }
        }
        if bool::from(fits) { Ok(id.clone()) } else { Err(Refusal::Unauthorized(Seen::of(headers))) }
    }
}

/// Whether the headers carry this token.
#[must_use]
pub fn carries(headers: &HeaderMap, token: &TokenDigest) -> bool {
    let fits = candidates(headers).fold(Choice::from(0), |fits, c| fits | token.0.ct_eq(&c.0));
    bool::from(fits)
}

/// Whether the headers carry any token at all.
#[must_use]
pub fn carries_any(headers: &HeaderMap) -> bool {
    values(headers).any(|value| !value.is_empty())
}

/// Why a request does not speak for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token, or a wrong one.
    #[error("{0}")]
    Unauthorized(Seen),
    /// The account is not configured; some token was sent.
    #[error("no such account")]
    UnknownAccount,
}

/// What a refused request showed: which headers, and what the value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// `Authorization` was sent.
    pub authorization: bool,
    /// `Authentication` was sent.
    pub authentication: bool,
    /// What a value looks like.
    pub looks: Looks,
}

/// What a wrong token looks like: the two mistakes that customers make most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// Nothing in particular.
    Plain,
    /// Somebody typed the webhook's URL where the token belongs.
    Url,
    /// Somebody typed an API's token where the webhook's belongs.
    Jwt,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let sent = |name| headers.get_all(name).iter().any(|v| !v.as_bytes().trim_ascii().is_empty());
        let values = || values(headers).map(|value| spellings(value).last().unwrap_or_default());
        let looks = if values().any(is_url) {
            Looks::Url
        } else if values().any(is_jwt) {
            Looks::Jwt
        } else {
            Looks::Plain
        };
        Self { authorization: sent(HEADERS[0]), authentication: sent(HEADERS[1]), looks }
    }

    const fn any(self) -> bool {
        self.authorization || self.authentication
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = match (self.authorization, self.authentication) {
            (false, false) => {
                return f.write_str("no token: neither Authorization nor Authentication was sent");
            }
            (true, false) => "Authorization",
            (false, true) => "Authentication",
            (true, true) => "Authorization and Authentication",
        };
        write!(f, "wrong token in {headers}")?;
        f.write_str(match self.looks {
            Looks::Plain => "",
            Looks::Url => "; the value looks like a URL, not a token",
            Looks::Jwt => "; the value looks like a JWT, perhaps an API's token instead of the webhook's",
        })
    }
}

fn values(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    HEADERS.into_iter().flat_map(|name| headers.get_all(name)).map(|v| v.as_bytes().trim_ascii())
}

fn candidates(headers: &HeaderMap) -> impl Iterator<Item = TokenDigest> {
    values(headers).flat_map(spellings).filter_map(TokenDigest::of_bytes)
}

/// The value as it came, and without each `Bearer` before it.
fn spellings(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(value), |value| without_bearer(value)).take(PREFIXES + 1)
}

fn without_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let blank = rest.first().is_some_and(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(b"bearer") && blank).then(|| rest.trim_ascii())
}

fn is_url(value: &[u8]) -> bool {
    let starts =
        |scheme: &[u8]| value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    starts(b"https://") || starts(b"http://") || starts(b"www.")
}

fn is_jwt(value: &[u8]) -> bool {
    let base64url = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'='))
    };
    let parts = value.split(|b| *b == b'.');
    value.starts_with(b"eyJ") && parts.clone().count() == 3 && parts.clone().all(base64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "s3cret-token";
    const NOW: Millis = Millis(1_000);

    fn acme() -> AccountId {
        AccountId::new("acme")
    }

    fn tokens(live: &[&str]) -> Tokens {
        let tokens = Tokens::new([acme(), AccountId::new("other")]);
        let keys = live.iter().filter_map(|token| TokenDigest::of(token)).map(Key::of);
        tokens.replace(&acme(), Origin::Config, keys);
        tokens
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn seen(headers: &[(&'static str, &str)]) -> String {
        let refusal = tokens(&[TOKEN]).authenticate(&acme(), &self::headers(headers), NOW).unwrap_err();
        refusal.to_string()
    }

    #[test]
    fn a_live_token_is_found_however_it_is_spelt() {
        let check = |pairs: &[(&'static str, &str)], expected: bool| {
            let got = tokens(&["old", TOKEN]).authenticate(&acme(), &headers(pairs), NOW).is_ok();
            assert_eq!(got, expected, "{pairs:?}");
        };
        check(&[("authorization", "Bearer s3cret-token")], true);
        check(&[("authorization", "s3cret-token")], true);
        check(&[("authorization", "bearer s3cret-token")], true);
        check(&[("authorization", "BEARER   s3cret-token  ")], true);
        check(&[("authorization", "Bearer bearer s3cret-token")], true);
        check(&[("authentication", "Bearer s3cret-token")], true);
        check(&[("authentication", "old")], true);
        check(&[("authorization", "Basic Zm9v"), ("authentication", "s3cret-token")], true);
        check(&[("authorization", "wrong"), ("authorization", "s3cret-token")], true);
        check(&[("authorization", "Bearers3cret-token")], false);
        check(&[("authorization", "s3cret-toke")], false);
        check(&[("authorization", "s3cret-token2")], false);
        check(&[("authorization", "S3CRET-TOKEN")], false);
        check(&[("authorization", "Bearer")], false);
        check(&[("authorization", "")], false);
        check(&[("x-api-key", "s3cret-token")], false);
        check(&[], false);
    }

    #[test]
    fn a_token_that_was_configured_with_its_prefix_still_works() {
        let tokens = tokens(&["Bearer abc"]);
        let sent = headers(&[("authorization", "Bearer abc")]);
        assert!(tokens.authenticate(&acme(), &sent, NOW).is_ok());
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        assert_eq!(TokenDigest::of("  "), None);
        let none = tokens(&[]);
        let sent = headers(&[("authorization", "Bearer ")]);
        assert!(none.authenticate(&acme(), &sent, NOW).is_err());
    }

    #[test]
    fn one_accounts_token_does_not_open_another() {
        let sent = headers(&[("authorization", TOKEN)]);
        let got = tokens(&[TOKEN]).authenticate(&AccountId::new("other"), &sent, NOW);
        assert!(matches!(got, Err(Refusal::Unauthorized(_))), "{got:?}");
    }

    #[test]
    fn an_unknown_account_is_told_only_to_those_with_a_token() {
        let nobody = AccountId::new("nobody");
        let with = tokens(&[TOKEN]).authenticate(&nobody, &headers(&[("authorization", "x")]), NOW);
        assert_eq!(with, Err(Refusal::UnknownAccount));
        let without = tokens(&[TOKEN]).authenticate(&nobody, &headers(&[]), NOW);
        assert!(matches!(without, Err(Refusal::Unauthorized(_))), "{without:?}");
    }

    #[test]
    fn tokens_are_replaced_while_requests_come() {
        let tokens = tokens(&["old"]);
        let old = headers(&[("authorization", "old")]);
        let new = headers(&[("authorization", "new")]);
        tokens.replace(&acme(), Origin::Operator, TokenDigest::of("new").map(Key::of));
        assert!(tokens.authenticate(&acme(), &old, NOW).is_ok());
        assert!(tokens.authenticate(&acme(), &new, NOW).is_ok());
        tokens.replace(&acme(), Origin::Config, []);
        assert!(tokens.authenticate(&acme(), &old, NOW).is_err());
        assert!(tokens.authenticate(&acme(), &new, NOW).is_ok());
        tokens.replace(&AccountId::new("nobody"), Origin::Config, TokenDigest::of("x").map(Key::of));
        let x = headers(&[("authorization", "x")]);
        assert_eq!(tokens.authenticate(&AccountId::new("nobody"), &x, NOW), Err(Refusal::UnknownAccount));
    }

    #[test]
    fn a_token_opens_until_it_ends_and_remembers_its_last_use() {
        let tokens = tokens(&[]);
        let digest = TokenDigest::of("brief").unwrap();
        tokens.replace(&acme(), Origin::Operator, [Key::new(digest, Some(Millis(2_000)), None)]);
        let sent = headers(&[("authorization", "brief")]);
        let used = || tokens.keys(&acme(), Origin::Operator).unwrap()[0].last_used();
        assert_eq!(used(), None);
        assert!(tokens.authenticate(&acme(), &sent, Millis(1_999)).is_ok());
        assert!(tokens.authenticate(&acme(), &sent, Millis(2_000)).is_err());
        assert_eq!(used(), Some(Millis(1_999)));
        let other = TokenDigest::of("other").unwrap();
        let both = [Key::new(digest, Some(Millis(2_000)), None), Key::of(other)];
        tokens.replace(&acme(), Origin::Operator, both);
        assert_eq!(used(), Some(Millis(1_999)), "what stays is not forgotten");
    }

    #[test]
    fn accounts_come_and_go() {
        let tokens = tokens(&[TOKEN]);
        let new = AccountId::new("new");
        tokens.settle(&[acme(), new.clone()]);
        let sent = headers(&[("authorization", TOKEN)]);
        assert!(tokens.authenticate(&acme(), &sent, NOW).is_ok());
        assert!(matches!(tokens.authenticate(&new, &sent, NOW), Err(Refusal::Unauthorized(_))));
        assert_eq!(tokens.authenticate(&AccountId::new("other"), &sent, NOW), Err(Refusal::UnknownAccount));
    }

    #[test]
    fn a_refusal_says_what_was_seen_and_never_the_value() {
        assert_eq!(seen(&[]), "no token: neither Authorization nor Authentication was sent");
        assert_eq!(seen(&[("authorization", "Bearer 4711")]), "wrong token in Authorization");
        let both = [("authorization", "a"), ("authentication", "b")];
        assert_eq!(seen(&both), "wrong token in Authorization and Authentication");
        let url = seen(&[("authentication", "Bearer HTTPS://hooks.example/webhooks/acme")]);
        assert_eq!(url, "wrong token in Authentication; the value looks like a URL, not a token");
        let jwt = seen(&[("authorization", "eyJhbGciOi.eyJzdWIi.c2ln")]);
        assert!(jwt.contains("looks like a JWT") && !jwt.contains("eyJ"), "{jwt}");
    }

    #[test]
    fn a_digest_is_not_printed() {
        assert_eq!(format!("{:?}", TokenDigest::of(TOKEN)), "Some(TokenDigest(…))");
    }
}
