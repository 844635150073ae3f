//! `docs/events.md`: every message, field and enum value of `proto/`, in the order of the files, with its comment.

use std::fmt::Write as _;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

const HEAD: &str = "# Events

Written from the comments of [`proto/fleetbus/v1`](../proto/fleetbus/v1) by `make docs`; the `.proto` files are the contract.

The value of every message is one `FleetEvent`, its bare protobuf encoding (on Kafka [framed](kafka.md#schema-registry) where a
schema registry is named). Exactly one of its bodies is set, and says its type.
How to read one in your language: [subscribe.md](subscribe.md). Which provider's messages become which event: [formats.md](formats.md).

What a consumer does with it:

- **Upsert by `record_id`**, and keep the greater `record_version`, of equal ones the later; or by `id`, where every version counts.
- **Expect repetition**: the same `id` may come again after a crash or a long outage of NATS, and where it is older than `dedup.*`, republished or
  replayed; the copies may differ in content.
- **Compare `occur_time`** where order matters beyond one vehicle's: what was healed, backfilled or decoded again comes late.
- **Ignore what you do not know**: fields and enum values are added, never changed.

## Topics

| body | topic (Kafka default) | CloudEvents type |
|---|---|---|
";

/// In the order of the pages: the event first.
const FILES: [&str; 3] = ["fleetbus/v1/event.proto", "fleetbus/v1/bodies.proto", "fleetbus/v1/objects.proto"];

#[test]
fn the_page_of_events_is_what_the_schema_says() {
    let set = FileDescriptorSet::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..]);
    let set = set.unwrap();
    let mut page = HEAD.to_owned();
    let file = |name: &str| set.file.iter().find(|file| file.name() == name).unwrap();
    topics(&mut page, &file(FILES[0]).message_type[0]);
    for name in FILES {
        for (index, message) in file(name).message_type.iter().enumerate() {
            show(&mut page, file(name), message, &[4, index as i32], "");
        }
        for (index, values) in file(name).enum_type.iter().enumerate() {
            show_enum(&mut page, file(name), values, &[5, index as i32], "");
        }
    }
    super::is_written("docs/events.md", &page);
}

fn topics(page: &mut String, event: &DescriptorProto) {
    for field in event.field.iter().filter(|field| field.oneof_index.is_some()) {
        let event_type = match field.name() {
            "tracker_change" => "tracker".to_owned(),
            name => name.replace('_', "-"),
        };
        assert!(fleetbus::event::EventType::parse(&event_type).is_some(), "{event_type} is no type");
        writeln!(page, "| `{}` | `fleet.{event_type}` | `fleetbus.{event_type}.v1` |", field.name()).unwrap();
    }
}

fn show(
    page: &mut String,
    file: &FileDescriptorProto,
    message: &DescriptorProto,
    path: &[i32],
    within: &str,
) {
    let name = format!("{within}{}", message.name());
    write!(page, "\n## {name}\n\n{}", paragraph(&comment(file, path))).unwrap();
    if !message.field.is_empty() {
        page.push_str("| field | type | |\n|---|---|---|\n");
    }
    for (index, field) in message.field.iter().enumerate() {
        let of = comment(file, &[path, &[2, index as i32]].concat());
        writeln!(page, "| `{}` | {} | {} |", field.name(), kind(field), of.replace('|', "\\|")).unwrap();
    }
    for (index, values) in message.enum_type.iter().enumerate() {
        show_enum(page, file, values, &[path, &[4, index as i32]].concat(), &format!("{name}."));
    }
    for (index, nested) in message.nested_type.iter().enumerate() {
        show(page, file, nested, &[path, &[3, index as i32]].concat(), &format!("{name}."));
    }
}

fn show_enum(
    page: &mut String,
    file: &FileDescriptorProto,
    values: &EnumDescriptorProto,
    path: &[i32],
    within: &str,
) {
    write!(page, "\n## {within}{}\n\n{}", values.name(), paragraph(&comment(file, path))).unwrap();
    page.push_str("| value | number | |\n|---|---|---|\n");
    for (index, value) in values.value.iter().enumerate() {
        let of = comment(file, &[path, &[2, index as i32]].concat());
        writeln!(page, "| `{}` | {} | {} |", value.name(), value.number(), of.replace('|', "\\|")).unwrap();
    }
}

fn paragraph(comment: &str) -> String {
    if comment.is_empty() { String::new() } else { format!("{comment}\n\n") }
}

/// The comment before an element, its lines joined; else the one behind it.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let locations = &file.source_code_info.as_ref().unwrap().location;
    let Some(at) = locations.iter().find(|location| location.path == path) else { return String::new() };
    let text = |of: fn(&Location) -> &str| of(at).split_whitespace().collect::<Vec<_>>().join(" ");
    let before = text(Location::leading_comments);
    if before.is_empty() { text(Location::trailing_comments) } else { before }
}

fn kind(field: &FieldDescriptorProto) -> String {
    let name = field.type_name().trim_start_matches('.');
    let one = match field.r#type() {
        Type::Message | Type::Enum => match name.strip_prefix("fleetbus.v1.") {
            Some(own) => format!("[{own}](#{})", own.to_lowercase().replace('.', "")),
            None => format!("`{name}`"),
        },
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    match field.label() {
        Label::Repeated => format!("list of {one}"),
        Label::Optional if field.proto3_optional() => format!("optional {one}"),
        Label::Optional | Label::Required => one,
    }
}
