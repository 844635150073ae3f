//! What strangers and operators write: requests with their tokens, and configurations. Whatever is sent, only who has the
//! token is let in, and no secret comes back out.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use fleetbus::config::load;
use fleetbus::config::load::World;
use fleetbus::event::AccountId;
use fleetbus::intake::accept::{Pushed, Receipt};
use fleetbus::intake::auth::{Key, Origin, TokenDigest};
use fleetbus::intake::webhook::{self, WebhookState};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use tower::ServiceExt as _;

const TOKEN: &str = "t0ken-of-the-fuzzer";
/// What variables and files hold: it must never be seen.
const MARK: &str = "mark-of-a-secret";
/// The most bytes of an answer.
const ANSWER: usize = 64 << 10;

/// A request: a line with the path, lines of headers, an empty line, the body.
pub(crate) fn webhook(bytes: &[u8]) {
    let Some(request) = request(bytes) else { return };
    let shows_token =
        |name: &str| request.headers().get_all(name).iter().any(|value| is_token(value.as_bytes()));
    let allowed = shows_token("authorization") || shows_token("authentication");
    let taken = Arc::new(Mutex::new(None::<Pushed>));
    let sink = Arc::clone(&taken);
    let acme = AccountId::new("acme");
    let state = WebhookState::new(std::slice::from_ref(&acme));
    state.tokens.replace(&acme, Origin::Config, TokenDigest::of(TOKEN).map(Key::of));
    let routes = webhook::router(state, move |pushed| {
        *sink.lock().expect("no panic") = Some(pushed);
        async { Ok(Receipt::default()) }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (status, answer) = runtime.block_on(async {
        let answer = routes.oneshot(request).await.expect("an answer");
        let status = answer.status();
        (status, axum::body::to_bytes(answer.into_body(), ANSWER).await.expect("a short answer"))
    });
    let answer = String::from_utf8(answer.to_vec()).expect("an answer is text");
    assert!(!status.is_server_error(), "{status} {answer}");
    assert!(!answer.contains(TOKEN), "{answer}");
    let taken = taken.lock().expect("no panic").take();
    assert_eq!(taken.is_some(), status == StatusCode::CREATED, "{status} {answer}");
    if let Some(Pushed { account, hint, body, trace, .. }) = taken {
        assert!(allowed && account == acme, "taken without a token");
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        assert!(hint.is_none_or(|hint| hint.len() <= 64 && hint.bytes().all(is_word)));
        assert!(body.len() <= 2 << 20);
        assert!(trace.is_none_or(|trace| trace.len() >= 55 && trace.bytes().all(|b| b.is_ascii_graphic())));
    }
}

fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let path = std::str::from_utf8(lines.next()?).ok()?;
    let mut request = Request::post(path).body(Body::from(body.to_vec())).ok()?;
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(&line[at + 1..]).ok()?);
    }
    Some(request)
}

/// The token, after up to two `Bearer`: read by words here, and by hand there.
fn is_token(value: &[u8]) -> bool {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let words: Vec<&[u8]> = value.split(blank).filter(|word| !word.is_empty()).collect();
    let Some((last, schemes)) = words.split_last() else { return false };
    let is_bearer = |word: &&[u8]| word.eq_ignore_ascii_case(b"bearer");
    *last == TOKEN.as_bytes() && schemes.len() <= 2 && schemes.iter().all(is_bearer)
}

/// A configuration: what it means, or what is wrong with it, each with a place and without a secret.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match load(text, &Marked) {
        Ok(loaded) => {
            let said = format!("{loaded:?}");
            assert!(text.contains(MARK) || !said.contains(MARK), "{said}");
            assert!(!loaded.config.accounts.iter().any(|account| account.id.as_str().is_empty()));
            assert_eq!(said, format!("{:?}", load(text, &Marked).expect("as before")));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let said = problem.to_string();
                assert!(text.contains(MARK) || !said.contains(MARK), "{said}");
                assert!(!said.is_empty() && said.len() < 4_096 + text.len(), "{said}");
            }
        }
    }
}

/// An environment in which every variable is set and every file is there.
struct Marked;

impl World for Marked {
    fn variable(&self, _: &str) -> Option<String> {
        Some(MARK.to_owned())
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(MARK.as_bytes().to_vec())
    }
}
