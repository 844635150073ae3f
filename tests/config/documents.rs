//! What is committed about the configuration: the schema and the documentation's examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fleetbus::config::{load, schema};

use crate::process::fleetbus;
use crate::{Given, check};

/// Every map of the schema with a foreign key in it: `load` answers with the keys that it knows.
#[test]
fn the_schema_has_the_keys_that_are_taken() {
    fn keys(form: &serde_json::Value) -> BTreeSet<String> {
        form["properties"].as_object().expect("a map").keys().cloned().collect()
    }
    let schema = schema();
    let at = |pointer: &str| keys(schema.pointer(pointer).expect(pointer));
    let text = "
listen: { zzzzzzzz: 1, tls: { zzzzzzzz: 1 } }
admin: { zzzzzzzz: 1 }
bus: BUS
accounts:
  - { zzzzzzzz: 1, webhook: { zzzzzzzz: 1 }, poll: [{ zzzzzzzz: 1 }], limits: { zzzzzzzz: 1 } }
delivery: { zzzzzzzz: 1, breaker: { zzzzzzzz: 1 } }
replay: { zzzzzzzz: 1 }
dedup: { zzzzzzzz: 1 }
zzzzzzzz: 1
";
    let buses = [
        "{ kafka: { zzzzzzzz: 1, encoding: { zzzzzzzz: 1, registry: { zzzzzzzz: 1 } } } }",
        "{ nats: { zzzzzzzz: 1 } }",
        "{ local: { zzzzzzzz: 1 } }",
        "{ zzzzzzzz: 1 }",
    ];
    let mut known: Vec<(String, BTreeSet<String>)> = Vec::new();
    for bus in buses {
        for problem in load(&text.replace("BUS", bus), &Given).map(|_| ()).expect_err("wrong") {
            if let (Some(path), Some(keys)) =
                (problem.path.strip_suffix("zzzzzzzz"), problem.fix.strip_prefix("known here: "))
            {
                known.push((path.to_owned(), keys.split(", ").map(str::to_owned).collect()));
            }
        }
    }
    known.sort();
    known.dedup();
    let of = |path: &str| {
        let mut pointer = String::new();
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let name = part.trim_end_matches("[0]");
            pointer += &format!("/properties/{name}");
            if name != part {
                pointer += "/items";
            }
        }
        at(&pointer)
    };
    assert_eq!(known.len(), 18, "{known:#?}");
    for (path, keys) in known {
        assert_eq!(keys, of(&path), "{path}");
    }
}

/// Set `FLEETBUS_BLESS=1` to write what is committed anew.
#[test]
fn the_committed_schema_is_the_one_that_is_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleetbus.schema.json");
    let printed = fleetbus(&["check", "--schema"]);
    let printed = String::from_utf8(printed.stdout).expect("text");
    if std::env::var_os("FLEETBUS_BLESS").is_some() {
        fs::write(&path, &printed).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).expect("committed"), printed);
}

#[test]
fn the_examples_of_the_documentation_are_valid() {
    for (name, count) in [("docs/configuration.md", 3), ("README.md", 1)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = fs::read_to_string(&path).expect("committed");
        let examples: Vec<&str> =
            text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(examples.len(), count, "{name}");
        for example in examples {
            check(example, &[]);
        }
    }
}
