//! How the provider writes values: numbers as strings and strings as numbers, seconds among milliseconds, `"78.0%"`,
//! `"12.7/4.1"`, and words that mean "nothing". Each reader says absent, a value, or unreadable; none fails.

use std::borrow::Cow;

use crate::event::{Millis, ids, pb};
use crate::provider::tree::Value;

/// What a field says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Read<T> {
    /// Nothing, or a word that means nothing.
    Absent,
    Is(T),
    /// Something, but not what belongs here.
    Unreadable,
}

impl<T> Read<T> {
    pub(super) fn and_then<U>(self, next: impl FnOnce(T) -> Read<U>) -> Read<U> {
        match self {
            Self::Absent => Read::Absent,
            Self::Is(value) => next(value),
            Self::Unreadable => Read::Unreadable,
        }
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Read<U> {
        self.and_then(|value| Read::Is(change(value)))
    }

    fn of(value: Option<T>) -> Self {
        value.map_or(Self::Unreadable, Self::Is)
    }
}

pub(super) const METERS_PER_MILE: f64 = 1609.344;
const MPS_PER_MPH: f64 = 0.44704;

/// The longest id.
const MAX_ID_CHARS: usize = 256;

/// The year 9999, beyond which a protobuf timestamp cannot go.
const MAX_MILLIS: i64 = 253_402_300_799_999;
/// Below it a time was in seconds.
const MIN_MILLIS: i128 = 100_000_000_000;
/// A protobuf duration is at most 10,000 years.
const MAX_DURATION_SECONDS: f64 = 315_576_000_000.0;

/// A text without blanks around it.
pub(super) fn text(value: &Value) -> Read<String> {
    match value {
        Value::Null => Read::Absent,
        Value::Text(text) => match text.trim() {
            "" => Read::Absent,
            text => Read::Is(text.to_owned()),
        },
        Value::Number(number) => Read::Is(whole(number).unwrap_or_else(|| (*number).to_owned())),
        Value::Bool(_) | Value::List(_) | Value::Object(_) | Value::Deep(_) => Read::Unreadable,
    }
}

/// A text that is absent where it is `nothing`.
pub(super) fn text_but(nothing: &'static str) -> impl Fn(&Value) -> Read<String> {
    move |value| {
        text(value).and_then(|t| if t.eq_ignore_ascii_case(nothing) { Read::Absent } else { Read::Is(t) })
    }
}

/// An id: text without control characters, a whole number in decimal. Ids are kept in memory for as long as the process lives,
/// so that one beyond all measure is none.
pub(super) fn id(value: &Value) -> Read<String> {
    let is_short = |id: &str| id.len() <= MAX_ID_CHARS || id.chars().nth(MAX_ID_CHARS).is_none();
    id_of_any_length(value).and_then(|id| Read::of(is_short(&id).then_some(id)))
}

fn id_of_any_length(value: &Value) -> Read<String> {
    if let Value::Number(number) = value {
        return Read::of(whole(number));
    }
    text(value).and_then(|text| {
        let clean = match ids::without_controls(&text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(clean) => Some(clean),
        };
        match clean.as_deref().map(str::trim) {
            // Nothing was taken out of it, and there were no blanks around it.
            None => Read::Is(text),
            Some("") => Read::Absent,
            Some(clean) => Read::Is(clean.to_owned()),
        }
    })
}

/// An id of which 0 means that there is none.
pub(super) fn id_but_zero(value: &Value) -> Read<String> {
    id(value).and_then(|id| if id == "0" { Read::Absent } else { Read::Is(id) })
}

/// How an IMEI that is not there is written, in any case; or in zeros.
const NO_IMEI: [&str; 5] = ["n/a", "na", "none", "unknown", "-"];

/// An IMEI. One that is not there would make one tracker of all that have none.
pub(super) fn imei(value: &Value) -> Read<String> {
    let is_none = |id: &str| {
        NO_IMEI.iter().any(|none| id.eq_ignore_ascii_case(none)) || id.bytes().all(|byte| byte == b'0')
    };
    id(value).and_then(|id| if is_none(&id) { Read::Absent } else { Read::Is(id) })
}

/// A finite number.
pub(super) fn number(value: &Value) -> Read<f64> {
    match value {
        Value::Number(number) => Read::of(finite(number)),
        Value::Text(text) if text.trim().is_empty() => Read::Absent,
        Value::Text(text) => Read::of(finite(text.trim())),
        Value::Null => Read::Absent,
        Value::Bool(_) | Value::List(_) | Value::Object(_) | Value::Deep(_) => Read::Unreadable,
    }
}

/// A percentage from 0 to 100, with its sign or without.
pub(super) fn percent(value: &Value) -> Read<f64> {
    let percent = if let Value::Text(text) = value
        && let Some(number) = text.trim().strip_suffix('%')
    {
        Read::of(finite(number.trim_end()))
    } else {
        number(value)
    };
    percent.and_then(|percent| Read::of((0.0..=100.0).contains(&percent).then_some(percent)))
}

pub(super) fn speed(value: &Value) -> Read<f64> {
    converted(value, mph_to_mps)
}

pub(super) fn distance(value: &Value) -> Read<f64> {
    converted(value, |miles| miles * METERS_PER_MILE)
}

pub(super) fn fahrenheit(value: &Value) -> Read<f64> {
    converted(value, |degrees| (degrees - 32.0) * 5.0 / 9.0)
}

/// A number in another unit, where a double holds it there, too.
fn converted(value: &Value, convert: impl FnOnce(f64) -> f64) -> Read<f64> {
    number(value).and_then(|number| Read::of(Some(convert(number)).filter(|number| number.is_finite())))
}

pub(super) fn mph_to_mps(mph: f64) -> f64 {
    mph * MPS_PER_MPH
}

/// Degrees from north, 0 to less than 360.
pub(super) fn degrees(value: &Value) -> Read<f64> {
    number(value).and_then(|degrees| {
        if degrees == 360.0 {
            Read::Is(0.0)
        } else {
            Read::of((0.0..360.0).contains(&degrees).then_some(degrees))
        }
    })
}

/// A truth, in whichever way it is written.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    match value {
        Value::Null => Read::Absent,
        Value::Bool(value) => Read::Is(*value),
        Value::Text(text) => match text.trim() {
            "" => Read::Absent,
            word if word.eq_ignore_ascii_case("true") => Read::Is(true),
            word if word.eq_ignore_ascii_case("false") => Read::Is(false),
            digits => bit(digits),
        },
        Value::Number(number) => bit(number),
        Value::List(_) | Value::Object(_) | Value::Deep(_) => Read::Unreadable,
    }
}

fn bit(number: &str) -> Read<bool> {
    match whole(number).as_deref() {
        Some("0") => Read::Is(false),
        Some("1") => Read::Is(true),
        Some(_) | None => Read::Unreadable,
    }
}

/// A small whole number: a year, the number of a sensor.
pub(super) fn small(value: &Value) -> Read<u32> {
    match value {
        Value::Number(number) => Read::of(whole(number).and_then(|digits| digits.parse().ok())),
        _ => text(value).and_then(|text| Read::of(whole(&text).and_then(|digits| digits.parse().ok()))),
    }
}

/// A time: milliseconds since 1970, or seconds where it is that small. 0 is no time.
pub(super) fn time(value: &Value) -> Read<Millis> {
    match value {
        Value::Null => Read::Absent,
        Value::Number(number) => Read::of(millis(number)),
        Value::Text(text) if text.trim().is_empty() => Read::Absent,
        Value::Text(text) => Read::of(millis(text.trim())),
        Value::Bool(_) | Value::List(_) | Value::Object(_) | Value::Deep(_) => Read::Unreadable,
    }
}

pub(super) fn minutes(value: &Value) -> Read<prost_types::Duration> {
    number(value).and_then(|minutes| Read::of(duration(minutes * 60.0)))
}

/// Minutes as milliseconds, exactly; a fraction of a millisecond is cut. Identity stands on it, so no double comes between.
pub(super) fn minutes_in_millis(value: &Value) -> Read<i64> {
    let text = match value {
        Value::Number(text) => text.trim(),
        Value::Text(text) => text.trim(),
        Value::Null => return Read::Absent,
        Value::Bool(_) | Value::List(_) | Value::Object(_) | Value::Deep(_) => return Read::Unreadable,
    };
    if text.is_empty() {
        return Read::Absent;
    }
    let exactly = || {
        let minutes = Decimal::parse(text).filter(|decimal| !decimal.negative || decimal.digits == 0)?;
        let (millis, _) = Decimal { digits: minutes.digits.checked_mul(60_000)?, ..minutes }.shifted(0)?;
        i64::try_from(millis).ok()
    };
    Read::of(exactly().filter(|millis| *millis <= MAX_MILLIS))
}

pub(super) fn hours(value: &Value) -> Read<prost_types::Duration> {
    number(value).and_then(|hours| Read::of(duration(hours * 3600.0)))
}

/// `"12.7/4.1"`: vehicle and backup; `"/4.1"`: backup; `"56%"`: the tracker's own; else the vehicle's volts.
pub(super) fn power(value: &Value) -> Read<pb::Power> {
    let Value::Text(text) = value else {
        return number(value).map(|volts| pb::Power { vehicle_volts: Some(volts), ..Default::default() });
    };
    let text = text.trim();
    if text.is_empty() {
        return Read::Absent;
    }
    if text.ends_with('%') {
        return percent(value)
            .map(|percent| pb::Power { tracker_percent: Some(percent), ..Default::default() });
    }
    let (vehicle, backup) = text.split_once('/').unwrap_or((text, ""));
    let volts = |part: &str| match part.trim() {
        "" => Ok(None),
        part => finite(part).map(Some).ok_or(()),
    };
    match (volts(vehicle), volts(backup)) {
        (Ok(None), Ok(None)) => Read::Absent,
        (Ok(vehicle_volts), Ok(backup_volts)) => {
            Read::Is(pb::Power { vehicle_volts, backup_volts, tracker_percent: None })
        }
        (Err(()), _) | (_, Err(())) => Read::Unreadable,
    }
}

/// The customer's own data on an object.
pub(super) fn custom_data(value: &Value) -> Read<prost_types::Struct> {
    match value {
        Value::Object(members) if members.is_empty() => Read::Absent,
        Value::Object(members) => Read::Is(members.to_struct(0, |_, _| true)),
        Value::Null => Read::Absent,
        Value::Text(text) if text.trim().is_empty() => Read::Absent,
        Value::Text(_) | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Deep(_) => {
            Read::Unreadable
        }
    }
}

/// The octant of a compass word: its middle in degrees.
pub(super) fn octant(word: &str) -> Option<f64> {
    const OCTANTS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
    let index = OCTANTS.iter().position(|octant| word.eq_ignore_ascii_case(octant))?;
    u32::try_from(index).ok().map(|index| f64::from(index) * 45.0)
}

/// Whether a direction lies in the octant around `middle`. The provider cuts degrees, so half a degree more is the same.
pub(super) fn in_octant(degrees: f64, middle: f64) -> bool {
    let apart = (degrees - middle).abs();
    apart.min(360.0 - apart) <= 23.0
}

/// A colour: six hexadecimal digits, in lower case, for the formats differ in it.
pub(super) fn color(value: &Value) -> Read<String> {
    text(value).and_then(|text| {
        let digits = text.trim_start_matches('#');
        let is_rgb = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        Read::of(is_rgb.then(|| digits.to_ascii_lowercase()))
    })
}

/// So long after a time: none beyond the last that there is.
pub(super) fn later(time: Millis, millis: i64) -> Option<Millis> {
    time.0.checked_add(millis).filter(|end| *end <= MAX_MILLIS).map(Millis)
}

pub(super) fn timestamp(millis: Millis) -> prost_types::Timestamp {
    let nanos = i32::try_from(millis.0.rem_euclid(1000)).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { seconds: millis.0.div_euclid(1000), nanos }
}

/// A duration, to the millisecond.
fn duration(seconds: f64) -> Option<prost_types::Duration> {
    if seconds.abs() > MAX_DURATION_SECONDS {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the bound above")]
    let millis = (seconds * 1000.0).round() as i64;
    let nanos = i32::try_from(millis % 1000).ok()? * 1_000_000;
    Some(prost_types::Duration { seconds: millis / 1000, nanos })
}

/// A number written in decimal; `inf` and `nan`, which Rust would read, are words.
fn finite(text: &str) -> Option<f64> {
    let decimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(decimal) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// A whole number in decimal digits, however it was written: `1.8e10` is 18000000000. None where it is not whole.
fn whole(text: &str) -> Option<String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    let decimal = Decimal::parse(text)?;
    let (whole, cut) = decimal.shifted(0)?;
    (!cut && !decimal.cut).then(|| if decimal.negative { format!("-{whole}") } else { whole.to_string() })
}

fn millis(text: &str) -> Option<Millis> {
    // As nearly all are written: as what follows would read them, without its width.
    if (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        let is_seconds = i128::from(number) < MIN_MILLIS;
        let millis = if is_seconds { number * 1_000 } else { number };
        return (1..=MAX_MILLIS).contains(&millis).then_some(Millis(millis));
    }
    let decimal = Decimal::parse(text).filter(|decimal| !decimal.negative)?;
    let (mut millis, _) = decimal.shifted(0)?;
    if millis < MIN_MILLIS {
        // Seconds, perhaps with a fraction: that of a millisecond is cut.
        (millis, _) = decimal.shifted(3)?;
    }
    i64::try_from(millis).ok().filter(|millis| (1..=MAX_MILLIS).contains(millis)).map(Millis)
}

/// A decimal number, exactly: digits × 10^exponent.
struct Decimal {
    negative: bool,
    digits: i128,
    exponent: i32,
    /// Digits of the fraction that are not zero were left out.
    cut: bool,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        // More digits of a fraction than this are below any millisecond, where no exponent lifts them.
        let most = 15_usize.saturating_add(usize::try_from(exponent).unwrap_or(0));
        let (fraction, beyond) = fraction.split_at_checked(fraction.len().min(most))?;
        let all = format!("{whole}{fraction}");
        if !all.bytes().all(|byte| byte.is_ascii_digit()) || all.len() > 36 {
            return None;
        }
        let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let cut = beyond.bytes().any(|byte| byte != b'0');
        Some(Self { negative, digits: all.parse().ok()?, exponent, cut })
    }

    /// The number × 10^`by`, its fraction cut, and whether there was one.
    fn shifted(&self, by: i32) -> Option<(i128, bool)> {
        let exponent = self.exponent.checked_add(by)?;
        match u32::try_from(exponent) {
            Ok(up) => Some((self.digits.checked_mul(10_i128.checked_pow(up)?)?, false)),
            Err(_) => match 10_i128.checked_pow(exponent.unsigned_abs()) {
                Some(divisor) => Some((self.digits / divisor, self.digits % divisor != 0)),
                None => Some((0, self.digits != 0)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value<'_> {
        Value::parse(text.as_bytes()).expect("json")
    }

    #[test]
    fn times_are_milliseconds_exactly() {
        for (value, expected) in [
            ("1767009600000", Read::Is(Millis(1_767_009_600_000))),
            ("\" 1767009600000 \"", Read::Is(Millis(1_767_009_600_000))),
            ("1767009600000.9", Read::Is(Millis(1_767_009_600_000))),
            ("1.7670096e12", Read::Is(Millis(1_767_009_600_000))),
            ("0.0000000000000017670096e27", Read::Is(Millis(1_767_009_600_000))),
            ("1767009600", Read::Is(Millis(1_767_009_600_000))),
            ("1767009600.1239", Read::Is(Millis(1_767_009_600_123))),
            ("99999999999", Read::Is(Millis(99_999_999_999_000))),
            ("100000000000", Read::Is(Millis(100_000_000_000))),
            ("0", Read::Unreadable),
            ("-5", Read::Unreadable),
            ("1e999", Read::Unreadable),
            ("1e-999999999", Read::Unreadable),
            ("999999999999999999999", Read::Unreadable),
            ("\"2025-12-29\"", Read::Unreadable),
            ("true", Read::Unreadable),
            ("\"\"", Read::Absent),
            ("null", Read::Absent),
        ] {
            assert_eq!(time(&json(value)), expected, "{value}");
        }
    }

    #[test]
    fn ids_are_text_without_control_characters() {
        for (value, expected) in [
            ("18000100017", Read::Is("18000100017")),
            ("1.8000100017e10", Read::Is("18000100017")),
            ("18000100017.0", Read::Is("18000100017")),
            ("123456789012345678901234567890", Read::Is("123456789012345678901234567890")),
            ("1.5", Read::Unreadable),
            ("5.00000000000000000001", Read::Unreadable),
            ("1.234567890123456701e18", Read::Is("1234567890123456701")),
            ("9.2233720368547758e+18", Read::Is("9223372036854775800")),
            ("\" 007 \"", Read::Is("007")),
            ("\"a\\u0000b\\u001f\"", Read::Is("ab")),
            ("\" \\u0000 \"", Read::Absent),
            ("[]", Read::Unreadable),
        ] {
            assert_eq!(id(&json(value)), expected.map(str::to_owned), "{value}");
        }
        let of_length = |letter: &str, length: usize| id(&Value::Text(letter.repeat(length).into()));
        for letter in ["a", "é"] {
            assert_eq!(of_length(letter, 256), Read::Is(letter.repeat(256)));
            assert_eq!(of_length(letter, 257), Read::Unreadable);
        }
        assert_eq!(id(&json(&"1".repeat(257))), Read::Unreadable);
    }

    #[test]
    fn numbers_may_be_strings() {
        for (value, expected) in [
            ("34", Read::Is(34.0)),
            ("\"34.5\"", Read::Is(34.5)),
            ("\"-1e2\"", Read::Is(-100.0)),
            ("\"inf\"", Read::Unreadable),
            ("\"NaN\"", Read::Unreadable),
            ("1e999", Read::Unreadable),
            ("\"34 mph\"", Read::Unreadable),
            ("\"\"", Read::Absent),
        ] {
            assert_eq!(number(&json(value)), expected, "{value}");
        }
        assert_eq!(percent(&json("\"78.0%\"")), Read::Is(78.0));
        assert_eq!(percent(&json("\"78\"")), Read::Is(78.0));
        assert_eq!(percent(&json("78")), Read::Is(78.0));
        for value in ["\"%\"", "\"150%\"", "-5", "100.1"] {
            assert_eq!(percent(&json(value)), Read::Unreadable, "{value}");
        }
        assert_eq!(small(&json("\"2021\"")), Read::Is(2021));
        assert_eq!(small(&json("2021.0")), Read::Is(2021));
        assert_eq!(small(&json("\"MMXXI\"")), Read::Unreadable);
        for value in ["1", "1.0", "\"1\"", "true", "\" True \""] {
            assert_eq!(boolean(&json(value)), Read::Is(true), "{value}");
        }
        for (value, expected) in
            [("\"0\"", Read::Is(false)), ("2", Read::Unreadable), ("\"on\"", Read::Unreadable)]
        {
            assert_eq!(boolean(&json(value)), expected, "{value}");
        }
    }

    #[test]
    fn what_no_double_holds_in_the_other_unit_is_unreadable() {
        for read in [distance, fahrenheit] {
            assert_eq!(read(&json("1e308")), Read::Unreadable);
            assert!(matches!(read(&json("1e300")), Read::Is(_)));
        }
        assert_eq!(later(Millis(1), MAX_MILLIS - 1), Some(Millis(MAX_MILLIS)));
        assert_eq!(later(Millis(2), MAX_MILLIS - 1), None);
    }

    #[test]
    fn colors_are_six_digits() {
        for (value, expected) in [
            ("\"#00FF00\"", Read::Is("00ff00")),
            ("112233", Read::Is("112233")),
            ("\"\"", Read::Absent),
            ("\"red\"", Read::Unreadable),
            ("\"#0F0\"", Read::Unreadable),
        ] {
            assert_eq!(color(&json(value)), expected.map(str::to_owned), "{value}");
        }
    }

    #[test]
    fn batteries_have_many_forms() {
        let volts = |vehicle: Option<f64>, backup: Option<f64>| {
            Read::Is(pb::Power { vehicle_volts: vehicle, backup_volts: backup, tracker_percent: None })
        };
        for (value, expected) in [
            ("\"13.9\"", volts(Some(13.9), None)),
            ("13.9", volts(Some(13.9), None)),
            ("\"12.7/4.1\"", volts(Some(12.7), Some(4.1))),
            ("\"/4.144\"", volts(None, Some(4.144))),
            ("\"12.7/\"", volts(Some(12.7), None)),
            ("\"56%\"", Read::Is(pb::Power { tracker_percent: Some(56.0), ..Default::default() })),
            ("\"/\"", Read::Absent),
            ("\"12.7/4.1/3\"", Read::Unreadable),
            ("\"full\"", Read::Unreadable),
        ] {
            assert_eq!(power(&json(value)), expected, "{value}");
        }
    }

    #[test]
    fn durations_and_directions() {
        assert_eq!(minutes(&json("7.5")), Read::Is(prost_types::Duration { seconds: 450, nanos: 0 }));
        assert_eq!(minutes(&json("1e300")), Read::Unreadable);
        for (value, expected) in [
            ("60", Read::Is(3_600_000)),
            ("2.01", Read::Is(120_600)),
            ("\" 4.35 \"", Read::Is(261_000)),
            ("1.00009", Read::Is(60_005)),
            ("-0.0", Read::Is(0)),
            ("-1", Read::Unreadable),
            ("1e300", Read::Unreadable),
            ("{}", Read::Unreadable),
            ("\"\"", Read::Absent),
        ] {
            assert_eq!(minutes_in_millis(&json(value)), expected, "{value}");
        }
        assert_eq!(degrees(&json("360")), Read::Is(0.0));
        assert_eq!(degrees(&json("361")), Read::Unreadable);
        assert!(
            in_octant(338.0, 0.0) && in_octant(22.0, 0.0) && in_octant(67.0, 45.0) && !in_octant(91.0, 45.0)
        );
    }
}
