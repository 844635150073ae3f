//! One number of a bridge's page of metrics.

/// The value of a series, by its name and labels as the page has them.
pub async fn metric(admin: &str, name: &str) -> usize {
    let text = reqwest::get(format!("{admin}/metrics")).await.expect("an answer").text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    line.parse::<f64>().expect("a number") as usize
}
