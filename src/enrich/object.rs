//! A JSON object that an operator says about something: checked once, when it comes in, so that nothing later can fail.
//! Invariant: an [`Object`] is within the bounds, and what it says is carried exactly. Pure.

use prost::Message as _;
use prost_types::value::Kind;
use serde_json::{Map, Value};

/// The longest object, as compact JSON.
pub const LONGEST: usize = 16 << 10;
/// The deepest: an object in an object is two.
pub const DEEPEST: usize = 8;
/// Whole numbers from here on are not carried exactly by a double, which is what the schema has.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Why a text is no such object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON.
    #[error("it is not JSON (column {column})")]
    NotJson {
        /// Where, from 1.
        column: usize,
    },
    /// JSON, but no object.
    #[error("it is not a JSON object, such as {{\"depot\":\"north\"}}")]
    NotAnObject,
    /// Too long.
    #[error("it has {bytes} bytes, and {LONGEST} are taken")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Too deep.
    #[error("it is nested deeper than {DEEPEST}")]
    TooDeep,
    /// A number that would change on its way.
    #[error("the number at {0:?} is 2^53 or beyond, and would not be carried exactly: write it as text")]
    Inexact(String),
}

/// An object within the bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Map<String, Value>);

impl Object {
    /// Reads one.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub fn parse(text: &[u8]) -> Result<Self, ObjectError> {
        // Blanks do not count, but nobody has that many.
        if text.len() > 4 * LONGEST {
            return Err(ObjectError::TooLong { bytes: text.len() });
        }
        let value = serde_json::from_slice::<Value>(text);
        Self::of(value.map_err(|error| ObjectError::NotJson { column: error.column() })?)
    }

    /// Of a value that was read already.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub fn of(value: Value) -> Result<Self, ObjectError> {
        let Value::Object(members) = value else { return Err(ObjectError::NotAnObject) };
        members.iter().try_for_each(|(key, value)| look(key, value, 1))?;
        let object = Self(members);
        match object.text().len() {
            bytes if bytes > LONGEST => Err(ObjectError::TooLong { bytes }),
            _ => Ok(object),
        }
    }

    /// It with a merge patch of RFC 7386 applied.
    ///
    /// # Errors
    /// See [`ObjectError`]: the patch is no object, or what it makes is out of the bounds.
    pub fn patched(self, patch: Value) -> Result<Self, ObjectError> {
        let Value::Object(patch) = patch else { return Err(ObjectError::NotAnObject) };
        // It bounds the recursion.
        patch.iter().try_for_each(|(key, value)| look(key, value, 1))?;
        let mut target = Value::Object(self.0);
        merge(&mut target, Value::Object(patch));
        Self::of(target)
    }

    /// As compact JSON: what the store keeps and the API shows.
    #[must_use]
    pub fn text(&self) -> String {
        // A map with texts for keys is always written.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The bytes of a `google.protobuf.Struct`: what memory keeps, and events carry.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        structure(&self.0).encode_to_vec()
    }
}

fn look(key: &str, value: &Value, depth: usize) -> Result<(), ObjectError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => match number.as_f64() {
            Some(double) if double.fract() != 0.0 || double.abs() < EXACT => Ok(()),
            Some(_) | None => Err(ObjectError::Inexact(key.to_owned())),
        },
        Value::Array(_) | Value::Object(_) if depth >= DEEPEST => Err(ObjectError::TooDeep),
        Value::Array(values) => values.iter().try_for_each(|value| look(key, value, depth + 1)),
        Value::Object(members) => members.iter().try_for_each(|(key, value)| look(key, value, depth + 1)),
    }
}

/// RFC 7386, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn structure(members: &Map<String, Value>) -> prost_types::Struct {
    let fields = members.iter().map(|(key, value)| (key.clone(), protobuf(value))).collect();
    prost_types::Struct { fields }
}

fn protobuf(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(prost_types::NullValue::NullValue.into()),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.iter().map(protobuf).collect() })
        }
        Value::Object(members) => Kind::StructValue(structure(members)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, ObjectError>) {
        let got = Object::parse(text.as_bytes()).map(|object| object.text());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn an_object_is_taken_within_its_bounds() {
        check(
            r#" {"b": 1, "a": [1.5, null, {"c": -9007199254740991}]} "#,
            Ok(r#"{"a":[1.5,null,{"c":-9007199254740991}],"b":1}"#),
        );
        check("{}", Ok("{}"));
        check("[]", Err(ObjectError::NotAnObject));
        check("{\"a\":}", Err(ObjectError::NotJson { column: 6 }));
        check(r#"{"a":{"n":9007199254740993}}"#, Err(ObjectError::Inexact("n".to_owned())));
        check(r#"{"n":123456789012345678901234}"#, Err(ObjectError::Inexact("n".to_owned())));
        let long = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        check(&long(LONGEST), Ok(&long(LONGEST)));
        check(&long(LONGEST + 1), Err(ObjectError::TooLong { bytes: LONGEST + 1 }));
        let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        check(&deep(DEEPEST), Ok(&deep(DEEPEST)));
        check(&deep(DEEPEST + 1), Err(ObjectError::TooDeep));
    }

    /// The examples of RFC 7386, appendix A, that are objects.
    #[test]
    fn a_patch_merges_as_the_rfc_says() {
        let check = |target: Value, patch: Value, expected: Value| {
            let patched = Object::of(target).unwrap().patched(patch).unwrap();
            assert_eq!(Value::Object(patched.0), expected);
        };
        check(json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"}));
        check(json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"}));
        check(json!({"a":"b"}), json!({"a":null}), json!({}));
        check(json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"}));
        check(json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"}));
        check(json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}}));
        check(json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]}));
        check(json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1}));
        check(json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}}));
        let not = Object::of(json!({})).unwrap().patched(json!(["a"]));
        assert_eq!(not, Err(ObjectError::NotAnObject));
    }

    #[test]
    fn what_a_patch_makes_is_held_to_the_bounds_too() {
        let half = "x".repeat(LONGEST / 2);
        let object = Object::of(json!({"a": half})).unwrap();
        assert!(matches!(object.patched(json!({"b": half})), Err(ObjectError::TooLong { .. })));
    }
}
