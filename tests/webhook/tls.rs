//! TLS: certificates that are renewed, and pairs that are none.

use std::time::Duration;

use fleetbus::config;
use fleetbus::intake::accept::Receipt;
use fleetbus::intake::serve::{Bounds, Tls};
use tokio::time::{Instant, timeout};

use crate::hanging::Hanging;
use crate::port::{PATIENCE, TOKEN, Webhooks};

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn files(&self) -> config::Tls {
        config::Tls { cert: self.folder.path().join("cert.pem"), key: self.folder.path().join("key.pem") }
    }

    /// Puts a new pair there, and returns the certificate.
    fn renew(&self) -> String {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.files().cert, pair.cert.pem()).unwrap();
        std::fs::write(self.files().key, pair.signing_key.serialize_pem()).unwrap();
        pair.cert.pem()
    }
}

/// A client that trusts this certificate alone, and makes a connection of its own.
fn trusting(certificate: &str) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([root]).build().unwrap()
}

#[tokio::test]
async fn tls_speaks_http2_and_takes_a_renewed_certificate_but_no_broken_one() {
    let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
    let first = certificates.renew();
    let tls = Tls::load_and_look_every(certificates.files(), Duration::from_millis(20)).await.unwrap();
    let webhooks =
        Webhooks::with(Bounds::WEBHOOKS, Some(tls), |_| Box::pin(async { Ok(Receipt::default()) }));
    let url = format!("https://localhost:{}/webhooks/acme", webhooks.address.port());
    let send = async |certificate: &str| {
        trusting(certificate).post(&url).header("authorization", TOKEN).body("[]").send().await
    };
    let got = send(&first).await.unwrap();
    assert_eq!((got.status().as_u16(), got.version()), (201, reqwest::Version::HTTP_2));

    let renewed = certificates.renew();
    let taken = async { while send(&renewed).await.is_err() {} };
    timeout(PATIENCE, taken).await.expect("the new certificate was not taken");
    assert!(send(&first).await.is_err());

    std::fs::write(certificates.files().cert, "no certificate").unwrap();
    let held = Instant::now();
    while held.elapsed() < Duration::from_millis(200) {
        send(&renewed).await.expect("the last good certificate stays");
    }
    webhooks.stop.cancel();
    webhooks.tracker.close();
    timeout(PATIENCE, webhooks.tracker.wait()).await.expect("the look at the files ends with the port");
}

#[tokio::test]
async fn a_key_whose_disk_hangs_holds_no_stop_up() {
    let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
    certificates.renew();
    let tls = Tls::load_and_look_every(certificates.files(), Duration::from_millis(20)).await.unwrap();
    let webhooks =
        Webhooks::with(Bounds::WEBHOOKS, Some(tls), |_| Box::pin(async { Ok(Receipt::default()) }));
    let hanging = Hanging::put(&certificates.files().key);
    hanging.is_read().await;
    webhooks.stop.cancel();
    webhooks.tracker.close();
    // Sooner than the look is given up.
    let stopped = timeout(Duration::from_secs(5), webhooks.tracker.wait()).await;
    stopped.expect("nobody is connected, and nothing is waited for");
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_named() {
    let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
    let missing = Tls::load(certificates.files()).await.unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.ends_with("cert.pem"), "{missing}");
    certificates.renew();
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(certificates.files().key, other.serialize_pem()).unwrap();
    let unfit = Tls::load(certificates.files()).await.unwrap_err().to_string();
    assert!(unfit.ends_with("are no usable pair"), "{unfit}");
    std::fs::write(certificates.files().key, "x").unwrap();
    let no_key = Tls::load(certificates.files()).await.unwrap_err().to_string();
    assert!(no_key.ends_with("holds no private key in PEM"), "{no_key}");
}
