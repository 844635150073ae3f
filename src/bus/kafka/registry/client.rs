//! The schema registry's HTTP interface, as far as a producer needs it: one question, one bounded answer within its deadline, and
//! faults by what helps. Invariant: no secret, and no URL, is in a fault. Neighbours: `outbound` builds the client.

use std::time::Duration;

use bytes::BytesMut;
use http::header::{ACCEPT, CONTENT_TYPE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::aside::Kept;
use crate::bus::OpenError;
use crate::config::{self, RegistryLogin};
use crate::encode::schema::File;
use crate::outbound::{self, Deadlines, Way};

/// One question.
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(3), total: Duration::from_secs(5) };
/// The most that is read of an answer: a hundred times our own schema.
const LONGEST: usize = 1 << 20;
/// The most that is repeated of the registry's words.
const WORDS: usize = 300;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// What a subject is encoded as in a path: all but what is unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why the registry did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It has no such subject, version or schema.
    #[error("it is not there")]
    Missing,
    /// It understood, and refuses; or it is no registry.
    #[error("the registry says {status}: {words}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        words: String,
    },
    /// It answered, and nothing is known: a failure of its own, or an answer that is none. It may be so of one subject alone.
    #[error("the registry does not answer: {0}")]
    Failing(String),
    /// Nothing is known, and so it is of any subject: no answer, too many questions, or a secret that cannot be read now.
    #[error("the registry does not answer: {0}")]
    Unanswered(String),
}

/// A version of a subject.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    pub(super) id: u32,
    pub(super) version: u32,
    #[serde(default)]
    pub(super) schema: String,
    /// Avro, where it is not said.
    pub(super) schema_type: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<Reference>,
}

/// A file that a schema imports, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u32,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    login: Login,
}

/// Who asks.
enum Login {
    Nobody,
    Basic { user: String, password: Kept },
    Bearer { token: Kept },
}

impl Login {
    fn of(login: Option<&RegistryLogin>) -> Self {
        match login {
            None => Self::Nobody,
            Some(RegistryLogin::Basic { user, password }) => {
                Self::Basic { user: user.clone(), password: Kept::new(password.clone()) }
            }
            Some(RegistryLogin::Bearer { token }) => Self::Bearer { token: Kept::new(token.clone()) },
        }
    }
}

impl Client {
    pub(super) fn open(config: &config::SchemaRegistry) -> Result<Self, OpenError> {
        let failed = OpenError::Registry;
        let mut beside = Vec::new();
        if let Some(path) = &config.ca {
            let pem = std::fs::read(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
            let ca = Certificate::from_pem_bundle(&pem);
            let ca = ca.map_err(|error| failed(format!("{}: {error}", path.display())))?;
            if ca.is_empty() {
                return Err(failed(format!("{} holds no certificate in PEM", path.display())));
            }
            beside = ca;
        }
        let builder = || outbound::builder(DEADLINES, Way::to(&config.url)).tls_certs_merge(beside.clone());
        let http =
            outbound::build_for(&config.url, builder).map_err(|error| failed(outbound::said(error)))?;
        Ok(Self { http, url: config.url.clone(), login: Login::of(config.login.as_ref()) })
    }

    /// The newest version of a subject.
    pub(super) async fn newest(&self, subject: &str) -> Result<Version, Fault> {
        self.ask(subject, "/versions/latest", None).await
    }

    /// A version that a schema refers to.
    pub(super) async fn version(&self, reference: &Reference) -> Result<Version, Fault> {
        self.ask(&reference.subject, &format!("/versions/{}", reference.version), None).await
    }

    /// Registers a file under a subject, where the subject does not have it yet. What it is there.
    pub(super) async fn register(
        &self,
        subject: &str,
        file: File,
        references: &[Reference],
    ) -> Result<Version, Fault> {
        let schema = json!({ "schemaType": "PROTOBUF", "schema": file.text, "references": references });
        // Older registries answer with the id alone: the version is asked for.
        let _: Value = self.ask(subject, "/versions", Some(&schema)).await?;
        self.ask(subject, "", Some(&schema)).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        subject: &str,
        rest: &str,
        body: Option<&Value>,
    ) -> Result<A, Fault> {
        let url = format!("{}/subjects/{}{rest}", self.url, utf8_percent_encode(subject, SEGMENT));
        let request = match body {
            None => self.http.get(url),
            Some(body) => self.http.post(url).header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string()),
        };
        let unanswered = |error: reqwest::Error| Fault::Unanswered(outbound::said(error));
        let request = self.signed(request.header(ACCEPT, MEDIA_TYPE)).await?;
        let mut answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        let body = read(&mut answer).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| Fault::Failing(format!("its answer is not a registry's: {error}")));
        }
        Err(fault_of(status, &body))
    }

    /// With the login as it reads now: a file may have been exchanged.
    async fn signed(&self, request: reqwest::RequestBuilder) -> Result<reqwest::RequestBuilder, Fault> {
        let unread = |error: config::SecretError| Fault::Unanswered(error.to_string());
        Ok(match &self.login {
            Login::Nobody => request,
            Login::Basic { user, password } => {
                request.basic_auth(user, Some(password.read().await.map_err(unread)?.reveal()))
            }
            Login::Bearer { token } => request.bearer_auth(token.read().await.map_err(unread)?.reveal()),
        })
    }
}

async fn read(answer: &mut Response) -> Result<BytesMut, Fault> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| Fault::Unanswered(outbound::said(error)))? {
        if body.len() + piece.len() > LONGEST {
            return Err(Fault::Failing(format!("its answer is larger than {} MiB", LONGEST >> 20)));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What a status other than success means.
fn fault_of(status: StatusCode, body: &[u8]) -> Fault {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let (code, message) = problem.map_or((0, String::new()), |problem| (problem.error_code, problem.message));
    let words: String = message.chars().filter(|c| !c.is_control()).take(WORDS).collect();
    if status == StatusCode::NOT_FOUND && (40_401..=40_403).contains(&code) {
        Fault::Missing
    } else if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT {
        Fault::Unanswered(format!("{status} {words}").trim_end().to_owned())
    } else if status.is_server_error() {
        Fault::Failing(format!("{status} {words}").trim_end().to_owned())
    } else if status == StatusCode::NOT_FOUND {
        Fault::Refused { status, words: "there is no schema registry under this URL".to_owned() }
    } else {
        Fault::Refused { status, words }
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use tokio::time::advance;

    use super::*;
    use crate::aside::PATIENCE;
    use crate::config::SecretSource;
    use crate::hanging::Hanging;

    #[test]
    fn a_status_says_what_helps() {
        let check =
            |status: u16, body: &str| fault_of(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let missing = r#"{"error_code":40401,"message":"Subject 'a' not found."}"#;
        assert_eq!(check(404, missing), Fault::Missing);
        assert!(check(404, "<html>").to_string().ends_with("there is no schema registry under this URL"));
        assert!(matches!(check(503, ""), Fault::Failing(_)));
        assert!(matches!(check(429, ""), Fault::Unanswered(_)));
        let conflict = check(409, "{\"error_code\":409,\"message\":\"not\\nbackward compatible\"}");
        assert_eq!(conflict.to_string(), "the registry says 409 Conflict: notbackward compatible");
        assert!(matches!(check(401, ""), Fault::Refused { .. }));
    }

    // On one thread: a read that hangs there would hold this test up, too.
    #[tokio::test(start_paused = true)]
    async fn a_password_whose_disk_hangs_holds_nobody_up_and_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "secret").unwrap();
        let login =
            RegistryLogin::Basic { user: "me".to_owned(), password: SecretSource::File(path.clone()) };
        let client = Client::open(&config::SchemaRegistry {
            url: "http://localhost:1".to_owned(),
            subject: "{topic}-value".to_owned(),
            register: config::Create::Never,
            login: Some(login),
            ca: None,
        })
        .unwrap();
        let signature = async || {
            let signed = client.signed(client.http.get(&client.url)).await;
            signed.map(|request| request.build().unwrap().headers()[AUTHORIZATION].clone())
        };
        let first = signature().await.unwrap();
        let hanging = Hanging::put(&path);
        let passes = async {
            hanging.is_read().await;
            advance(PATIENCE).await;
        };
        let (late, ()) = tokio::join!(signature(), passes);
        assert_eq!(late, Ok(first.clone()));
        assert_eq!(signature().await, Ok(first), "without another wait");
    }
}
