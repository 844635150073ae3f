//! What was measured, as JSON and as tables: each figure the median of its runs with the lowest and the highest, each
//! goal with what was wanted and seen. A part that is measured again replaces what was known of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::drive::Seen;
use crate::process::Cores;

/// Between these the tables stand in the page.
const MARKS: (&str, &str) = ("<!-- measured: begin -->\n", "<!-- measured: end -->\n");

/// Everything that is known.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    machine: String,
    figures: Vec<Figure>,
    goals: Vec<Goal>,
}

/// One case of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Figure {
    part: String,
    subject: String,
    case: String,
    /// By the name of what was measured: one value a run.
    runs: BTreeMap<String, Vec<f64>>,
}

/// One goal of those that were set.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Goal {
    number: u8,
    wanted: String,
    seen: String,
    met: bool,
}

impl Report {
    /// What earlier parts wrote, or nothing.
    pub fn read(path: &Path, cores: &Cores) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut report: Self = serde_json::from_str(&text).unwrap_or_default();
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let shared = match cores {
            Cores::Shared(cores) => format!("{cores} cores, which generator, bridge and broker share"),
            Cores::Apart { generator, rest } => format!("generator on cores {generator}, all else on {rest}"),
        };
        report.machine = format!("{}; {shared}", model.map_or("unknown processor", |(_, model)| model));
        report
    }

    /// Forgets a part.
    pub fn begin(&mut self, part: &str, goals: &[u8]) {
        self.figures.retain(|figure| figure.part != part);
        self.goals.retain(|goal| !goals.contains(&goal.number));
    }

    /// One run's value.
    pub fn add(&mut self, part: &str, subject: &str, case: &str, name: &str, value: f64) {
        let same = |f: &&mut Figure| f.part == part && f.subject == subject && f.case == case;
        if let Some(figure) = self.figures.iter_mut().find(same) {
            figure.runs.entry(name.to_owned()).or_default().push(value);
            return;
        }
        let (part, subject, case) = (part.to_owned(), subject.to_owned(), case.to_owned());
        let runs = BTreeMap::from([(name.to_owned(), vec![value])]);
        self.figures.push(Figure { part, subject, case, runs });
    }

    /// One run under load.
    pub fn add_seen(&mut self, part: &str, subject: &str, case: &str, seen: &Seen) {
        assert_eq!(seen.refused, 0, "{subject}, {case}: refused");
        self.add(part, subject, case, "requests/s", seen.rate());
        self.add(part, subject, case, "events/s", seen.event_rate());
        self.add(part, subject, case, "p50 µs", seen.quantile(0.5));
        self.add(part, subject, case, "p99 µs", seen.quantile(0.99));
        self.add(part, subject, case, "CPU µs/request", seen.cpu_a_request());
        let rate = (seen.rate(), seen.quantile(0.5), seen.cpu_a_request());
        eprintln!("    {subject}, {case}: {:.0}/s, p50 {:.0} µs, CPU {:.1} µs", rate.0, rate.1, rate.2);
    }

    /// The median of what was measured; NaN where nothing was.
    pub fn median(&self, part: &str, subject: &str, case: &str, name: &str) -> f64 {
        let same = |f: &&Figure| f.part == part && f.subject == subject && f.case == case;
        let values = self.figures.iter().find(same).and_then(|figure| figure.runs.get(name));
        values.map_or(f64::NAN, |values| summary(values).0)
    }

    /// The best median among subjects: what the floor can do with the setting that suits it.
    pub fn best(
        &self,
        part: &str,
        subjects: &[&str],
        case: &str,
        name: &str,
        of: fn(f64, f64) -> f64,
    ) -> f64 {
        subjects.iter().map(|subject| self.median(part, subject, case, name)).fold(f64::NAN, of)
    }

    /// One goal.
    pub fn goal(&mut self, number: u8, wanted: &str, seen: String, met: bool) {
        eprintln!("    goal {number}: {wanted}: {seen}: {}", if met { "met" } else { "not met" });
        self.goals.push(Goal { number, wanted: wanted.to_owned(), seen, met });
        self.goals.sort_by_key(|goal| goal.number);
    }

    /// Writes the JSON, and the tables into the page beside it.
    pub fn write(&self, path: &Path) {
        let json = serde_json::to_string_pretty(self).expect("it is data");
        std::fs::write(path, json + "\n").expect("a writable folder");
        let page = path.with_extension("md");
        let Ok(text) = std::fs::read_to_string(&page) else { return };
        let (Some(begin), Some(end)) = (text.find(MARKS.0), text.find(MARKS.1)) else { return };
        let (before, after) = (&text[..begin + MARKS.0.len()], &text[end..]);
        std::fs::write(page, format!("{before}\n{}\n{after}", self.tables())).expect("a writable page");
    }

    /// Goals and figures as Markdown.
    pub fn tables(&self) -> String {
        let mut text =
            format!("Measured on: {}.\n\n| goal | wanted | seen | |\n|---|---|---|---|\n", self.machine);
        for goal in &self.goals {
            let met = if goal.met { "met" } else { "**not met**" };
            writeln!(text, "| {} | {} | {} | {met} |", goal.number, goal.wanted, goal.seen)
                .expect("a string");
        }
        let mut parts: Vec<&str> = Vec::new();
        for figure in &self.figures {
            if !parts.contains(&figure.part.as_str()) {
                parts.push(&figure.part);
            }
        }
        for part in parts {
            let mut figures: Vec<&Figure> = self.figures.iter().filter(|f| f.part == part).collect();
            figures.sort_by_key(|figure| (number_in(&figure.case), &figure.case, &figure.subject));
            let mut names: Vec<&String> = figures.iter().flat_map(|f| f.runs.keys()).collect();
            names.sort();
            names.dedup();
            write!(text, "\n### {part}\n\n| | |").expect("a string");
            names.iter().for_each(|name| write!(text, " {name} |").expect("a string"));
            write!(text, "\n|---|---|{}", "---|".repeat(names.len())).expect("a string");
            for figure in figures {
                write!(text, "\n| {} | {} |", figure.case, figure.subject).expect("a string");
                for name in &names {
                    let cell = figure.runs.get(*name).map_or(String::new(), |values| cell(values));
                    write!(text, " {cell} |").expect("a string");
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Median, lowest, highest.
fn summary(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1)))
}

fn cell(values: &[f64]) -> String {
    let (median, low, high) = summary(values);
    if values.len() < 2 {
        return number(median);
    }
    format!("{} ({}–{})", number(median), number(low), number(high))
}

/// The first number in the name of a case, so that cases stand in its order.
fn number_in(case: &str) -> u64 {
    let digits = case.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// Three digits that count, and a k for thousands.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100_000.0 => format!("{:.0}k", value / 1_000.0),
        size if size >= 10_000.0 => format!("{:.1}k", value / 1_000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
