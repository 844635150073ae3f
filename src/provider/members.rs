//! The members of a JSON object, borrowed from its text. A message is asked for many more keys than it has, so most questions
//! are answered without a comparison. Invariants: of two keys of one name the last stays; nothing that is made of members depends on
//! the order in which they came; what an object costs grows with its size and not with the square of it.

use std::borrow::Cow;

use super::tree::Value;

/// Room for the members of most messages and their parts.
const USUAL: usize = 16;
/// How deep these are: of what is in them there may be many.
const PARTS: usize = 1;
/// An object with more members is kept sorted.
const MANY: usize = 64;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members<'a> {
    held: Vec<Member<'a>>,
    /// A bit for each key that is held, and perhaps for some that have gone.
    traces: [u64; 4],
    /// Whether `held` is in the order of its keys.
    sorted: bool,
}

/// Keys under which one thing may stand, the better ones first.
#[derive(Debug)]
pub(crate) struct Keys {
    names: &'static [Name],
    /// The bits of all of them.
    traces: [u64; 4],
}

/// A key, and what a look-up needs of it.
#[derive(Debug)]
pub(crate) struct Name {
    text: &'static str,
    mark: u32,
}

impl Name {
    pub(crate) const fn of(text: &'static str) -> Self {
        Self { text, mark: mark(text) }
    }

    pub(crate) const fn text(&self) -> &'static str {
        self.text
    }
}

impl Keys {
    pub(crate) const fn of(names: &'static [Name]) -> Self {
        let mut traces = [0; 4];
        let mut at = 0;
        while at < names.len() {
            let (word, bit) = trace(names[at].mark);
            traces[word] |= bit;
            at += 1;
        }
        Self { names, traces }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static Name> {
        self.names.iter()
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().map(|name| name.text)
    }
}

/// Keys that are known when the program is built, and so is what tells that none of them is there.
macro_rules! keys {
    ($($key:literal),+ $(,)?) => {{
        const NAMES: &[$crate::provider::members::Name] = &[$($crate::provider::members::Name::of($key)),+];
        const KEYS: &$crate::provider::members::Keys = &$crate::provider::members::Keys::of(NAMES);
        KEYS
    }};
}
pub(crate) use keys;

#[derive(Debug, Clone)]
struct Member<'a> {
    mark: u32,
    key: Cow<'a, str>,
    value: Value<'a>,
}

impl<'a> Members<'a> {
    /// Of an object with members, at this depth.
    pub(crate) fn with_room(depth: usize) -> Self {
        let room = if depth <= PARTS { USUAL } else { 0 };
        Self { held: Vec::with_capacity(room), ..Self::default() }
    }

    /// The place of a key, until something is inserted or removed.
    #[inline]
    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        let mark = mark(key);
        let (word, bit) = trace(mark);
        if self.traces[word] & bit == 0 { None } else { self.search(mark, key) }
    }

    /// Whether one of these may be there: mostly not, and told so at once.
    #[inline]
    pub(crate) fn may_have(&self, keys: &Keys) -> bool {
        self.traces.iter().zip(&keys.traces).any(|(held, asked)| held & asked != 0)
    }

    /// As [`Members::find`].
    #[inline]
    pub(crate) fn find_name(&self, name: &Name) -> Option<usize> {
        let (word, bit) = trace(name.mark);
        if self.traces[word] & bit == 0 { None } else { self.search(name.mark, name.text) }
    }

    fn search(&self, mark: u32, key: &str) -> Option<usize> {
        if self.sorted {
            return self.held.binary_search_by(|member| (*member.key).cmp(key)).ok();
        }
        self.held.iter().position(|member| member.mark == mark && member.key == key)
    }

    /// The value at a place that [`Members::find`] gave.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> Option<&Value<'a>> {
        self.held.get(place).map(|member| &member.value)
    }

    /// Takes the value at a place that [`Members::find`] gave.
    pub(crate) fn remove_at(&mut self, place: usize) -> Value<'a> {
        if self.sorted { self.held.remove(place).value } else { self.held.swap_remove(place).value }
    }

    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.at(self.find(key)?)
    }

    #[inline]
    pub(crate) fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        let place = self.find(key)?;
        Some(self.remove_at(place))
    }

    pub(crate) fn insert(&mut self, key: Cow<'a, str>, value: Value<'a>) {
        if let Some(place) = self.find(&key) {
            self.held[place].value = value;
            return;
        }
        let place = self.sorted.then(|| self.held.partition_point(|member| *member.key < *key));
        self.push(key, value);
        if let Some(place) = place {
            self.held[place..].rotate_right(1);
        }
    }

    /// Takes the next member of the text; after the last one they are to be settled.
    pub(crate) fn read(&mut self, key: Cow<'a, str>, value: Value<'a>) {
        if self.held.len() < MANY {
            self.insert(key, value);
        } else {
            // Not looked for among all that came before it: that would cost the square of their number.
            self.push(key, value);
        }
    }

    fn push(&mut self, key: Cow<'a, str>, value: Value<'a>) {
        let mark = mark(&key);
        let (word, bit) = trace(mark);
        self.traces[word] |= bit;
        self.held.push(Member { mark, key, value });
    }

    /// All of the text have been read.
    pub(crate) fn settle(&mut self) {
        if self.held.len() > MANY {
            // Stable: the last of one key is the first of them once they are turned round.
            self.held.sort_by(|a, b| b.key.cmp(&a.key));
            self.held.reverse();
            self.held.dedup_by(|earlier, kept| earlier.key == kept.key);
            self.sorted = true;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.held.iter().map(|member| (&*member.key, &member.value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// In the order of the keys.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        let mut sorted: Vec<_> = self.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted.into_iter()
    }

    /// Keeps those of which `stays` is true.
    pub(crate) fn retain(&mut self, stays: impl Fn(&str, &Value<'a>) -> bool) {
        self.held.retain(|member| stays(&member.key, &member.value));
    }

    /// Those of which `goes` is true as a protobuf structure; `depth` is 0 for the outermost.
    pub(crate) fn to_struct(
        &self,
        depth: usize,
        goes: impl Fn(&str, &Value<'a>) -> bool,
    ) -> prost_types::Struct {
        let going = self.iter().filter(|(key, value)| goes(key, value));
        prost_types::Struct {
            fields: going.map(|(key, value)| (key.to_owned(), value.to_proto(depth + 1))).collect(),
        }
    }
}

impl PartialEq for Members<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.held.len() == other.held.len() && self.in_order().eq(other.in_order())
    }
}

/// Its length and its ends: different of most keys that are not the same. Of a very long key the length is cut.
#[inline]
const fn mark(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let (first, last) = match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => (*first as u32, *last as u32),
        (None, _) | (_, None) => (0, 0),
    };
    ((bytes.len() as u32) << 16) | (first << 8) | last
}

/// The word and the bit of a mark.
#[inline]
const fn trace(mark: u32) -> (usize, u64) {
    let mixed = mark.wrapping_mul(0x9e37_79b1);
    ((mixed >> 30) as usize, 1 << ((mixed >> 24) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members that were read in this order.
    fn read(pairs: impl Iterator<Item = (String, bool)>) -> Members<'static> {
        let mut members = Members::with_room(0);
        pairs.for_each(|(key, value)| members.read(key.into(), Value::Bool(value)));
        members.settle();
        members
    }

    fn key(number: usize) -> String {
        format!("key {number:03}")
    }

    #[test]
    fn the_last_of_one_key_stays_among_few_and_many() {
        for count in [2, MANY - 1, MANY, MANY + 1, 3 * MANY] {
            let twice = (0..count).rev().map(|n| (key(n), false)).chain((0..count).map(|n| (key(n), true)));
            let mut members = read(twice);
            assert_eq!(members.keys().count(), count);
            for number in 0..count {
                assert_eq!(members.get(&key(number)), Some(&Value::Bool(true)), "{number} of {count}");
            }
            assert!(!members.contains_key("key 1"));
            members.insert("key 000a".into(), Value::Null);
            assert_eq!(members.remove(&key(1)), Some(Value::Bool(true)));
            assert_eq!(members.remove(&key(1)), None);
            assert_eq!(members.get("key 000a"), Some(&Value::Null));
            assert_eq!(members.get(&key(0)), Some(&Value::Bool(true)));
            members.retain(|key, _| key == "key 000a");
            assert_eq!(members.in_order().collect::<Vec<_>>(), [("key 000a", &Value::Null)]);
        }
    }

    #[test]
    fn the_same_members_are_equal_in_any_order() {
        let forth = || (0..9).map(|n| (key(n), n % 2 == 0));
        assert_eq!(read(forth()), read(forth().rev()));
        assert_ne!(read(forth()), read(forth().take(8)));
        assert_ne!(read(forth()), read(forth().map(|(key, value)| (key, !value))));
    }
}
