//! `/docs`: pages that show the operator's API and try it. They are open to all and hold no secret; their script and style are
//! Swagger UI's, out of the binary and compressed as a browser takes them, so that they work offline. What they describe is at
//! `/openapi.json` (`openapi`).

use std::io::{self, Read as _};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use flate2::read::GzDecoder;

/// What the pages may do: Swagger UI styles by attributes, and draws with data URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>fleetbus operator API</title>
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="begin.js"></script>
</body>
</html>
"#;

/// No validator elsewhere is asked, and no token is kept.
const BEGIN: &str = r##"SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, tryItOutEnabled: true, persistAuthorization: false
});
"##;

const SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));
const STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The pages.
pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/docs", get(async || Redirect::permanent("/docs/")))
        .route("/docs/", get(async || (with(HTML), PAGE)))
        .route("/docs/begin.js", get(async || (with(JAVASCRIPT), BEGIN)))
        .route("/docs/swagger-ui-bundle.js", get(async |asked: HeaderMap| packed(&asked, JAVASCRIPT, SCRIPT)))
        .route("/docs/swagger-ui.css", get(async |asked: HeaderMap| packed(&asked, CSS, STYLE)))
}

/// The headers of every page.
fn with(kind: &'static str) -> [(HeaderName, HeaderValue); 4] {
    [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

/// A file as it is kept, or undone for who cannot take it so.
fn packed(asked: &HeaderMap, kind: &'static str, gzip: &'static [u8]) -> Response {
    let vary = [(VARY, HeaderValue::from_name(ACCEPT_ENCODING))];
    if takes_gzip(asked) {
        let encoding = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
        return (with(kind), vary, encoding, Bytes::from_static(gzip)).into_response();
    }
    match undone(gzip) {
        Ok(bytes) => (with(kind), vary, bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn undone(gzip: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether `gzip` is among the encodings that are asked for, and not refused by a weight of zero.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        matches!(name.trim(), "gzip" | "*") && !refused
    })
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn asked(path: &str, encoding: &str) -> (Response<()>, Bytes) {
        let request = Request::get(path).header(ACCEPT_ENCODING, encoding).body(Body::empty()).unwrap();
        let (parts, body) = pages::<()>().oneshot(request).await.unwrap().into_parts();
        (Response::from_parts(parts, ()), to_bytes(body, 8 << 20).await.unwrap())
    }

    #[tokio::test]
    async fn everything_that_the_page_loads_is_there_in_the_encoding_that_is_asked_for() {
        let (page, _) = asked("/docs/", "gzip").await;
        assert_eq!(page.headers()[CONTENT_SECURITY_POLICY], POLICY);
        for (name, kind) in
            [("begin.js", JAVASCRIPT), ("swagger-ui-bundle.js", JAVASCRIPT), ("swagger-ui.css", CSS)]
        {
            assert!(PAGE.contains(&format!("\"{name}\"")));
            let path = format!("/docs/{name}");
            let (plain, bytes) = asked(&path, "identity, gzip;q=0").await;
            assert_eq!(
                (plain.status(), &plain.headers()[CONTENT_TYPE]),
                (StatusCode::OK, &HeaderValue::from_static(kind))
            );
            assert!(std::str::from_utf8(&bytes).is_ok() && !plain.headers().contains_key(CONTENT_ENCODING));
            let (packed, smaller) = asked(&path, "br, gzip, deflate").await;
            if packed.headers().contains_key(CONTENT_ENCODING) {
                assert_eq!(undone(&smaller).unwrap(), bytes, "{name}");
            }
        }
        assert!(asked("/docs/swagger-ui-bundle.js", "gzip").await.0.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(asked("/docs", "gzip").await.0.status(), StatusCode::PERMANENT_REDIRECT);
    }
}
