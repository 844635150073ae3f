//! The description of the operator's API, OpenAPI 3.1: each part of `admin` annotates its own calls, here is what all have in
//! common: who is let in, how errors look, and `/openapi.json`, which is open to all and holds no secret; `docs` shows it.

use std::sync::Arc;

use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, HttpMethod, Info, License, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::Details;

/// Where the description is.
const AT: &str = "/openapi.json";
/// What every guarded call may answer, beside its own: who is not let in.
const DENIED: [(&str, &str); 3] = [
    ("401", "No admin token, or a wrong one"),
    ("403", "Not this caller: the token's scope lacks, or none is configured and the caller is elsewhere"),
    ("429", "Too many wrong admin tokens: Retry-After says when to come again"),
];

/// Calls that are answered from memory: they need no store.
const FROM_MEMORY: [&str; 8] = [
    "listAccounts",
    "showAccount",
    "countParked",
    "listTokens",
    "listReplays",
    "showReplay",
    "listBackfills",
    "showBackfill",
];

/// What all calls have in common is added to what the parts say of theirs.
pub(super) fn complete(mut api: OpenApi) -> OpenApi {
    let mut info = Info::new("fleetbus operator API", env!("CARGO_PKG_VERSION"));
    info.description =
        Some("What a person does to a running bridge. Errors are RFC 9457 problem details.".to_owned());
    let mut licence = License::new("Apache-2.0");
    licence.identifier = Some("Apache-2.0".to_owned());
    info.license = Some(licence);
    api.info = info;
    let components = api.components.get_or_insert_default();
    components.schemas.insert(Details::name().into_owned(), Details::schema());
    let mut parts = Vec::new();
    Details::schemas(&mut parts);
    components.schemas.extend(parts);
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("admin", bearer);
    api.security = Some(vec![SecurityRequirement::new("admin", std::iter::empty::<String>())]);
    for (path, item) in &mut api.paths.paths {
        let methods = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Delete, &mut item.delete),
            (HttpMethod::Patch, &mut item.patch),
        ];
        for (method, operation) in methods {
            if let Some(operation) = operation {
                explain(operation, &method, path);
            }
        }
    }
    api
}

/// Errors are problems, and some can befall every call.
fn explain(operation: &mut Operation, method: &HttpMethod, path: &str) {
    let answers = &mut operation.responses.responses;
    let mut add = |status: &str, about: &str| {
        answers
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description(about).build()));
    };
    DENIED.iter().for_each(|(status, about)| add(status, about));
    if !operation.operation_id.as_deref().is_some_and(|id| FROM_MEMORY.contains(&id)) {
        add("503", "The store cannot answer now");
    }
    if *method != HttpMethod::Get {
        add("415", "Without an admin token a change must be sent as application/json");
    }
    add("422", "What was asked for is not understood, or is nothing that this call takes");
    if let Some(RefOr::T(body)) = &operation.request_body {
        add("408", "The body did not come in time");
        add("413", "The body is too large");
        // Of a file of lines each one is looked at for itself.
        if body.content.keys().any(|kind| kind.ends_with("json") && !kind.ends_with("ndjson")) {
            add("400", "The body is not JSON");
        }
    }
    debug_assert!(path.starts_with("/v1/"), "only guarded calls are described");
    for (status, answer) in answers {
        if let RefOr::T(answer) = answer
            && (status.starts_with('4') || status.starts_with('5'))
        {
            let problem = RefOr::Ref(Ref::from_schema_name(Details::name()));
            let content = RefOr::T(Content::new(Some(problem)));
            answer.content.insert("application/problem+json".to_owned(), content);
        }
    }
}

/// `/openapi.json`, written once.
pub(super) fn page<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
    let api = Arc::new(complete(api));
    Router::new().route(AT, get(async move || Json(&*api).into_response()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    #[test]
    fn the_errors_of_a_problem_are_described_as_they_are() {
        let api: Value = serde_json::from_str(&crate::admin::api().unwrap()).unwrap();
        let schemas = &api["components"]["schemas"];
        let errors = &schemas["Problem"]["properties"]["errors"];
        assert!(errors.to_string().contains("#/components/schemas/ProblemErrors"), "{errors}");
        assert!(!schemas["Problem"]["required"].as_array().unwrap().contains(&json!("errors")));
        let shapes = &schemas["ProblemErrors"]["oneOf"];
        assert_eq!(shapes[0]["items"], json!({"$ref": "#/components/schemas/WrongLine"}));
        assert_eq!(shapes[1]["items"], json!({"type": "string"}));
        let line = schemas["WrongLine"]["properties"].as_object().unwrap();
        assert_eq!(line.keys().collect::<Vec<_>>(), ["error", "line"]);
    }

    /// Writes what is committed where `FLEETBUS_WRITE` is set: `make api` does.
    #[test]
    fn the_committed_description_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let served = crate::admin::api().unwrap() + "\n";
        if std::env::var_os("FLEETBUS_WRITE").is_some() {
            std::fs::write(path, &served).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == served, "docs/openapi.json is not what is served: `make api` writes it");
    }
}
