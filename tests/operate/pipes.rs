//! The command line at both ends of a stream: a reader that leaves is no failure, a bridge that breaks off is one.

use std::process::{Command, Stdio};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::bridge::acme;
use crate::desk::Desk;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_an_export_is_no_failure() {
    let desk = Desk::with(acme(), "").await;
    desk.push(&json!({"pushType": "NOVELTY"})).await;
    let data = desk.path("data");
    let _folder = desk.killed();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
    command.args(["store", "export", "--data-dir", &data]).stdin(Stdio::null()).stdout(writer);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_read_is_a_failure_and_named() {
    let desk = Desk::with(acme(), "").await;
    let (_, made, _) = desk.cli(&["tokens", "create", "acme", "--name", "first"]).await;
    assert!(!made.is_empty());
    let first = desk.get("/v1/accounts/acme/tokens").await.1["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["name"] == "first")
        .map(|token| token["id"].as_str().unwrap().to_owned())
        .unwrap();
    for args in [&["create", "acme"][..], &["rotate", "acme", &first]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
        command.arg("tokens").args(args).args(["--admin", &desk.bridge.admin]);
        command.stdin(Stdio::null()).stdout(writer);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), said.contains(" could not be printed: revoke it")),
            (Some(1), true),
            "{said}"
        );
    }
}

/// How the command line ends where nobody reads what it says.
fn unread(args: &[&str], from: fn(&mut Command, std::io::PipeWriter) -> &mut Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    from(&mut command, writer).status().unwrap().code()
}

#[test]
fn a_reader_that_leaves_changes_no_exit_code() {
    for (args, expected) in [
        (&["check", "--config", "/no/such/file"][..], 64),
        (&["convert", "--provider", "linxup", "/no/such/file"], 66),
        (&["nonsense"], 64),
    ] {
        assert_eq!(unread(args, |command, writer| command.stderr(writer)), Some(expected), "{args:?}");
    }
    for args in [&["--version"][..], &["--help"], &["convert", "--help"], &["licenses"]] {
        assert_eq!(unread(args, |command, writer| command.stdout(writer)), Some(0), "{args:?}");
    }
}

/// What `fleetbus tail --no-follow` makes of an answer with these bytes after its head.
async fn tailed(body: &'static str) -> (Option<i32>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    TaskTracker::new().spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = [0; 4_096];
        assert!(connection.read(&mut head).await.unwrap() > 0);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        );
        connection.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetbus"));
    command.args(["tail", "--no-follow", "--after", "0", "--admin", &admin]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_breaks_off_before_its_end_fails() {
    let whole = "2d\r\n{\"offset\":1,\"topic\":\"fleet.trip\",\"event\":{}}\n\r\n0\r\n\r\n";
    assert_eq!(tailed(whole).await, (Some(0), String::new()));
    let (code, said) = tailed("2d\r\n{\"offset\":1,\"topic\":\"fleet.trip\",\"event\":{}}\n\r\n").await;
    assert_eq!((code, said.contains("this is not all")), (Some(1), true), "{said}");
}
