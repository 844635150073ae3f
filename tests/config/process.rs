//! `fleetbus check` as a process.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};

pub fn fleetbus(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(args)
        .env_remove("FLEETBUS_CONFIG")
        .env("ACME_TOKEN", "s3cret")
        .output()
        .expect("the binary runs")
}

#[test]
fn check_says_what_is_valid_and_exits_0() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fleetbus.yaml");
    fs::write(&path, "accounts: [{ id: acme, provider: linxup, webhook: { token: { env: ACME_TOKEN } } }]\n")
        .expect("written");
    let path = path.to_str().expect("text");
    for args in [&["check", "--config", path][..], &["check", "--config", path, "--connect"]] {
        let output = fleetbus(args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(said.starts_with("configuration is valid\nbus: local, a log in ./data\naccount acme (linxup): webhooks at /webhooks/acme\nnote: no bus is configured"), "{said}");
    }
}

#[test]
fn an_empty_variable_names_no_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("fleetbus.yaml"), "bus:\n  local:\n").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
    let output = command.arg("check").current_dir(folder.path()).env("FLEETBUS_CONFIG", "").output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn check_lists_every_problem_and_exits_64() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fleetbus.yaml");
    fs::write(&path, "lisen: {}\nadmin:\n  token: hunter2\n").expect("written");
    let output = fleetbus(&["check", "--config", path.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("text");
    let at = path.display();
    assert!(said.contains(&format!("{at}:1:1: lisen: is an unknown key; did you mean `listen`?")), "{said}");
    assert!(said.contains(&format!("{at}:3:10: admin.token: is a secret written out")), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_system_without_ca_certificates_will_do_for_plain_http_and_is_named_where_it_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (none, path) = (folder.path().join("none.pem"), folder.path().join("fleetbus.yaml"));
    fs::write(&none, "").expect("written");
    let without = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command.args(args).env("SSL_CERT_FILE", &none).env("SSL_CERT_DIR", folder.path().join("nowhere"));
        let output = command.env("ACME_TOKEN", "s3cret").output().expect("the binary runs");
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).expect("text"))
    };
    // Nobody listens there, and that is all that is wrong.
    for args in [&["health"][..], &["accounts", "list"]] {
        let args = [args, &["--admin", "http://127.0.0.1:1"]].concat();
        let (code, said) = without(&args);
        assert_eq!((code, said.contains("no bridge answers at")), (Some(1), true), "{said}");
    }
    let text = "accounts: [{ id: acme, provider: linxup, poll: [{ api: v2, token: { env: ACME_TOKEN }, base_url: 'https://linxup.invalid', feeds: { trips: 15m } }] }]\n";
    fs::write(&path, text).expect("written");
    let (code, said) = without(&["check", "--connect", "--config", path.to_str().expect("text")]);
    assert_eq!((code, said.contains("this system has no CA certificates")), (Some(1), true), "{said}");
}

/// What `fleetbus check` says of a configuration with what is in its folder: FOLDER stands for that.
fn checked(folder: &Path, text: &str) -> (Option<i32>, String) {
    let path = folder.join("fleetbus.yaml");
    fs::write(&path, text.replace("FOLDER", &folder.display().to_string())).expect("written");
    let output = fleetbus(&["check", "--connect", "--config", path.to_str().expect("text")]);
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn check_opens_certificates_and_keys_as_run_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, at) = (folder.path(), folder.path().display().to_string());
    let tls = "data_dir: FOLDER/data\nlisten:\n  tls: { cert: FOLDER/cert.pem, key: FOLDER/key.pem }\n";
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    fs::write(path.join("cert.pem"), pair.cert.pem()).expect("written");
    fs::write(path.join("key.pem"), pair.signing_key.serialize_pem()).expect("written");
    let (code, said) = checked(path, tls);
    assert_eq!(code, Some(0), "{said}");

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    fs::write(path.join("key.pem"), other.signing_key.serialize_pem()).expect("written");
    let (code, said) = checked(path, tls);
    let no_pair = format!("3:3: listen.tls: {at}/cert.pem and {at}/key.pem are no usable pair");
    assert_eq!((code, said.contains(&no_pair)), (Some(64), true), "{said}");

    // With what else is wrong, in the order of the file.
    fs::write(path.join("cert.pem"), "").expect("written");
    let (code, said) = checked(
        path,
        &format!("{tls}bus: {{ nats: {{ url: 'nats://127.0.0.1:1', ca: FOLDER/cert.pem }} }}\n"),
    );
    let first = format!(
        "fleetbus: {at}/fleetbus.yaml:3:3: listen.tls: {at}/cert.pem holds no certificate in PEM; name the PEM files of a certificate and of its key\n"
    );
    let rest = format!(
        "bus.nats.ca: {at}/cert.pem holds no certificate in PEM; name a file of CA certificates in PEM\nfleetbus: 2 problems in {at}/fleetbus.yaml\n"
    );
    assert_eq!(code, Some(64), "{said}");
    assert!(said.starts_with(&first) && said.ends_with(&rest), "{said}");
}

#[test]
fn check_makes_the_client_of_a_bus_as_run_does() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("empty"), "").expect("written");
    fs::write(folder.path().join("creds"), "hunter2").expect("written");
    for file in ["empty", "missing"] {
        let properties = format!("security.protocol: ssl, ssl.ca.location: FOLDER/{file}");
        let kafka = format!("bus: {{ kafka: {{ brokers: '127.0.0.1:1', properties: {{ {properties} }} }} }}");
        let (code, said) = checked(folder.path(), &kafka);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(":1:8: bus.kafka: the Kafka client refuses its configuration: "), "{said}");
        assert!(said.contains("ssl.ca.location failed"), "{said}");
    }
    let nats = "bus: { nats: { url: 'nats://127.0.0.1:1', credentials: { file: FOLDER/creds } } }";
    let (code, said) = checked(folder.path(), nats);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains(":1:8: bus.nats: the NATS client refuses its configuration: "), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn check_makes_the_exporter_of_spans_as_run_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, none) = (folder.path().join("fleetbus.yaml"), folder.path().join("no-certificates"));
    fs::write(&path, "telemetry: { otlp: { endpoint: 'http://collector:4318' } }\n").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
    // A bare image: nobody can be asked over https, not even by a client that is not going to.
    command.args(["check", "--config"]).arg(&path).env("SSL_CERT_FILE", &none).env("SSL_CERT_DIR", &none);
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(":1:14: telemetry.otlp: the exporter of spans cannot be made: "), "{said}");
}

#[test]
fn a_bundle_of_authorities_may_be_larger_than_any_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    fs::write(folder.path().join("ca.pem"), pair.cert.pem().repeat(300)).expect("written");
    let text = "bus: { nats: { url: 'nats://127.0.0.1:1', ca: FOLDER/ca.pem } }";
    let (_, said) = checked(folder.path(), text);
    assert!(!said.contains("bus.nats.ca"), "{said}");
}

#[test]
fn a_variable_that_is_no_text_is_not_called_unset() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fleetbus.yaml");
    fs::write(&path, "admin: { token: { env: ACME_TOKEN } }\n").expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_fleetbus"))
        .args(["check", "--config"])
        .arg(&path)
        .env("ACME_TOKEN", OsStr::from_bytes(b"s3cret\xff"))
        .output()
        .expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("the environment variable ACME_TOKEN is not UTF-8 text; set it to text"), "{said}");
}

#[test]
fn a_reader_that_left_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fleetbus.yaml");
    fs::write(&path, "accounts: []\n").expect("written");
    for args in [&["--schema"][..], &["--config", path.to_str().expect("text")]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        let output = command.arg("check").args(args).stdout(writer).output().expect("the binary runs");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn the_file_is_found_by_flag_then_variable_then_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("written");
        folder.path().join(name)
    };
    let by_flag = write("flag.yaml", "by_flag: 1\n");
    let by_variable = write("variable.yaml", "by_variable: 1\n");
    write("fleetbus.yaml", "by_name: 1\n");
    let said = |flag: Option<&Path>, variable: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command.arg("check").current_dir(folder.path()).env_remove("FLEETBUS_CONFIG");
        flag.map(|path| command.arg("--config").arg(path));
        variable.map(|path| command.env("FLEETBUS_CONFIG", path));
        String::from_utf8(command.output().expect("the binary runs").stderr).expect("text")
    };
    assert!(said(Some(&by_flag), Some(&by_variable)).contains("by_flag: is an unknown key"));
    assert!(said(None, Some(&by_variable)).contains("by_variable: is an unknown key"));
    assert!(said(None, None).contains("fleetbus.yaml:1:1: by_name: is an unknown key"));
    let gone = fleetbus(&["check", "--config", "/no/such/file.yaml"]);
    assert_eq!(gone.status.code(), Some(64));
}
