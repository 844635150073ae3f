//! The collector of spans.

use crate::{check, meaning};

fn text(endpoint: &str) -> String {
    format!("telemetry: {{ otlp: {{ endpoint: \"{endpoint}\" }} }}")
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
