//! `mx` and files: from shell to shell, and what happens when it is killed in between.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use mx_test_homeserver::Fault;
use serde_json::Value;

use crate::{attachments::names, cli::Shell};

fn text(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_from_shell_to_shell_with_its_caption() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let place = tempfile::tempdir().unwrap();
    let picture = place.path().join("eagle.png");
    std::fs::write(&picture, "not really a picture").unwrap();
    let arguments = [
        "--json",
        "send",
        &room,
        "--file",
        path(&picture),
        "--caption",
        "it has landed",
    ];
    let receipt: Value = serde_json::from_str(&shell.ok("alice", &arguments).await).unwrap();
    assert_eq!(receipt["devices"][0]["outcome"], "reached");

    let saved = place.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    let printed = shell.ok("bob", &["listen", "--once", "--save", path(&saved)]).await;
    let kept = saved.join("eagle.png");
    assert_eq!(
        printed,
        format!("{room} @alice:localhost: it has landed\n{}", kept.display())
    );
    assert_eq!(std::fs::read(&kept).unwrap(), b"not really a picture");
    assert_eq!(shell.ok("bob", &["listen", "--once", "--save", path(&saved)]).await, "");

    // From stdin, with a name and a kind of its own.
    let arguments = ["send", &room, "--file", "-", "--name", "notes", "--mime", "text/plain"];
    let output = shell.run_with("alice", &arguments, "some notes").await;
    assert!(output.status.success(), "{:?}", text(&output));
    let json: Value = serde_json::from_str(&shell.ok("bob", &["listen", "--once", "--json"]).await).unwrap();
    assert_eq!(
        (&json["content"]["msgtype"], &json["content"]["body"]),
        (&"m.file".into(), &"notes".into())
    );
    assert_eq!(
        json["content"]["info"],
        serde_json::json!({"mimetype": "text/plain", "size": 10})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_fetched_beside_a_listener() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let place = tempfile::tempdir().unwrap();
    let mut listener = shell
        .command("bob", &["listen", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(listener.stdout.take().unwrap());
    let reader = tokio::task::spawn_blocking(move || stdout.lines().next().unwrap().unwrap());
    let arguments = ["send", &room, "--file", "-", "--name", "../notes.txt"];
    assert!(shell.run_with("alice", &arguments, "some notes").await.status.success());
    let event = reader.await.unwrap();
    let events = format!("{{\"kind\":\"invite\"}}\n\n{event}\n");
    let download = ["--json", "download", "--to", path(place.path())];
    let (stdout, stderr, code) = text(&shell.run_with("bob", &download, &events).await);
    assert_eq!(code, Some(0), "{stderr}");
    let kept: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(kept["path"], path(&place.path().join("notes.txt")));
    assert_eq!(kept["claimed_name"], "../notes.txt");
    assert_eq!(names(place.path()), ["notes.txt"]);

    for (uri, _) in shell.server.files() {
        shell.server.put_file(&uri, "something else");
    }
    let (stdout, stderr, code) = text(&shell.run_with("bob", &download, &events).await);
    assert_eq!((stdout.as_str(), code), ("", Some(8)));
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(error["error"], "attachment_corrupt");
    let nowhere = place.path().join("nowhere");
    let download = ["download", "--to", path(&nowhere)];
    assert_eq!(text(&shell.run_with("bob", &download, &events).await).2, Some(10));
    assert_eq!(names(place.path()), ["notes.txt"]);
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_tells_of_a_file_that_is_not_what_was_sent_and_goes_on() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let place = tempfile::tempdir().unwrap();
    let arguments = ["send", &room, "--file", "-", "--name", "notes"];
    assert!(shell.run_with("alice", &arguments, "some notes").await.status.success());
    for (uri, _) in shell.server.files() {
        shell.server.put_file(&uri, "something else");
    }
    shell.ok("alice", &["send", &room, "after"]).await;
    let output = shell
        .run("bob", &["listen", "--once", "--save", path(place.path())])
        .await;
    let (stdout, stderr, code) = text(&output);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        stdout,
        format!("{room} @alice:localhost: notes\n{room} @alice:localhost: after")
    );
    assert!(stderr.contains("[attachment_corrupt]"), "{stderr}");
    assert!(names(place.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_or_not_there_has_its_exit_code() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.server.limit_files(5);
    let send = ["send", &room, "--file", "-", "--name", "notes"];
    let (stdout, stderr, code) = text(&shell.run_with("alice", &send, "some notes").await);
    assert_eq!((stdout.as_str(), code), ("", Some(8)), "{stderr}");
    assert!(stderr.ends_with("[too_large]"), "{stderr}");
    let missing = shell.data.path().join("missing");
    let (_, stderr, code) = text(&shell.run("alice", &["send", &room, "--file", path(&missing)]).await);
    assert_eq!(code, Some(10), "{stderr}");
    for wrong in [
        &["send", &room, "text", "--file", "x"][..],
        &["send", &room, "--caption", "x"],
        &["send", &room, "--file", "-"],
        &["send", &room, "--file", "x", "--notice"],
    ] {
        assert_eq!(text(&shell.run("alice", wrong).await).2, Some(2), "{wrong:?}");
    }
    assert!(shell.server.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_uploads_nothing_is_sent_and_nothing_is_left() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let alice = shell.data.path().join("alice");
    let before = names(&alice);
    let large = shell.data.path().join("large");
    std::fs::write(&large, vec![9; 1_000_000]).unwrap();
    shell
        .server
        .fault(Fault::delay("/media/v3/upload", Duration::from_secs(3600)));
    let mut sending = shell
        .command("alice", &["send", &room, "--file", path(&large)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while shell.server.files().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sending.kill().unwrap();
    sending.wait().unwrap();
    assert_eq!(names(&alice), before, "the encrypted file is gone with its process");
    shell.ok("alice", &["send", &room, "after"]).await;
    let heard = shell.ok("bob", &["listen", "--once"]).await;
    assert_eq!(heard, format!("{room} @alice:localhost: after"));
}
