//! What `nsc` makes for a NATS server that trusts an operator: an account and a user as signed claims (JWT, ed25519-nkey),
//! the lines of the server's configuration, and the user's credentials file. Claims as the NATS documentation has them.

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with an account that may use JetStream, and the system's own, without which there is none.
pub struct Trust {
    account: KeyPair,
    lines: String,
}

impl Trust {
    pub fn new() -> Self {
        let (operator, account, system) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let (account_key, system_key) = (account.public_key(), system.public_key());
        let account_claim = |key: &str, stored: i8| {
            let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
                "wildcards": true, "leaf": -1, "mem_storage": stored, "disk_storage": stored, "streams": stored,
                "consumer": stored });
            claim(&operator, key, &json!({ "type": "account", "version": 2, "limits": limits }))
        };
        let lines = format!(
            "operator: {}\nsystem_account: {system_key}\nresolver: MEMORY\nresolver_preload: {{\n{account_key}: {}\n\
             {system_key}: {}\n}}\n",
            claim(&operator, &operator.public_key(), &json!({ "type": "operator", "version": 2 })),
            account_claim(&account_key, -1),
            account_claim(&system_key, 0),
        );
        Self { account, lines }
    }

    /// What the server must be told.
    pub fn lines(&self) -> &str {
        &self.lines
    }

    /// The credentials file of a new user of the account.
    pub fn credentials(&self) -> String {
        credentials(&self.account, -1)
    }

    /// That of one who may send so many bytes at once.
    pub fn credentials_for(&self, payload: i64) -> String {
        credentials(&self.account, payload)
    }

    /// Credentials that look the same, of an account that the server does not know.
    pub fn stranger() -> String {
        credentials(&KeyPair::new_account(), -1)
    }
}

fn credentials(account: &KeyPair, payload: i64) -> String {
    let user = KeyPair::new_user();
    let claim = claim(
        account,
        &user.public_key(),
        &json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": payload, "pub": {}, "sub": {} }),
    );
    let seed = user.seed().expect("a seed");
    format!(
        "-----BEGIN NATS USER JWT-----\n{claim}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

fn claim(issuer: &KeyPair, subject: &str, nats: &Value) -> String {
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let head = part(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let body =
        part(json!({ "jti": subject, "iat": 1_767_009_600, "iss": issuer.public_key(), "name": "tests",
        "sub": subject, "nats": nats }));
    let signed = format!("{head}.{body}");
    let signature = issuer.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}
