//! What is measured: the bridge and the floor as processes, each at its address, with the name under which it is reported.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Plan;
use crate::body::Fleet;
use crate::bridge::{Bridge, acme, configure};
use crate::drive::{Load, Loop, Seen, drive};
use crate::process::{Cores, Usage};

/// A process under test.
pub struct Subject {
    /// Its name in the report.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// What it takes.
    pub usage: Usage,
    process: Process,
}

enum Process {
    Bridge(Bridge),
    Floor(Child),
}

impl Subject {
    /// A bridge in `dir`, with these parts of a configuration.
    pub async fn bridge(dir: &Path, bus: &str, accounts: &str, rest: &str, cores: &Cores) -> Self {
        let bridge = Bridge::start(&configure(dir, bus, accounts, rest));
        cores.pin(bridge.pid());
        Self {
            name: "fleetbus".to_owned(),
            address: bridge.webhook.trim_start_matches("http://").to_owned(),
            usage: Usage::of(bridge.pid()),
            process: Process::Bridge(bridge),
        }
    }

    /// A bridge with one account.
    pub async fn simple(dir: &Path, bus: &str, cores: &Cores) -> Self {
        Self::bridge(dir, bus, acme(), "delivery: { drain_delay: 0s }", cores).await
    }

    /// The floor, with these arguments.
    pub fn floor(name: &str, args: &[&str], cores: &Cores) -> Self {
        let me = std::env::current_exe().expect("this program");
        let mut child = Command::new(me)
            .arg("floor")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut address).expect("its address");
        cores.pin(child.id());
        Self {
            name: name.to_owned(),
            address: address.trim().to_owned(),
            usage: Usage::of(child.id()),
            process: Process::Floor(child),
        }
    }

    /// What librdkafka by itself has acknowledged a second, without HTTP: so many callers, each with one message under way.
    pub fn alone(args: &[&str], callers: usize, plan: Plan) -> f64 {
        let me = std::env::current_exe().expect("this program");
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let told = Command::new(me)
            .arg("alone")
            .args(args)
            .args(["--callers", &callers.to_string()])
            .args(["--warm-up", &seconds(plan.warm_up), "--measured", &seconds(plan.measured)])
            .output()
            .expect("this program");
        String::from_utf8_lossy(&told.stdout).trim().parse().expect("a number")
    }

    /// The bridge itself, where it is one.
    pub fn as_bridge(&self) -> Option<&Bridge> {
        match &self.process {
            Process::Bridge(bridge) => Some(bridge),
            Process::Floor(_) => None,
        }
    }

    /// Puts a load on it.
    pub async fn drive(&self, fleet: &Fleet, load: Load) -> Seen {
        drive(&self.address, &["/webhooks/acme".to_owned()], fleet, load, &self.usage).await
    }

    /// Sends until every vehicle was seen: what is learnt of a vehicle is learnt once.
    pub async fn touch(&self, paths: &[String], fleet: &Fleet) {
        let events = fleet.len().min(100);
        let connections = (fleet.len() / events).clamp(1, 8);
        let mut measured = Duration::from_secs(1);
        loop {
            let pace = Loop::Closed;
            let load = Load { connections, events, pace, warm_up: Duration::ZERO, measured };
            let seen = drive(&self.address, paths, fleet, load, &self.usage).await;
            assert_eq!(seen.refused, 0, "{} refuses", self.name);
            if seen.events >= fleet.len() {
                return;
            }
            measured *= 2;
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Process::Floor(child) = &mut self.process {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
