//! A proxy in the environment: what is asked of this machine, with secrets in plain HTTP, does not go through it.

use std::sync::atomic::Ordering;

use crate::bridge::{Bridge, configure};
use crate::reload::{more, provider};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_asked_of_this_machine_goes_through_a_proxy() {
    let ((base, calls), (collector, spans), (proxy, caught)) =
        (provider().await, provider().await, provider().await);
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!(
        "accounts:\n  - id: acme\n    provider: linxup\n    poll:\n      \
         - {{ api: v2, base_url: \"{base}\", token: {{ env: TEST_TOKEN }}, feeds: {{ trips: 1s }} }}\n"
    );
    let telemetry =
        format!("telemetry: {{ otlp: {{ endpoint: \"{collector}\", token: {{ env: TEST_TOKEN }} }} }}");
    let config = configure(folder.path(), "bus: { local: {} }", &accounts, &telemetry);
    let names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, proxy.as_str()));
    let none = ["NO_PROXY", "no_proxy"].map(|name| (name, ""));
    let _bridge = Bridge::start_with(&config, &[&names[..], &none[..]].concat());
    more(&calls, 2).await;
    more(&spans, 1).await;
    assert_eq!(caught.load(Ordering::Relaxed), 0);
}
