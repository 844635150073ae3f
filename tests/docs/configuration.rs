//! The tables of keys in `docs/configuration.md`, written from the schema that editors get.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const BEGIN: &str = "<!-- Written by `make docs` from the schema: -->\n";
const END: &str = "<!-- Until here. -->\n";

#[test]
fn the_tables_of_keys_are_what_the_schema_says() {
    let page = "docs/configuration.md";
    let text = std::fs::read_to_string(super::root().join(page)).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let mut sections = vec![Section::new("")];
    walk(&mut sections, 0, "", &fleetbus::config::schema());
    let tables = sections.iter().map(Section::written).collect::<String>();
    super::is_written(page, &format!("{before}{BEGIN}{tables}\n{END}{after}"));
}

/// A table: the keys of the file itself, or those below a bus or of the entries of a list.
struct Section {
    name: String,
    about: String,
    rows: String,
}

impl Section {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), about: String::new(), rows: String::new() }
    }

    fn written(&self) -> String {
        let title = if self.name.is_empty() { String::new() } else { format!("### `{}`\n\n", self.name) };
        let about = if self.about.is_empty() { String::new() } else { format!("{}.\n\n", self.about) };
        format!("\n{title}{about}| key | form | default | meaning |\n|---|---|---|---|\n{}", self.rows)
    }
}

fn walk(sections: &mut Vec<Section>, section: usize, prefix: &str, object: &Value) {
    let properties = object["properties"].as_object().unwrap();
    let required = |key: &str| object["required"].as_array().is_some_and(|all| all.contains(&key.into()));
    for (key, form) in properties {
        let name = format!("{prefix}{key}");
        let inner = form["properties"].as_object();
        match (inner, &form["items"]) {
            (Some(_), _) if sections[section].name.is_empty() && prefix == "bus." => {
                begin(sections, &name, form);
            }
            (Some(inner), _) if !is_uniform(inner) => walk(sections, section, &format!("{name}."), form),
            (None, Value::Object(items)) if items.contains_key("properties") => {
                let full = format!("{}{name}[]", owner(&sections[section]));
                row(&mut sections[section], &name, "list", required(key), form);
                begin(sections, &full, &form["items"]);
            }
            _ => row(&mut sections[section], &name, &spelled(form, inner), required(key), form),
        }
    }
}

fn owner(section: &Section) -> String {
    if section.name.is_empty() { String::new() } else { format!("{}.", section.name) }
}

fn begin(sections: &mut Vec<Section>, name: &str, form: &Value) {
    let mut section = Section::new(name);
    section.about = form["description"].as_str().unwrap_or_default().to_owned();
    sections.push(section);
    walk(sections, sections.len() - 1, "", form);
}

/// A map whose keys all take the same.
fn is_uniform(inner: &Map<String, Value>) -> bool {
    let mut forms = inner.values();
    let first = forms.next();
    inner.len() > 2 && forms.all(|form| Some(form) == first)
}

fn row(section: &mut Section, name: &str, form: &str, required: bool, schema: &Value) {
    let default = match &schema["default"] {
        Value::Null if required => "required".to_owned(),
        Value::Null => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let about = schema["description"].as_str().unwrap_or_default().replace('|', "\\|");
    writeln!(section.rows, "| `{name}` | {form} | {default} | {about} |").unwrap();
}

fn spelled(schema: &Value, inner: Option<&Map<String, Value>>) -> String {
    if let Some(inner) = inner {
        let keys = inner.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" ");
        return format!("map of {keys}");
    }
    if schema["$ref"] == "#/$defs/secret" {
        return "secret".to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("`{}`", value.as_str().unwrap()))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    match (schema["type"].as_str().unwrap_or_default(), schema["pattern"].as_str().unwrap_or_default()) {
        ("string", pattern) if pattern.contains("KiB") => "size".to_owned(),
        ("string", pattern) if pattern.contains("ms|s") => "duration".to_owned(),
        ("string", pattern) if pattern.ends_with("/s$") => "rate".to_owned(),
        ("string", _) => "text".to_owned(),
        ("object", _) => "map".to_owned(),
        ("array", _) => "list".to_owned(),
        (other, _) => other.to_owned(),
    }
}
