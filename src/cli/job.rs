//! Long work on a running bridge, followed until it ends: a bar on a terminal, nothing where standard error is piped. An
//! interrupt cancels it, and its end is still awaited.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::Value;

use super::remote::Remote;
use super::{Exit, complain};

/// How often the bridge is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// How far a job is.
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// Of how much.
    pub all: u64,
    /// What else is to be told.
    pub words: String,
}

/// A bar; hidden by itself where standard error is no terminal. In its template `{rate}` is how many a second, whole ones.
#[must_use]
pub fn bar(all: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // What cannot be drawn is drawn again.
        write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
    };
    ProgressBar::new(all).with_style(style.with_key("rate", rate))
}

/// Follows a job, and returns how it ended.
///
/// # Errors
/// Where the bridge does not answer any more: the job goes on there.
pub async fn follow(
    remote: &Remote,
    path: &str,
    mut job: Value,
    template: &str,
    progress: impl Fn(&Value) -> Progress,
) -> anyhow::Result<Value> {
    let bar = bar(progress(&job).all, template);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut asked_to_end = false;
    while job["state"] == "running" {
        tokio::select! {
            _ = &mut interrupted, if !asked_to_end => {
                asked_to_end = true;
                job = remote.delete(path, &[]).await?;
            }
            () = tokio::time::sleep(LOOK) => job = remote.get(path, &[]).await?,
        }
        let Progress { done, all, words } = progress(&job);
        bar.set_length(all.max(done));
        bar.set_position(done);
        bar.set_message(words);
    }
    bar.finish_and_clear();
    Ok(job)
}

/// What the end of a job means to the shell.
#[must_use]
pub fn exit(job: &Value, what: &str) -> Exit {
    match job["state"].as_str() {
        Some("cancelled") => {
            complain(&format!("the {what} was cancelled"));
            Exit::Failed
        }
        Some("failed") => {
            let why = job["error"].as_str().unwrap_or("it gives no reason");
            complain(&format!("the {what} ended early: {why}"));
            Exit::Failed
        }
        Some(_) | None => Exit::Done,
    }
}

/// A count in a job.
#[must_use]
pub fn count(job: &Value, name: &str) -> u64 {
    job[name].as_u64().unwrap_or(0)
}
