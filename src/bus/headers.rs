//! The headers of a message, in their order: names and most values are known when the program is built; what is written for one
//! event shares one buffer. `encode` makes them, the buses read them.

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    entries: Vec<(&'static str, Place)>,
    written: String,
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the program.
    Fixed(&'static str),
    /// In the buffer, from the end of what was written before it to here.
    Until(usize),
}

impl Headers {
    /// None yet, and room for so many, with so many bytes of what is written.
    #[must_use]
    pub fn with_room(headers: usize, bytes: usize) -> Self {
        Self { entries: Vec::with_capacity(headers), written: String::with_capacity(bytes) }
    }

    /// Adds one whose value is always the same.
    pub fn fixed(&mut self, name: &'static str, value: &'static str) {
        self.entries.push((name, Place::Fixed(value)));
    }

    /// Adds one whose value `write` appends.
    pub fn written(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        write(&mut self.written);
        self.entries.push((name, Place::Until(self.written.len())));
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { entries: self.entries.iter(), written: &self.written, at: 0 }
    }
}

/// Names and values.
#[derive(Debug)]
pub struct Iter<'a> {
    entries: std::slice::Iter<'a, (&'static str, Place)>,
    written: &'a str,
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'static str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, place) = self.entries.next()?;
        let value = match place {
            Place::Fixed(value) => value,
            Place::Until(end) => {
                self.written.get(std::mem::replace(&mut self.at, *end)..*end).unwrap_or_default()
            }
        };
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'static str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> FromIterator<(&'static str, &'a str)> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'static str, &'a str)>>(from: T) -> Self {
        let mut headers = Self::default();
        for (name, value) in from {
            headers.written(name, |text| text.push_str(value));
        }
        headers
    }
}
