//! The schema registry of a Kafka bus.

use fleetbus::config::{Bus, Create, Kafka, RegistryLogin, SecretSource};

use crate::{check, meaning};

/// A problem below the registry.
fn check_registry(lines: &str, expected: &[&str]) {
    check(&text(lines), expected);
}

fn text(lines: &str) -> String {
    let lines: Vec<String> = lines.lines().map(|line| format!("        {line}\n")).collect();
    format!("bus:\n  kafka:\n    brokers: localhost:9092\n    encoding:\n      registry:\n{}", lines.concat())
}

fn kafka(text: &str) -> Kafka {
    match meaning(text).config.bus {
        Bus::Kafka(kafka) => kafka,
        Bus::Nats(_) | Bus::Local(_) => panic!("not kafka"),
    }
}

#[test]
fn values_are_bare_unless_a_registry_is_named_and_it_is_only_asked_by_default() {
    assert_eq!(kafka("bus: { kafka: { brokers: 'localhost:9092' } }").registry, None);
    let registry = kafka(&text("url: http://registry:8081/apis/ccompat/v7/")).registry.unwrap();
    assert_eq!(registry.url, "http://registry:8081/apis/ccompat/v7");
    assert_eq!((registry.subject.as_str(), registry.register), ("{topic}-value", Create::Never));
    assert_eq!((registry.login, registry.ca), (None, None));
    let all = "url: https://registry\nsubject: fleetbus.v1.FleetEvent\nregister: true\nuser: bridge\n\
               password: { file: /run/secrets/acme }\nca: cert.pem";
    let registry = kafka(&text(all)).registry.unwrap();
    assert_eq!((registry.subject.as_str(), registry.register), ("fleetbus.v1.FleetEvent", Create::Missing));
    let password = SecretSource::File("/run/secrets/acme".into());
    assert_eq!(registry.login, Some(RegistryLogin::Basic { user: "bridge".to_owned(), password }));
    assert_eq!(registry.ca, Some("cert.pem".into()));
}

#[test]
fn what_is_wrong_with_a_registry_is_said() {
    check(
        "bus: { kafka: { brokers: 'localhost:9092', encoding: {} } }",
        &[
            "1:54: bus.kafka.encoding.registry: is missing; name a schema registry, or leave `encoding` out for bare events",
        ],
    );
    check_registry(
        "subject: '{type}-value'\nregister: missing",
        &[
            "6:9: bus.kafka.encoding.registry.url: is missing; write e.g. https://registry:8081",
            "6:18: bus.kafka.encoding.registry.subject: `{type}` is not a part of a template; it takes {topic}",
            "7:19: bus.kafka.encoding.registry.register: is neither true nor false; write one of them",
        ],
    );
    let secrets = "secrets are `password` and `token`";
    check_registry(
        "url: https://me:hunter2@registry",
        &[&format!("6:14: bus.kafka.encoding.registry.url: holds a user or a secret; {secrets}")],
    );
    check_registry(
        "url: ftp://registry",
        &["6:14: bus.kafka.encoding.registry.url: is neither https nor http; write one of them"],
    );
    check_registry("url: http://127.0.0.1:8081\ntoken: { file: /run/secrets/acme }", &[]);
    check_registry(
        "url: http://registry:8081\ntoken: { file: /run/secrets/acme }",
        &[
            "6:14: bus.kafka.encoding.registry.url: is neither https, nor http on loopback; write https: it carries the secret",
        ],
    );
    check_registry(
        "url: https://registry\nuser: bridge",
        &["6:9: bus.kafka.encoding.registry: has one of `user` and `password`; write both, or neither"],
    );
    let secret = "{ file: /run/secrets/acme }";
    check_registry(
        &format!("url: https://registry\nuser: bridge\npassword: {secret}\ntoken: {secret}"),
        &[
            "6:9: bus.kafka.encoding.registry: has more than one way to sign in; keep one of user with password, and token",
        ],
    );
}
