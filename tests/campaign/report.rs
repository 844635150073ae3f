//! What a campaign has to say, in the words and tables of `docs/reliability.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::run::{Faults, Outcome};

/// The value below which so many of a thousand lie; zero of none.
fn permille(sorted: &[Duration], share: usize) -> Duration {
    let at = (sorted.len() * share).div_ceil(1_000).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1_000.0)
}

/// One campaign as markdown.
pub fn markdown(outcome: &Outcome) -> String {
    let mut text = String::new();
    let Outcome { settings, findings, .. } = outcome;
    let load = &settings.load;
    let events = findings.distinct.max(1);
    let rate = events as f64 / outcome.took.as_secs_f64();
    let lines = [
        format!("### {}\n", settings.bus.word()),
        format!(
            "{}, seed {}; {} senders, {} vehicles, requests of 1 to {} events; {} distinct events in {} requests, {:.0} s, {:.0} a second.\n",
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            load.seed,
            load.senders,
            load.senders * load.vehicles,
            load.most,
            findings.distinct,
            outcome.answered,
            outcome.took.as_secs_f64(),
            rate
        ),
        "| found | count |\n|---|---|".to_owned(),
        format!("| lost (answered 2xx, or polled past, and not consumed) | {} |", findings.lost.len()),
        format!("| reordered within a subject | {} |", findings.reordered.len()),
        format!("| with another id | {} |", findings.other_ids.len()),
        format!("| invented | {} |", findings.invented.len()),
        format!("| requests cut without an answer (but by kill -9) | {} |", outcome.cut),
        format!("| other trouble (counters, panics, exits) | {} |", outcome.trouble.len()),
        format!("| duplicates with the same id | {} |", findings.duplicates),
        format!("| events polled past, all consumed | {} |", findings.polled),
        format!("| set aside for the operator, as no bus takes them | {} |", findings.too_large.len()),
        format!("| not understood, kept raw | {} |", findings.unknown),
        format!("| answers that were not 2xx | {} |", by_status(&outcome.refused)),
        format!("| requests sent again, and known | {} |", outcome.again),
        format!("| requests that were slow or hung up | {} |\n", outcome.rudeness),
        "| answer time | requests | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|".to_owned(),
    ];
    for line in lines {
        writeln!(text, "{line}").expect("memory");
    }
    for (when, took) in
        [("while the bus was there", &outcome.there), ("while the bus was gone", &outcome.gone)]
    {
        let [p50, p99, p999, max] = [500, 990, 999, 1_000].map(|share| ms(permille(took, share)));
        writeln!(text, "| {when} | {} | {p50} | {p99} | {p999} | {max} |", took.len()).expect("memory");
    }
    text.push_str("\n| fault | times |\n|---|---|\n| death in the first migration | 1 |\n");
    for (fault, times) in &outcome.struck {
        writeln!(text, "| {} | {times} |", fault.words()).expect("memory");
    }
    for (fault, times) in &outcome.missed {
        writeln!(text, "| {}: not reached | {times} |", fault.words()).expect("memory");
    }
    if let Faults::Planned(count) = settings.faults {
        writeln!(text, "\n{count} faults were planned.").expect("memory");
    }
    for trouble in &outcome.trouble {
        writeln!(text, "\n```\n{trouble}\n```").expect("memory");
    }
    text
}

#[test]
fn a_share_of_sorted_times_is_one_of_them() {
    let times: Vec<Duration> = (1..=1_000).map(Duration::from_millis).collect();
    let of = |share| permille(&times, share).as_millis();
    assert_eq!([of(500), of(990), of(999), of(1_000)], [500, 990, 999, 1_000]);
    assert_eq!(permille(&[], 500), Duration::ZERO);
}

fn by_status(counts: &BTreeMap<u16, u64>) -> String {
    if counts.is_empty() {
        return "0".to_owned();
    }
    let each = counts.iter().map(|(status, count)| format!("{count} × {status}"));
    each.collect::<Vec<_>>().join(", ")
}
