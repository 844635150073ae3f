//! One run of this test binary under callgrind, and what it counted within some functions. Neighbours: `counts` says what runs.

use std::process::Command;

/// Names what is to be run, and how often: set for the run under valgrind.
pub const RUN: &str = "FLEETBUS_COUNTED";
/// How the allocator is called.
const ALLOCATOR: [&str; 7] =
    ["malloc", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc", "reallocarray"];

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    pub instructions: f64,
    pub allocations: f64,
}

/// Whether there is a valgrind; says so where there is none.
pub fn is_here() -> bool {
    let here = Command::new("valgrind").arg("--version").output().is_ok_and(|told| told.status.success());
    if !here {
        eprintln!("valgrind is not here: nothing is counted");
    }
    here
}

/// Runs `run` and counts what happens within these functions, on all threads.
pub fn count(run: &str, within: &[&str]) -> Count {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("callgrind.out");
    let told = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args(within.iter().map(|function| format!("--toggle-collect={function}")))
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "counted", "--test-threads=1"])
        .env(RUN, run)
        .output()
        .expect("valgrind");
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{said}");
    let text = std::fs::read_to_string(&out).expect("what was counted");
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")).expect("a total");
    let instructions: f64 = total.trim().parse().expect("a number");
    assert!(instructions > 0.0, "none of {within:?} was called: {said}");
    Count { instructions, allocations: allocations(&text) }
}

/// The calls of the allocator by others than itself: each stands below the name of what is called.
fn allocations(text: &str) -> f64 {
    let mut called = "";
    let mut calls = 0.0;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(rest) = line.strip_prefix("calls=")
            && ALLOCATOR.contains(&called)
        {
            let number = rest.split_whitespace().next().expect("a number of calls");
            calls += number.parse::<f64>().expect("a number");
        }
    }
    calls
}
