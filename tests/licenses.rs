//! The licences that the binary carries, against Cargo.lock: a dependency that came or moved without its text is found here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What the binary prints.
fn printed() -> String {
    let ran =
        Command::new(env!("CARGO_BIN_EXE_fleetbus")).arg("licenses").output().expect("the built binary");
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).expect("text")
}

/// The packages of the list before the texts: name and version, and how many texts each refers to.
fn listed(printed: &str) -> BTreeMap<(String, String), usize> {
    let list = printed.split("\n\n").nth(1).expect("a list after the introduction");
    let package = |line: &str| {
        let (package, licence) = line.split_once(": ").expect("a licence");
        let (name, version) = package.split_once(' ').expect("a version");
        ((name.to_owned(), version.to_owned()), licence.matches('[').count())
    };
    list.lines().map(package).collect()
}

/// What cargo links for this platform: every package that is reached without building or testing.
fn linked() -> BTreeSet<(String, String)> {
    let ran = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).expect("text");
    let package = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        Some((name.to_owned(), version.trim_start_matches('v').to_owned()))
    };
    let mut linked: BTreeSet<_> = text.lines().filter_map(package).collect();
    linked.remove(&("fleetbus".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    linked
}

#[test]
fn every_package_in_the_binary_has_its_licence_in_it() {
    let printed = printed();
    let listed = listed(&printed);
    let missing: Vec<_> = linked().into_iter().filter(|package| !listed.contains_key(package)).collect();
    assert_eq!(missing, [], "packages without a licence in the binary: run `make licenses`");
    let bare: Vec<_> = listed.iter().filter(|(_, texts)| **texts == 0).map(|(package, _)| package).collect();
    assert_eq!(bare, Vec::<&(String, String)>::new(), "packages without a text");
    let lock =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).expect("Cargo.lock");
    for (name, version) in listed.keys() {
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&entry), "{name} {version} is not in Cargo.lock any more: run `make licenses`");
    }
    for text in [
        "Permission is hereby granted",
        "librdkafka - Apache Kafka C driver library",
        "utoipa-swagger-ui-vendored",
    ] {
        assert!(printed.contains(text), "{text} is nowhere in the texts");
    }
}
