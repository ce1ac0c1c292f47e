//! `mx` before a reader that closes early: that is a success, and what could not be written counts as never shown.

use std::{
    io::{BufRead as _, BufReader, PipeReader},
    process::{Child, Output, Stdio},
};

use ruma::user_id;
use serde_json::{Value, json};

use crate::{cli::Shell, world::World};

/// A process whose data goes into a pipe that somebody may close.
fn piped(shell: &Shell, profile: &str, arguments: &[&str]) -> (Child, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let child = shell
        .command(profile, arguments)
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, reader)
}

async fn ended(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap()
}

/// It ends well, and says nothing of a pipe.
async fn ends_well(child: Child, arguments: &[&str]) {
    let output = ended(child).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    assert!(
        !said.contains("mx: ") && !said.contains("panicked"),
        "{arguments:?}: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_is_a_success_of_every_command() {
    let shell = Shell::new().await;
    let _watched = World::quiet(shell.server.clone());
    let room = shell.pair().await;
    let pages = shell.data.path().join("pages");
    let pages = pages.to_str().unwrap();
    crate::edits::hold_keys_back(&shell.server);
    shell.ok("alice", &["send", &room, "without its key"]).await;
    shell.ok("bob", &["listen", "--once"]).await;
    assert_ne!(shell.ok("bob", &["undecryptable", "list"]).await, "");
    for arguments in [
        &["completions", "zsh"][..],
        &["man", pages],
        &["rooms", "list"],
        &["devices", "list", "@alice:localhost"],
        &["--json", "devices", "list"],
        &["undecryptable", "list"],
        &["--json", "undecryptable", "list"],
        &["whoami"],
        &["--help"],
        // It has warnings, which nobody was told.
        &["doctor", "--json"],
        &["doctor"],
    ] {
        let (child, reader) = piped(&shell, "bob", arguments);
        drop(reader);
        ends_well(child, arguments).await;
    }
    assert!(shell.data.path().join("pages/mx.1").exists(), "what it does is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_first_line_is_a_success_too() {
    let shell = Shell::new().await;
    let _watched = World::quiet(shell.server.clone());
    shell.pair().await;
    // More than a pipe holds.
    for name in ["bash", "zsh"] {
        let arguments = ["completions", name];
        let (child, reader) = piped(&shell, "alice", &arguments);
        let first = BufReader::new(reader).lines().next().unwrap().unwrap();
        assert!(!first.is_empty());
        ends_well(child, &arguments).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_line_could_not_be_written_comes_again() {
    let shell = Shell::new().await;
    let _watched = World::quiet(shell.server.clone());
    let room = shell.pair().await;
    for arguments in [
        &["listen"][..],
        &["--json", "listen"],
        &["listen", "--once"],
        &["--json", "listen", "--once"],
    ] {
        let text = format!("for mx {}", arguments.join(" "));
        let once = arguments.contains(&"--once");
        if once {
            shell.ok("alice", &["send", &room, &text]).await;
        }
        let (child, reader) = piped(&shell, "bob", arguments);
        drop(reader);
        if !once {
            // It listens, and its reader is gone already.
            shell.next_sync_of("@bob:localhost").await;
            shell.ok("alice", &["send", &room, &text]).await;
        }
        let output = ended(child).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("mx: "), "{arguments:?}: {said}");
        let again = shell.ok("bob", &["--json", "listen", "--once"]).await;
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(again["content"]["body"], json!(text));
    }
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
}

/// What was written before the reader left is not repeated, and what comes after it is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_does_not_come_again_and_the_rest_does() {
    let shell = Shell::new().await;
    let _watched = World::quiet(shell.server.clone());
    let room = shell.pair().await;
    let (child, reader) = piped(&shell, "bob", &["--json", "listen"]);
    shell.ok("alice", &["send", &room, "read"]).await;
    let mut lines = BufReader::new(reader).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["content"]["body"], "read");
    // It asks for more only after it acknowledged that.
    shell.next_sync_of(user_id!("@bob:localhost").as_str()).await;
    drop(lines);
    shell.ok("alice", &["send", &room, "not read"]).await;
    shell.ok("alice", &["send", &room, "nor this"]).await;
    assert_eq!(ended(child).await.status.code(), Some(0));
    let rest = shell.ok("bob", &["--json", "listen", "--once"]).await;
    let rest: Vec<Value> = rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bodies: Vec<&Value> = rest.iter().map(|event| &event["content"]["body"]).collect();
    assert_eq!(bodies, ["not read", "nor this"]);
}
