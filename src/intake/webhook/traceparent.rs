//! The sender's `traceparent`, by the W3C's syntax. Pure.

/// `00-` 32 `-` 16 `-` 2.
const LENGTH: usize = 55;

/// The header's value as version 00 spells it, or none where it is malformed. A later version may say more after those
/// fields, which is left out.
#[must_use]
pub(super) fn well_formed(value: &str) -> Option<String> {
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let [version, trace, parent, flags] = known.split('-').collect::<Vec<_>>().try_into().ok()?;
    let lengths = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
    let complete = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    let fits = lengths
        && complete
        && [version, trace, parent, flags].into_iter().all(hex)
        && version != "ff"
        && !zero(trace)
        && !zero(parent);
    fits.then(|| format!("00-{trace}-{parent}-{flags}"))
}

#[cfg(test)]
mod tests {
    use super::well_formed;

    #[test]
    fn only_the_w3cs_syntax_passes() {
        const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(well_formed(value).as_deref(), expected, "{value}");
        };
        check(GOOD, Some(GOOD));
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future", Some(GOOD));
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what", None);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", None);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", None);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None);
        check("00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01", None);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0", None);
        check("", None);
        check(&"é".repeat(40), None);
    }
}
