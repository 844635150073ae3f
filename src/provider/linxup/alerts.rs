//! Alert codes: an open set. What is known becomes a kind; every code is kept. The discriminator tells two alerts of one code
//! and time apart, where that can happen, by their texts.

use super::values;
use crate::event::ids;
use crate::event::pb::alert::Kind;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) kind: Kind,
    pub(super) sensor_number: Option<u32>,
}

pub(super) fn meaning(code: &str) -> Meaning {
    let code = plain(code);
    let kind = match code.as_str() {
        "FIRST_IGNITION_OF_DAY" => Kind::FirstIgnitionOfDay,
        "GEOFENCE_ENTERED" => Kind::GeofenceEntered,
        "GEOFENCE_EXITED" => Kind::GeofenceExited,
        "HARSH_BRAKING" => Kind::HarshBraking,
        "RAPID_ACCELERATION" => Kind::RapidAcceleration,
        "HIGH_SPEED" => Kind::HighSpeed,
        "SPEEDING" | "GEOFENCE_SPEEDING" => Kind::Speeding,
        "IDLE_START" => Kind::IdleStarted,
        "IDLE_END" => Kind::IdleEnded,
        "NO_SIGNAL" | "NO_SIGNAL_MODEM" => Kind::NoSignal,
        "POWER_ON" | "TAMPER" => Kind::PowerConnected,
        "POWER_OFF" => Kind::PowerDisconnected,
        "UNAUTHORIZED_USE" | "SENSOR_UNAUTHORIZED_USE" => Kind::UnauthorizedUse,
        "ASSET_LOW_BATTERY" => Kind::LowBattery,
        "DIAGNOSTIC_TROUBLE_CODE_NEW" => Kind::DiagnosticCodeSet,
        "DIAGNOSTIC_TROUBLE_CODE_CLEAR" => Kind::DiagnosticCodeCleared,
        "SENSOR_USE_EXCEEDS_LIMIT" => Kind::SensorUseExceeded,
        "IGNITION_ON" => Kind::IgnitionOn,
        "IGNITION_OFF" => Kind::IgnitionOff,
        "SEATBELT" => Kind::Seatbelt,
        other => return sensor(other).unwrap_or(Meaning { kind: Kind::Other, sensor_number: None }),
    };
    Meaning { kind, sensor_number: None }
}

/// `SENSOR_ONE_HIGH` and its like; of a level that is not known, whose sensor it is.
fn sensor(code: &str) -> Option<Meaning> {
    const NUMBERS: [(&str, u32); 8] = [
        ("ONE", 1),
        ("TWO", 2),
        ("THREE", 3),
        ("FOUR", 4),
        ("FIVE", 5),
        ("SIX", 6),
        ("SEVEN", 7),
        ("EIGHT", 8),
    ];
    let (word, level) = code.strip_prefix("SENSOR_")?.split_once('_')?;
    let kind = match level {
        "HIGH" => Kind::SensorHigh,
        "LOW" => Kind::SensorLow,
        _ => Kind::Other,
    };
    let (_, number) = NUMBERS.into_iter().find(|(name, _)| *name == word)?;
    Some(Meaning { kind, sensor_number: Some(number) })
}

/// A code as codes are compared: the case says nothing, nor do control characters, which no key has.
fn plain(code: &str) -> String {
    ids::without_controls(code).to_uppercase()
}

/// The code as it stands in the record key.
pub(super) fn key_of(code: &str) -> String {
    let code = plain(code);
    if code == "TAMPER" { "POWER_ON".to_owned() } else { code }
}

/// Empty, for ever, for the codes of which a tracker has one at a time; for every other code its description.
pub(super) fn discriminator(code: &str, description: &str) -> String {
    const ONE_AT_A_TIME: [&str; 16] = [
        "FIRST_IGNITION_OF_DAY",
        "HARSH_BRAKING",
        "RAPID_ACCELERATION",
        "HIGH_SPEED",
        "SPEEDING",
        "IDLE_START",
        "IDLE_END",
        "NO_SIGNAL",
        "NO_SIGNAL_MODEM",
        "POWER_ON",
        "POWER_OFF",
        "IGNITION_ON",
        "IGNITION_OFF",
        "SEATBELT",
        "UNAUTHORIZED_USE",
        "ASSET_LOW_BATTERY",
    ];
    if ONE_AT_A_TIME.contains(&key_of(code).as_str()) {
        return String::new();
    }
    description.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The speed in "… traveling N mph …", in metres a second.
pub(super) fn speed_in(description: &str) -> Option<f64> {
    let lower = description.to_lowercase();
    let mut words = lower.split_whitespace();
    while let Some(word) = words.next() {
        // Perhaps after a bracket or a quotation mark.
        if !word.ends_with("traveling") {
            continue;
        }
        let mut ahead = words.clone();
        let (number, unit) = ahead.next().zip(ahead.next())?;
        let is_mph = unit.strip_prefix("mph").is_some_and(|after| !after.starts_with(char::is_alphanumeric));
        let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_mph
            && is_decimal
            && let Ok(mph) = number.parse::<f64>()
            && mph.is_finite()
        {
            return Some(values::mph_to_mps(mph));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_meanings_and_unknown_ones_are_other() {
        for (code, kind, number) in [
            ("high_speed", Kind::HighSpeed, None),
            ("GEOFENCE_SPEEDING", Kind::Speeding, None),
            ("NO_SIGNAL_MODEM", Kind::NoSignal, None),
            ("SENSOR_UNAUTHORIZED_USE", Kind::UnauthorizedUse, None),
            ("TAMPER", Kind::PowerConnected, None),
            ("SENSOR_ONE_HIGH", Kind::SensorHigh, Some(1)),
            ("SENSOR_TWO_LOW", Kind::SensorLow, Some(2)),
            ("SENSOR_USE_EXCEEDS_LIMIT", Kind::SensorUseExceeded, None),
            ("SENSOR_ONE_WET", Kind::Other, Some(1)),
            ("HIGH_SPEED\u{0}", Kind::HighSpeed, None),
            ("TAILGATING", Kind::Other, None),
        ] {
            assert_eq!(meaning(code), Meaning { kind, sensor_number: number }, "{code}");
        }
    }

    #[test]
    fn only_codes_that_may_come_twice_at_a_time_have_a_discriminator() {
        for (code, text, expected) in [
            ("HIGH_SPEED", "Van 17 was traveling 83 mph.", ""),
            ("tamper", "Van 17", ""),
            ("HIGH_\u{7}SPEED\u{0}", "Van 17", ""),
            ("GEOFENCE_SPEEDING", " A\u{a0}\t b ", "a b"),
            ("GEOFENCE_ENTERED", "Van 17  entered\nÜber  Depot.", "van 17 entered über depot."),
            ("TAILGATING", "", ""),
        ] {
            assert_eq!(discriminator(code, text), expected, "{code}");
        }
    }

    #[test]
    fn the_speed_is_read_out_of_the_text() {
        let mph = |text: &str| speed_in(text).map(|mps| mps / 0.44704);
        assert_eq!(mph("Van 17 was traveling 83 mph."), Some(83.0));
        assert_eq!(mph("TRAVELING 83.5  MPH in a 55 mph zone"), Some(83.5));
        assert_eq!(mph("traveling fast, then traveling 60 mph"), Some(60.0));
        assert_eq!(mph("Van 17 (traveling 83 mph)"), Some(83.0));
        assert_eq!(mph("83 mph"), None);
        assert_eq!(mph("traveling 83 mphs"), None);
        assert_eq!(mph("traveling inf mph"), None);
    }
}
