//! A real schema registry as a child process: Apicurio, in memory, in plain text or with TLS, which speaks Confluent's
//! protocol. And what a consumer does with what it holds: a schema by its id, with all that it refers to.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Certificates, Guard, Node, QUICK, UP, free_port, installed};

/// One question.
const ASK: Duration = Duration::from_secs(5);

/// A registry that forgets everything when it ends.
pub struct Apicurio {
    _node: Node,
    /// Where Confluent's interface is.
    pub url: String,
    /// Where it is secured.
    pub certificates: Option<Certificates>,
    client: reqwest::Client,
    _dir: TempDir,
}

impl Apicurio {
    /// Starts it, in plain text or with TLS, and waits until it answers.
    pub async fn start(guard: Guard) -> Self {
        Self::start_at(free_port(), guard).await
    }

    /// The same, on this port.
    pub async fn start_at(port: u16, guard: Guard) -> Self {
        let jar = installed("apicurio-2.6.13.Final").join("apicurio-registry-app-2.6.13.Final-runner.jar");
        let dir = tempfile::Builder::new().prefix("fleetbus-apicurio-").tempdir().expect("a folder");
        let certificates = (guard == Guard::Secured).then(|| Certificates::make(dir.path()));
        let mut command: Vec<String> =
            ["java", "-Xmx256m", "-XX:+UseSerialGC", QUICK, "-Dquarkus.http.host=127.0.0.1"]
                .map(str::to_owned)
                .to_vec();
        let mut url = Self::url_at(port);
        let mut client = reqwest::Client::builder().no_proxy().timeout(ASK);
        if let Some(Certificates { ca, cert, key, .. }) = &certificates {
            command.push("-Dquarkus.http.insecure-requests=disabled".to_owned());
            command.push(format!("-Dquarkus.http.ssl-port={port}"));
            command.push(format!("-Dquarkus.http.ssl.certificate.files={}", cert.display()));
            command.push(format!("-Dquarkus.http.ssl.certificate.key-files={}", key.display()));
            url = url.replace("http://", "https://");
            let ca = std::fs::read(ca).expect("a certificate");
            client = client.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&ca).expect("PEM"));
        } else {
            command.push(format!("-Dquarkus.http.port={port}"));
        }
        command.extend(["-jar".to_owned(), jar.display().to_string()]);
        let node = Node::start(command, dir.path().join("registry.log"), dir.path());
        let client = client.build().expect("a client");
        let registry = Self { _node: node, url, certificates, client, _dir: dir };
        let begun = std::time::Instant::now();
        while registry.get("/subjects").await.is_none() {
            assert!(begun.elapsed() < UP, "the registry does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        registry
    }

    /// A port for one that comes later: none that the system gives to others meanwhile.
    pub fn later() -> u16 {
        let mut ports = (20_000..30_000).cycle().skip(std::process::id() as usize % 10_000);
        ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
    }

    /// Where Confluent's interface of one on this port is.
    pub fn url_at(port: u16) -> String {
        format!("http://127.0.0.1:{port}/apis/ccompat/v7")
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.ok()?;
        if answer.status().is_success() { answer.json().await.ok() } else { None }
    }

    /// All subjects.
    pub async fn subjects(&self) -> Vec<String> {
        serde_json::from_value(self.get("/subjects").await.expect("an answer")).expect("names")
    }

    /// Registers a schema; a body of the protocol.
    pub async fn register(&self, subject: &str, schema: &Value) {
        let url = format!("{}/subjects/{}/versions", self.url, subject.replace('/', "%2F"));
        let answer = self.client.post(url).json(schema).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.expect("text"));
    }

    /// The files of the schema with this id: its own, and those that it refers to, by name.
    pub async fn files(&self, id: u32) -> (String, BTreeMap<String, String>) {
        let root = self.get(&format!("/schemas/ids/{id}")).await.expect("a schema of this id");
        let text = |schema: &Value| schema["schema"].as_str().expect("text").to_owned();
        let mut files = BTreeMap::new();
        let mut wanted: Vec<Value> = root["references"].as_array().cloned().unwrap_or_default();
        while let Some(reference) = wanted.pop() {
            let subject = reference["subject"].as_str().expect("a subject").replace('/', "%2F");
            let path = format!("/subjects/{subject}/versions/{}", reference["version"]);
            let file = self.get(&path).await.expect("what is referred to");
            wanted.extend(file["references"].as_array().cloned().unwrap_or_default());
            files.insert(reference["name"].as_str().expect("a name").to_owned(), text(&file));
        }
        (text(&root), files)
    }
}
