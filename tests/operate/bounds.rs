//! Where the system or its environment gives a process no threads, it says so in a sentence and ends, and nothing panics.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_fleetbus");

/// How a start ends, and what it says.
fn started(command: &mut Command) -> (Option<i32>, String) {
    let output = command.args(["run", "--config", "none.yaml"]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The system does not bound root's processes: as somebody else then, who may read nothing of root's.
#[test]
fn a_bound_on_processes_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("fleetbus");
    std::fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("prlimit");
    command.arg("--nproc=2:2");
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        chown(folder.path(), Some(65_533), None).unwrap();
        command.args(["setpriv", "--reuid=65533", "--clear-groups"]);
    }
    let (code, said) = started(command.arg(&binary));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(" threads are needed") && said.contains("`ulimit -u`"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_number_of_threads_that_is_none_is_named() {
    for asked in ["0", "many", "-1", ""] {
        let (code, said) = started(Command::new(BINARY).env("TOKIO_WORKER_THREADS", asked));
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(&format!("TOKIO_WORKER_THREADS is {asked:?}")), "{said}");
    }
}
