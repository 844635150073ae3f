//! The fields of an object, taken one by one. Invariant: what nobody took, and what could not be read, is what is left, and
//! goes into `provider_fields`; so nothing is lost by being unknown.

use std::borrow::Cow;

use super::values::{self, Read};
use crate::provider::members::{Keys, Members};
use crate::provider::tree::Value;

/// The fields that are left of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields<'a> {
    left: Members<'a>,
    unreadable: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(members: Members<'a>) -> Self {
        Self { left: members, unreadable: false }
    }

    /// Whether the field says anything at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.get(key).is_some_and(|value| !is_nothing(value))
    }

    /// Whether some field could not be read.
    pub(super) fn some_unreadable(&self) -> bool {
        self.unreadable
    }

    pub(super) fn mark_unreadable(&mut self) {
        self.unreadable = true;
    }

    /// The field as it came, still in its place.
    pub(super) fn peek(&self, key: &str) -> Option<&Value<'a>> {
        self.left.get(key)
    }

    /// The field as it came.
    pub(super) fn take(&mut self, key: &str) -> Option<Value<'a>> {
        self.left.remove(key)
    }

    /// Leaves a value for `provider_fields`.
    pub(super) fn leave(&mut self, key: &str, value: Value<'a>) {
        self.left.insert(Cow::Owned(key.to_owned()), value);
    }

    /// The first of the spellings that says something readable. Those after it that say the same are dropped; others stay.
    #[inline]
    pub(super) fn read<T: PartialEq>(&mut self, keys: &Keys, read: impl Fn(&Value) -> Read<T>) -> Option<T> {
        // A message is asked for far more than it has: that must cost next to nothing.
        if !self.left.may_have(keys) {
            return None;
        }
        self.read_like(keys, read, T::eq).map(|(_, value)| value)
    }

    /// As [`Fields::read`], under one key.
    pub(super) fn read_one<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        let place = self.left.find(key)?;
        let read = self.left.at(place).map_or(Read::Absent, read);
        match read {
            Read::Unreadable => {
                self.unreadable = true;
                None
            }
            Read::Absent => {
                self.left.remove_at(place);
                None
            }
            Read::Is(value) => {
                self.left.remove_at(place);
                Some(value)
            }
        }
    }

    /// As [`Fields::read`], with the spelling that it was, and what "the same" means.
    pub(super) fn read_like<T>(
        &mut self,
        keys: &Keys,
        read: impl Fn(&Value) -> Read<T>,
        same: impl Fn(&T, &T) -> bool,
    ) -> Option<(&'static str, T)> {
        let mut found: Option<(&'static str, T)> = None;
        for name in keys.names() {
            let Some(place) = self.left.find_name(name) else { continue };
            let Some(value) = self.left.at(place) else { continue };
            match read(value) {
                Read::Absent => {
                    self.left.remove_at(place);
                }
                Read::Unreadable => self.unreadable = true,
                Read::Is(value) => match &found {
                    None => {
                        self.left.remove_at(place);
                        found = Some((name.text(), value));
                    }
                    Some((_, first)) if same(first, &value) => {
                        self.left.remove_at(place);
                    }
                    Some(_) => {}
                },
            }
        }
        found
    }

    /// A text, or nothing.
    #[inline]
    pub(super) fn text(&mut self, keys: &Keys) -> String {
        self.read(keys, values::text).unwrap_or_default()
    }

    /// One that cannot be read stays where it is.
    pub(super) const fn leave_unread(&mut self) {
        self.unreadable = true;
    }

    /// An id, or nothing.
    #[inline]
    pub(super) fn id(&mut self, keys: &Keys) -> String {
        self.read(keys, values::id).unwrap_or_default()
    }

    /// A word of a closed set, as it came, and what it means. One that is not of the set stays.
    pub(super) fn word<T>(&mut self, keys: &Keys, known: impl Fn(&str) -> Option<T>) -> (String, Option<T>) {
        let came: Vec<(&str, Value)> =
            keys.texts().filter_map(|key| Some((key, self.left.get(key)?.clone()))).collect();
        let Some((key, word)) = self.read_like(keys, values::text, |a, b| a.eq_ignore_ascii_case(b)) else {
            return (String::new(), None);
        };
        let meaning = known(&word);
        if meaning.is_none()
            && let Some((key, value)) = came.into_iter().find(|(name, _)| *name == key)
        {
            self.leave(key, value);
        }
        (word, meaning)
    }

    /// Reads an object within; what is left of it stays under its key.
    pub(super) fn within<T: Default>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        match self.left.remove(key) {
            Some(Value::Object(members)) => {
                let mut inner = Self::new(members);
                let value = read(&mut inner);
                self.unreadable |= inner.unreadable;
                let rest = inner.rest();
                if !rest.is_empty() {
                    self.leave(key, Value::Object(rest));
                }
                value
            }
            Some(other) if !is_nothing(&other) => {
                self.unreadable = true;
                self.leave(key, other);
                T::default()
            }
            Some(_) | None => T::default(),
        }
    }

    /// What is left: without fields that say nothing, and without the formatted twins of times.
    pub(super) fn rest(mut self) -> Members<'a> {
        self.left.retain(is_left);
        self.left
    }

    /// The same as protobuf has it; nothing where nothing is left.
    pub(super) fn rest_as_struct(&self) -> Option<prost_types::Struct> {
        let rest = self.left.to_struct(0, is_left);
        (!rest.fields.is_empty()).then_some(rest)
    }
}

fn is_left(key: &str, value: &Value) -> bool {
    !is_nothing(value) && !is_formatted_twin(key) && (key != "customData" || !is_empty(value))
}

/// Whether this says in words what a time that is read says in milliseconds: `formattedDate` beside `date`.
fn is_formatted_twin(key: &str) -> bool {
    const TIMES: [&str; 17] = [
        "AlertDateTime",
        "BeginDate",
        "Date",
        "EditDate",
        "EndDate",
        "EndDateTime",
        "EnterDateTime",
        "ExitDateTime",
        "LastSeenTimestamp",
        "LeftBehindTimestamp",
        "MediaTimestamp",
        "PositionDate",
        "ReportDateTime",
        "StartDate",
        "StartDateTime",
        "StopDateTime",
        "Timestamp",
    ];
    key.strip_prefix("formatted").is_some_and(|time| TIMES.contains(&time))
}

/// Empty custom data are how the provider says that there are none, also where they have no object to belong to.
fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Object(members) if members.is_empty())
}

/// Null and the empty string are how the provider says nothing.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Text(text) => text.trim().is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Object(_) | Value::Deep(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::members::keys;

    fn keys<'m>(members: &'m Members) -> Vec<&'m str> {
        let mut keys: Vec<&str> = members.keys().collect();
        keys.sort_unstable();
        keys
    }

    fn fields(json: &str) -> Fields<'_> {
        match Value::parse(json.as_bytes()) {
            Some(Value::Object(members)) => Fields::new(members),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_spelling_stays_only_where_it_says_something_else() {
        let mut some = fields(
            r#"{"a":null,"b":"1","c":1,"d":2,"e":[],"formattedDate":"x","formattedB":"x","f":null,"g":""}"#,
        );
        assert_eq!(some.read(keys!["a", "b", "c", "d", "e"], values::number), Some(1.0));
        assert!(some.some_unreadable());
        assert_eq!(keys(&some.rest()), ["d", "e", "formattedB"], "only the twins of times are dropped");
    }

    #[test]
    fn what_is_left_within_stays_under_its_key() {
        let mut some =
            fields(r#"{"tracker":{"id":1,"colour":"red"},"fleet":{"id":2},"asset":"x","person":null}"#);
        assert_eq!(some.within("tracker", |inner| inner.id(keys!["id"])), "1");
        assert_eq!(some.within("fleet", |inner| inner.id(keys!["id"])), "2");
        assert!(!some.some_unreadable());
        assert_eq!(some.within("person", |inner| inner.id(keys!["id"])), "");
        assert!(!some.some_unreadable());
        assert_eq!(some.within("asset", |inner| inner.id(keys!["id"])), "");
        assert!(some.some_unreadable());
        assert_eq!(keys(&some.rest()), ["asset", "tracker"]);
        let empty = fields(r#"{"customData":{},"a":{}}"#);
        assert_eq!(keys(&empty.rest()), ["a"]);
    }

    #[test]
    fn a_word_that_is_not_known_stays() {
        let known = |word: &str| word.eq_ignore_ascii_case("circle").then_some(1);
        let mut some = fields(r#"{"type":"CIRCLE","kind":"Blob","number":7}"#);
        assert_eq!(some.word(keys!["type"], known), ("CIRCLE".to_owned(), Some(1)));
        assert_eq!(some.word(keys!["kind"], known), ("Blob".to_owned(), None));
        assert_eq!(some.word(keys!["none", "number"], known), ("7".to_owned(), None));
        let left = some.rest();
        assert_eq!(left.get("number"), Some(&Value::Number("7")), "as it came");
        assert_eq!(keys(&left), ["kind", "number"]);
    }
}
