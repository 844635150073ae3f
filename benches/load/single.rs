//! One core and no network: decoding alone (goal 7), and what a bridge takes that does nothing (goal 8).

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::bridge::binary;
use crate::brokers::unique;
use crate::hot::{Bench, FLAT, V3};
use crate::kafka::broker;
use crate::process::Cores;
use crate::report::Report;
use crate::subject::Subject;

const DECODE: &str = "Decoding alone";
const MEMORY: &str = "Memory";

/// Bytes of one element to bytes of one message, headers included.
pub fn decode(plan: Plan, report: &mut Report) {
    report.begin(DECODE, &[7]);
    let bench = Bench::new(&[FLAT, V3]);
    for _ in 0..plan.repeats {
        for (name, sample) in [("flat position", FLAT), ("V3 position", V3)] {
            let (begun, mut events) = (Instant::now(), 0_u32);
            while begun.elapsed() < plan.measured / 2 {
                for _ in 0..1_000 {
                    black_box(bench.message(black_box(sample)));
                }
                events += 1_000;
            }
            let us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(events);
            report.add(DECODE, "fleetbus", name, "µs/event", us);
            eprintln!("    {name}: {us:.2} µs");
        }
    }
    for (name, wanted) in [("flat position", 1.5), ("V3 position", 2.5)] {
        let us = report.median(DECODE, "fleetbus", name, "µs/event");
        let text = format!("a {name} in ≤ {wanted} µs, encoding included");
        report.goal(7, &text, format!("{us:.2} µs"), us <= wanted);
    }
}

/// Start to ready, memory when idle, size of the binary.
pub async fn memory(plan: Plan, report: &mut Report) {
    let saturated = report.median(MEMORY, "fleetbus", "at saturation, 10,000 subjects", "peak MB");
    report.begin(MEMORY, &[8]);
    let prefix = unique("idle");
    let kafka = broker(&format!("{prefix}.position")).await;
    let bus = format!("bus: {{ kafka: {{ brokers: \"{}\", topic: \"{prefix}.{{type}}\" }} }}", kafka.brokers);
    for _ in 0..plan.repeats {
        let dir = tempfile::tempdir().expect("a folder");
        let begun = Instant::now();
        let bridge = Subject::simple(dir.path(), &bus, &Cores::Shared(0)).await;
        let admin = bridge.as_bridge().expect("a bridge").admin.clone();
        while !reqwest::get(format!("{admin}/readyz")).await.is_ok_and(|ready| ready.status() == 200) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        report.add(MEMORY, "fleetbus", "idle", "ready after ms", begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(plan.measured).await;
        report.add(MEMORY, "fleetbus", "idle", "MB", bridge.usage.rss());
    }
    let of = |name: &str| report.median(MEMORY, "fleetbus", "idle", name);
    let (ready, idle) = (of("ready after ms"), of("MB"));
    let size = std::fs::metadata(binary()).expect("the built binary").len() as f64 / 1e6;
    report.goal(8, "≤ 30 MB idle", format!("{idle:.1} MB"), idle <= 30.0);
    report.goal(8, "start to ready ≤ 100 ms", format!("{ready:.0} ms"), ready <= 100.0);
    report.goal(8, "binary ≤ 25 MB, stripped", format!("{size:.1} MB"), size <= 25.0);
    if saturated.is_finite() {
        report.add(MEMORY, "fleetbus", "at saturation, 10,000 subjects", "peak MB", saturated);
        let seen = format!("{saturated:.0} MB at the peak");
        report.goal(8, "≤ 64 MB at saturation with 10,000 subjects", seen, saturated <= 64.0);
    }
}
