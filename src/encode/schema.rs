//! What a schema registry must have for our events: the files of the contract, to be registered, and whether a schema that was
//! found there describes what we write. Pure. Invariant: a schema that fits has our message under its full name, and
//! gives no field or value that we write another name or type. `frame` is made from what is found here.

use std::collections::BTreeMap;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// What every value is.
const PACKAGE: &str = "fleetbus.v1";
const MESSAGE: &str = "FleetEvent";

/// A file of the contract.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// By which it is imported.
    pub name: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// Files of the contract that it imports. Google's own a registry has.
    pub imports: &'static [&'static str],
}

const OBJECTS: &str = "fleetbus/v1/objects.proto";
const BODIES: &str = "fleetbus/v1/bodies.proto";

/// What the event's file imports, each after those that it imports itself.
pub const IMPORTED: [File; 2] = [
    File { name: OBJECTS, text: include_str!("../../proto/fleetbus/v1/objects.proto"), imports: &[] },
    File { name: BODIES, text: include_str!("../../proto/fleetbus/v1/bodies.proto"), imports: &[OBJECTS] },
];

/// The event's file: its first message is the event.
pub const EVENT: File = File {
    name: "fleetbus/v1/event.proto",
    text: include_str!("../../proto/fleetbus/v1/event.proto"),
    imports: &[BODIES, OBJECTS],
};

/// A schema that describes what we write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Which message of its file the event is, counted from 0.
    pub index: usize,
    /// Fields and values that we may write and it does not have: consumers that go by it see them as unknown.
    pub lacks: Vec<String>,
}

/// Why a schema does not describe what we write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It cannot be read.
    #[error("{name} cannot be read as protobuf: {why}")]
    Unreadable {
        /// Which file.
        name: String,
        /// Why.
        why: String,
    },
    /// It has no such message.
    #[error("its file has no message fleetbus.v1.FleetEvent")]
    NoSuchMessage,
    /// It has something else where we write.
    #[error("{part} is `{theirs}` there, and `{ours}` is written")]
    Contradicts {
        /// Which field or value.
        part: String,
        /// What it is there.
        theirs: String,
        /// What we write.
        ours: String,
    },
}

/// Every field and enum value of files: what it is by where it is. Types are compared without their packages, for files
/// may name them in full or not.
type Parts = BTreeMap<(String, i32), String>;

/// Whether a schema of a registry, `text` with the texts of all files that it refers to, describes what we write.
///
/// # Errors
/// Why it does not.
pub fn fit(text: &str, references: &[(String, String)]) -> Result<Fit, Misfit> {
    let root = parse("the schema", text)?;
    let of_package = root.package() == PACKAGE;
    let index = root.message_type.iter().position(|message| of_package && message.name() == MESSAGE);
    let index = index.ok_or(Misfit::NoSuchMessage)?;
    let mut theirs = Parts::new();
    add_file(&mut theirs, &root);
    for (name, text) in references {
        add_file(&mut theirs, &parse(name, text)?);
    }
    let mut lacks = Vec::new();
    for ((path, number), ours) in ours()? {
        let part = format!("{path} {number}");
        match theirs.get(&(path, number)) {
            Some(theirs) if *theirs == ours => {}
            Some(theirs) => return Err(Misfit::Contradicts { part, theirs: theirs.clone(), ours }),
            None => lacks.push(format!("{part} ({ours})")),
        }
    }
    Ok(Fit { index, lacks })
}

fn ours() -> Result<Parts, Misfit> {
    let mut parts = Parts::new();
    for File { name, text, .. } in IMPORTED.into_iter().chain([EVENT]) {
        add_file(&mut parts, &parse(name, text)?);
    }
    Ok(parts)
}

fn parse(name: &str, text: &str) -> Result<FileDescriptorProto, Misfit> {
    protox_parse::parse(name, text)
        .map_err(|error| Misfit::Unreadable { name: name.to_owned(), why: error.to_string() })
}

fn add_file(parts: &mut Parts, file: &FileDescriptorProto) {
    for message in &file.message_type {
        add_message(parts, file.package(), message);
    }
    for values in &file.enum_type {
        add_enum(parts, file.package(), values);
    }
}

fn add_message(parts: &mut Parts, within: &str, message: &DescriptorProto) {
    let path = format!("{within}.{}", message.name());
    for field in &message.field {
        parts.insert((path.clone(), field.number()), described(field));
    }
    for nested in &message.nested_type {
        add_message(parts, &path, nested);
    }
    for values in &message.enum_type {
        add_enum(parts, &path, values);
    }
}

fn add_enum(parts: &mut Parts, within: &str, values: &EnumDescriptorProto) {
    let path = format!("{within}.{}", values.name());
    for value in &values.value {
        parts.insert((path.clone(), value.number()), value.name().to_owned());
    }
}

fn described(field: &FieldDescriptorProto) -> String {
    let many = if field.label == Some(Label::Repeated.into()) { "repeated " } else { "" };
    let scalar = field
        .r#type
        .and_then(|number| Type::try_from(number).ok())
        .map(|kind| kind.as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase());
    let named = field.type_name.as_deref().and_then(|name| name.rsplit('.').next()).map(str::to_owned);
    format!("{many}{} {}", named.or(scalar).unwrap_or_default(), field.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported() -> Vec<(String, String)> {
        IMPORTED.iter().map(|file| (file.name.to_owned(), file.text.to_owned())).collect()
    }

    #[test]
    fn our_own_files_fit_and_come_after_what_they_import() {
        assert_eq!(fit(EVENT.text, &imported()), Ok(Fit { index: 0, lacks: Vec::new() }));
        let mut before = Vec::new();
        for file in IMPORTED.into_iter().chain([EVENT]) {
            let parsed = parse(file.name, file.text).unwrap();
            let imports: Vec<&str> = parsed
                .dependency
                .iter()
                .map(String::as_str)
                .filter(|name| !name.starts_with("google/"))
                .collect();
            assert_eq!(imports, file.imports, "{}", file.name);
            assert!(imports.iter().all(|import| before.contains(import)), "{}", file.name);
            before.push(file.name);
        }
    }

    /// As somebody registers it who has no use for several files.
    #[test]
    fn one_file_with_everything_fits_wherever_the_event_stands_in_it() {
        let bare = |text: &str| -> String {
            let keep =
                |line: &&str| !["syntax", "package", "import", "option "].iter().any(|s| line.starts_with(s));
            text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
        };
        let bodies: String = IMPORTED.iter().map(|file| bare(file.text)).collect();
        let text = format!("syntax = \"proto3\";\npackage fleetbus.v1;\n{bodies}{}", bare(EVENT.text));
        let before =
            IMPORTED.iter().map(|file| parse(file.name, file.text).unwrap().message_type.len()).sum();
        assert_eq!(fit(&text, &[]), Ok(Fit { index: before, lacks: Vec::new() }));
    }

    #[test]
    fn an_older_edition_fits_and_is_told_from_one_that_means_something_else() {
        let older = EVENT.text.replace("  string subject = 3;\n", "");
        let lacks = vec!["fleetbus.v1.FleetEvent 3 (string subject)".to_owned()];
        assert_eq!(fit(&older, &imported()), Ok(Fit { index: 0, lacks }));
        let newer =
            EVENT.text.replace("  string subject = 3;\n", "  string subject = 3;\n  string later = 900;\n");
        assert_eq!(fit(&newer, &imported()), Ok(Fit { index: 0, lacks: Vec::new() }));
        let other = EVENT.text.replace("  string subject = 3;\n", "  int64 subject = 3;\n");
        assert_eq!(
            fit(&other, &imported()).unwrap_err().to_string(),
            "fleetbus.v1.FleetEvent 3 is `int64 subject` there, and `string subject` is written"
        );
        let many = EVENT.text.replace("  string subject = 3;\n", "  repeated string subject = 3;\n");
        assert!(matches!(fit(&many, &imported()), Err(Misfit::Contradicts { .. })));
        let values = vec![
            imported().remove(0),
            (BODIES.to_owned(), IMPORTED[1].text.replace("MOTION_IDLING = 2", "MOTION_PARKED = 2")),
        ];
        assert!(matches!(fit(EVENT.text, &values), Err(Misfit::Contradicts { .. })));
    }

    #[test]
    fn what_is_not_the_event_does_not_fit() {
        let check = |text: &str| fit(text, &[]).unwrap_err();
        assert_eq!(check("syntax = \"proto3\"; package a; message FleetEvent {}"), Misfit::NoSuchMessage);
        assert_eq!(
            check("syntax = \"proto3\"; package fleetbus.v1; message Other {}"),
            Misfit::NoSuchMessage
        );
        assert!(matches!(check("{ \"type\": \"record\" }"), Misfit::Unreadable { .. }));
    }
}
