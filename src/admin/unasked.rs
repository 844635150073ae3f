//! What no call asks for: a query, or a body, where the description has none. Invariant: a word that is not understood is an error and
//! never passed over, for a call would do more than was meant; a call that takes a query reads it strictly itself (`problem`).

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::problem::Problem;

/// The longest body that says nothing: `{}` or `null`.
const NOTHING: u64 = 4;

/// Which calls take what, by the description.
pub(super) struct Takes {
    query: HashSet<(Method, String)>,
    body: HashSet<(Method, String)>,
}

impl Takes {
    pub(super) fn of(api: &OpenApi) -> Self {
        let mut takes = Self { query: HashSet::new(), body: HashSet::new() };
        for (path, item) in &api.paths.paths {
            let calls = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
            ];
            for (method, operation) in calls {
                let Some(operation) = operation else { continue };
                if has_query(operation) {
                    takes.query.insert((method.clone(), path.clone()));
                }
                if operation.request_body.is_some() {
                    takes.body.insert((method, path.clone()));
                }
            }
        }
        takes
    }

    fn refuses(&self, request: &Request) -> Option<&'static str> {
        let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let call = (method.clone(), path);
        let asked = request.uri().query().is_some_and(|query| !query.is_empty());
        if asked && !self.query.contains(&call) {
            return Some("this call takes no parameters in its address: nothing was done");
        }
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > NOTHING) && !self.body.contains(&call) {
            return Some("this call takes no body: nothing was done");
        }
        None
    }
}

fn has_query(operation: &Operation) -> bool {
    let is_query = |known: &RefOr<Parameter>| matches!(known, RefOr::T(known) if known.parameter_in == ParameterIn::Query);
    operation.parameters.iter().flatten().any(is_query)
}

/// Refuses what is not asked for.
pub(super) async fn refuse(State(takes): State<Arc<Takes>>, request: Request, next: Next) -> Response {
    match takes.refuses(&request) {
        Some(why) => Problem::unprocessable(why).into_response(),
        None => next.run(request).await,
    }
}
