//! Webhooks: `POST /webhooks/{account}` and `/webhooks/{account}/{hint}`. Authenticates, reads the body within its bounds,
//! hands it to `accept` and maps what came of it to a status. Invariants: no handler runs without an
//! `Authenticated` account; the body of an unauthenticated request is not read; a dropped handler takes nothing back.

mod answer;
mod body;
mod counts;
mod traceparent;

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tracing::Instrument as _;

pub use answer::Answer;
pub use counts::{Counts, Reading, UNKNOWN};

use super::accept::{Pushed, Receipt, Refusal};
use super::auth::{self, Tokens};
use crate::clock;
use crate::event::AccountId;
use crate::faults::{self, Bug};
use crate::trace;
use body::{Budget, Claim};

/// A hint longer than this is none.
const HINT_CHARS: usize = 64;

/// What the handlers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookState {
    /// Who may send.
    pub tokens: Arc<Tokens>,
    /// What was answered: another one after a reload.
    pub counts: Arc<ArcSwap<Counts>>,
    budget: Arc<ArcSwap<Budget>>,
}

impl WebhookState {
    /// For these accounts, which have no live token until `tokens` is told of one.
    #[must_use]
    pub fn new(accounts: &[AccountId]) -> Self {
        Self {
            tokens: Arc::new(Tokens::new(accounts.iter().cloned())),
            counts: Arc::new(ArcSwap::from_pointee(Counts::new(accounts, clock::now()))),
            budget: Arc::new(ArcSwap::from_pointee(Budget::new(accounts))),
        }
    }

    /// These accounts may send from now on, and no other. One that is new has no live token until `tokens` is told of one.
    pub fn settle(&self, accounts: &[AccountId]) {
        self.counts.rcu(|counts| counts.of_accounts(accounts, clock::now()));
        self.budget.rcu(|budget| budget.of_accounts(accounts));
        self.tokens.settle(accounts);
    }
}

#[derive(Clone)]
struct Shared<F> {
    state: WebhookState,
    accept: F,
}

/// The webhooks' routes. `accept` is `Acceptance::push`, whose delivery outlives its caller.
pub fn router<F, Fut>(state: WebhookState, accept: F) -> Router
where
    F: Fn(Pushed) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
{
    let routes = || post(take::<F, Fut>).get(say_ready::<F>);
    Router::new()
        .route("/webhooks/{account}", routes())
        .route("/webhooks/{account}/", routes())
        .route("/webhooks/{account}/{hint}", routes())
        .route("/webhooks/{account}/{hint}/", routes())
        .method_not_allowed_fallback(|State(shared): State<Shared<F>>, uri: Uri| async move {
            astray(&shared.state, &uri, Answer::WrongMethod)
        })
        .fallback(|State(shared): State<Shared<F>>, uri: Uri| async move {
            astray(&shared.state, &uri, Answer::NoWebhook)
        })
        .with_state(Shared { state, accept })
}

/// The account for which a request has proven to speak: the only way to a handler.
struct Authenticated {
    account: AccountId,
    hint: Option<String>,
}

impl<F: Clone + Send + Sync + 'static> FromRequestParts<Shared<F>> for Authenticated {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared<F>) -> Result<Self, Response> {
        let path = RawPathParams::from_request_parts(parts, shared).await;
        let part = |name| path.as_ref().ok().and_then(|p| p.iter().find(|(n, _)| *n == name).map(|(_, v)| v));
        let account = AccountId::new(part("account").unwrap_or_default());
        match shared.state.tokens.authenticate(&account, &parts.headers, clock::now()) {
            Ok(account) => Ok(Self { account, hint: part("hint").and_then(hint) }),
            Err(refusal) => {
                let answer = match refusal {
                    auth::Refusal::Unauthorized(seen) => Answer::Unauthorized(seen),
                    auth::Refusal::UnknownAccount => Answer::UnknownAccount,
                };
                Err(refuse(&shared.state, &account, answer, &refusal))
            }
        }
    }
}

/// Who is not let in is told so; and it is said here, for the provider says it to nobody.
fn refuse(state: &WebhookState, account: &AccountId, answer: Answer, reason: &dyn Display) -> Response {
    let counts = state.counts.load();
    if let Some(refused) = counts.refused(account) {
        tracing::warn!(account = refused.account, refused.count = refused.count, reason = %reason, "webhook.refused");
    }
    finish(state, account, answer)
}

/// For a request that comes to no webhook: whoever typed the address named an account in it, perhaps.
fn astray(state: &WebhookState, uri: &Uri, answer: Answer) -> Response {
    let account = uri.path().split('/').filter(|segment| !segment.is_empty()).nth(1);
    let reason = answer.status().canonical_reason().unwrap_or_default();
    refuse(state, &AccountId::new(account.unwrap_or_default()), answer, &reason)
}

/// A hint in lower case, where it could be one.
fn hint(segment: &str) -> Option<String> {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let fits = (1..=HINT_CHARS).contains(&segment.len()) && segment.as_bytes().iter().all(fits);
    fits.then(|| segment.to_ascii_lowercase())
}

async fn say_ready<F>(State(shared): State<Shared<F>>, sender: Authenticated) -> Response {
    finish(&shared.state, &sender.account, Answer::Ready)
}

async fn take<F, Fut>(State(shared): State<Shared<F>>, sender: Authenticated, request: Request) -> Response
where
    F: Fn(Pushed) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Receipt, Refusal>> + Send + 'static,
{
    let Authenticated { account, hint } = sender;
    let (begun, counts) = (Instant::now(), shared.state.counts.load_full());
    let waiting = counts.waiting(&account);
    let (parts, body) = request.into_parts();
    debug_assert_eq!(parts.method, Method::POST, "the router lets nothing else in");
    let (trace, said) = (traceparent(&parts.headers), body::Said::by(&parts.headers));
    // Sixteen kilobytes, perhaps, while the body takes its time.
    drop(parts);
    let span = tracing::info_span!(
        target: trace::SPANS,
        "webhook",
        otel.kind = "server",
        http.request.method = "POST",
        http.route = "/webhooks/{account}",
        http.response.status_code = tracing::field::Empty,
        fleetbus.account = %account,
    );
    trace::follow(&span, trace.as_deref());
    let own = trace::traceparent(&span).or_else(|| trace.clone());
    let answering = async {
        let read = match said {
            Ok(said) => body::read(&shared.state.budget.load_full(), &account, said, body).await,
            Err(unread) => Err(unread),
        };
        match read {
            Err(unread) => Answer::from(unread),
            Ok((body, claim, reserved)) => {
                let pushed =
                    Pushed { account: account.clone(), hint, body, received_at: clock::now(), trace };
                let answer = match (shared.accept)(pushed).await {
                    // Where it is no JSON is no help to who sent gzip. It is kept all the same.
                    Err(Refusal::NotJson { .. }) if claim == Claim::NotGzip => Answer::NotGzip,
                    taken => Answer::from(taken),
                };
                drop(reserved);
                if faults::bug(Bug::Cut) {
                    std::panic::resume_unwind(Box::new("a planted bug"));
                }
                answer
            }
        }
    };
    let answer = answering.instrument(span.clone()).await;
    span.record("http.response.status_code", i64::from(answer.status().as_u16()));
    waiting.answered();
    counts.took(&account, begun.elapsed(), own.as_deref());
    finish(&shared.state, &account, answer)
}

/// Counts the answer and writes it down.
fn finish(state: &WebhookState, account: &AccountId, answer: Answer) -> Response {
    let status = answer.status();
    let counts = state.counts.load();
    counts.answered(account, status, clock::now());
    let label = counts.label(account);
    tracing::debug!(account = label, http.status = status.as_u16(), "webhook.answered");
    answer.into_response()
}

fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    traceparent::well_formed(value.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_a_short_word_in_lower_case() {
        let check = |segment: &str, expected: Option<&str>| {
            assert_eq!(hint(segment).as_deref(), expected, "{segment}");
        };
        check("stop", Some("stop"));
        check("Geofence-Event_2", Some("geofence-event_2"));
        check("", None);
        check("a b", None);
        check("../x", None);
        check("stöp", None);
        check(&"a".repeat(64), Some(&"a".repeat(64)));
        check(&"a".repeat(65), None);
    }
}
