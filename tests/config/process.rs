//! `fleetbus check` as a process.

use std::fs;
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
