//! The collector of spans.

use crate::{check, meaning};

fn text(endpoint: &str) -> String {
    format!("telemetry: {{ otlp: {{ endpoint: \"{endpoint}\" }} }}")
}

fn with_token(endpoint: &str, name: &str) -> String {
    format!("telemetry: {{ otlp: {{ endpoint: \"{endpoint}\", token: {{ env: {name} }} }} }}")
}

fn endpoint(written: &str) -> String {
    meaning(&text(written)).config.otlp.expect("a collector").endpoint
}

#[test]
fn an_endpoint_is_an_address_as_who_sends_the_spans_reads_it() {
    assert_eq!(endpoint("http://collector:4318"), "http://collector:4318");
    assert_eq!(endpoint("https://collector.example/otlp/"), "https://collector.example/otlp");
    assert_eq!(endpoint("http://[::1]:4318"), "http://[::1]:4318");
    let wrong = "1:32: telemetry.otlp.endpoint: is not the address of a collector; write e.g. http://collector:4318, the port of OTLP over HTTP";
    for written in [
        "collector:4318",
        "ftp://collector",
        "http:collector:4318",
        "http:/collector:4318",
        "http:///collector:4318",
        " http://collector:4318",
        "http://exämple:4318",
        "http://a/a b",
        "http://",
    ] {
        check(&text(written), &[wrong]);
    }
}

#[test]
fn a_token_goes_over_no_open_wire_and_is_one_that_can_be_sent() {
    for endpoint in ["https://collector.example:4318", "http://localhost:4318", "http://127.0.0.1:4318"] {
        assert!(meaning(&with_token(endpoint, "TOKEN")).config.otlp.is_some_and(|otlp| otlp.token.is_some()));
    }
    check(
        &with_token("http://collector.example:4318", "TOKEN"),
        &[
            "1:32: telemetry.otlp.endpoint: is neither https, nor http on loopback; write https: it carries `token`",
        ],
    );
    check(
        &with_token("https://collector", "LINES"),
        &[
            "1:53: telemetry.otlp.token: cannot be sent: the secret in environment variable LINES has a line break within, or another character that no header carries; name one secret, alone and on one line",
        ],
    );
}
