//! What a process under test takes, as the kernel counts it; and the cores that it may use.

use std::process::Command;

/// Ticks a second, as Linux tells them to programs everywhere.
const TICKS: f64 = 100.0;

/// Looks at one process.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pid: u32,
}

impl Usage {
    /// Of this process.
    pub const fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// CPU seconds so far, in user and kernel, of threads that ended, too.
    pub fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("it runs");
        // The name, in brackets, may have blanks.
        let after = text.rsplit_once(')').map_or("", |(_, after)| after);
        let ticks: f64 =
            after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        ticks / TICKS
    }

    /// Resident memory now, in MB of 10⁶ bytes.
    pub fn rss(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most that was ever resident, in MB of 10⁶ bytes.
    pub fn peak(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = text.lines().find(|line| line.starts_with(name)).expect("Linux");
        let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib * 1024.0 / 1e6
    }
}

/// Cores for the generator and for the rest: apart where there are four or more, else shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// All share all.
    Shared(usize),
    /// The generator's, and the others', as `taskset` names them.
    Apart {
        /// The generator's.
        generator: String,
        /// Bridge, floor and broker.
        rest: String,
    },
}

impl Cores {
    /// What this machine allows.
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let taskset = Command::new("taskset").arg("--version").output().is_ok();
        if cores < 4 || !taskset {
            return Self::Shared(cores);
        }
        let first = cores - (cores / 4).max(1);
        Self::Apart { generator: format!("{first}-{}", cores - 1), rest: format!("0-{}", first - 1) }
    }

    /// Keeps this process on the generator's cores. Children made before stay where they are.
    pub fn pin_generator(&self) {
        if let Self::Apart { generator, .. } = self {
            pin(std::process::id(), generator);
        }
    }

    /// Keeps a process under test off them.
    pub fn pin(&self, pid: u32) {
        if let Self::Apart { rest, .. } = self {
            pin(pid, rest);
        }
    }
}

fn pin(pid: u32, cores: &str) {
    let done = Command::new("taskset").args(["-a", "-p", "-c", cores, &pid.to_string()]).output();
    assert!(done.is_ok_and(|done| done.status.success()), "taskset -apc {cores} {pid}");
}
