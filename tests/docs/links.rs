//! Links between the project's pages: each leads to a file, and to a heading in it where it names one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[test]
fn every_link_leads_somewhere() {
    let mut pages = Vec::new();
    collect(&super::root(), &mut pages);
    assert!(pages.len() > 20, "only {} pages were found", pages.len());
    let mut headings = HashMap::new();
    let mut dead = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for link in &links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let known = |path: &Path| anchors(&std::fs::read_to_string(path).unwrap_or_default());
            if !target.exists() {
                dead.push(format!("{}: {link} is not there", page.display()));
            } else if !heading.is_empty()
                && !headings
                    .entry(target.clone())
                    .or_insert_with(|| known(&target))
                    .contains(&heading.to_owned())
            {
                dead.push(format!("{}: {link}: no such heading", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn a_dead_link_and_a_dead_heading_are_seen() {
    assert_eq!(
        links("a [b](c.md#d) `[no](link)` [e](https://f)\n```\n[g](h)\n```\n"),
        ["c.md#d", "https://f"]
    );
    assert_eq!(anchors("# One two: `three`\n```\n# no\n```\n## One-two_3\n"), ["one-two-three", "one-two_3"]);
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", ".git", "corpus"].contains(&name.as_str()) {
                collect(&path, pages);
            }
        } else if path.extension().is_some_and(|ending| ending == "md") {
            pages.push(path);
        }
    }
}

/// What stands outside of code, line by line.
fn prose(text: &str) -> impl Iterator<Item = String> {
    let mut fenced = false;
    text.lines().filter_map(move |line| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then(|| line.to_owned())
    })
}

fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // The even parts stand outside of backticks.
        for part in line.split('`').step_by(2).collect::<Vec<_>>().join("code").split("](").skip(1) {
            if let Some((link, _)) = part.split_once(')') {
                found.push(link.split(' ').next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

/// The anchors that a forge gives to headings.
fn anchors(text: &str) -> Vec<String> {
    let heading = |line: String| {
        let title = line.trim_start_matches('#').strip_prefix(' ')?.to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
    };
    prose(text).filter(|line| line.starts_with('#')).filter_map(heading).collect()
}
