//! Durations, sizes and rates as people write them. Pure; errors say what is taken.

use std::time::Duration;

/// What is wrong with a text, and what to write instead.
pub type Wrong = (String, &'static str);

/// `500ms`, `2s`, `15m`, `48h`, `7d`.
///
/// # Errors
/// What is wrong and what to write, where it is not one.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || (format!("`{text}` is not a duration"), "write 500ms, 2s, 15m, 48h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// `512KiB`, `32MiB`, `10GiB`, `10GB`, `1024B`.
///
/// # Errors
/// What is wrong and what to write, where it is not one.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let wrong = || (format!("`{text}` is not a size"), "write 512KiB, 32MiB or 10GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(bytes).ok_or_else(wrong)
}

/// `500/s`.
///
/// # Errors
/// What is wrong and what to write, where it is not one.
pub fn rate(text: &str) -> Result<u32, Wrong> {
    let wrong = || (format!("`{text}` is not a rate"), "write 500/s");
    let number = text.strip_suffix("/s").ok_or_else(wrong)?.trim();
    number.parse().ok().filter(|rate| *rate > 0).ok_or_else(wrong)
}

/// A duration as it is written, in the largest unit that is exact.
#[must_use]
pub fn say_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fit = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    fit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

/// A size as it is written, in the largest unit that is exact.
#[must_use]
pub fn say_size(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fit = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    fit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_the_rest_is_refused() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "5", "s", "1.5h", "-1s", "1 fortnight", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("32MiB"), Ok(32 << 20));
        assert_eq!(size("10 GB"), Ok(10_000_000_000));
        for wrong in ["", "10", "MiB", "1.5GiB", "10Gb"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("500/s"), Ok(500));
        assert_eq!(say_duration(Duration::from_secs(5_400)), "90m");
        assert_eq!(say_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(say_size(10 << 30), "10GiB");
        assert_eq!(say_size(1_000), "1000B");
        for wrong in ["500", "0/s", "-1/s", "1/m"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
