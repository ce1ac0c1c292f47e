//! What `mx` shows: exact for programs, harmless for terminals, and never a secret. Rows LM of the catalogue.

use std::process::Stdio;

use mx_test_homeserver::Fault;
use serde_json::{Value, json};

use crate::cli::Shell;

/// What every token of the test homeserver ends with.
const TOKEN: &str = "-of-the-test-homeserver";

#[tokio::test(flavor = "multi_thread")]
async fn lm_02_no_escape_reaches_a_terminal_or_a_pipe_and_json_is_exact() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let body = "a\u{1b}]0;title\u{7}\u{9b}31m\u{202e}gnp.exe\u{2066}\r\nnext\u{0}\u{7f} 👩\u{200d}👩";
    let content = json!({"msgtype": "m.text", "body": body}).to_string();
    shell.ok("alice", &["send", &room, "--content", &content]).await;
    let shown = shell.ok("bob", &["listen", "--once"]).await;
    let expected = r"a\u{1b}]0;title\u{7}\u{9b}31m\u{202e}gnp.exe\u{2066}\u{d}␤next\u{0}\u{7f} 👩‍👩";
    assert_eq!(shown, format!("{room} @alice:localhost: {expected}"));

    shell.ok("alice", &["send", &room, "--content", &content]).await;
    let shown = shell.ok("bob", &["listen", "--once", "--json"]).await;
    let harmless =
        |char: char| !char.is_control() && !matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(shown.chars().all(harmless), "{shown}");
    let event: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(event["content"]["body"], body);

    // Text of the homeserver itself.
    let evil = json!({"errcode": "M_FORBIDDEN", "error": "go\u{1b}[2J\u{202e}away"}).to_string();
    shell.server.fault(Fault::status("/join/", 403, &evil));
    let output = shell.run("bob", &["room", "join", &room]).await;
    assert_eq!(output.status.code(), Some(6));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("away"), "{said:?}");
    assert!(said.trim_end().chars().all(harmless), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_05_a_text_without_end_is_too_large_and_is_not_read_to_its_end() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let id = ruma::OwnedRoomId::try_from(room.as_str()).unwrap();
    let before = shell.server.timeline(&id);
    let mut sending = shell
        .command("alice", &["--json", "send", &room, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = sending.stdin.take().unwrap();
    // Ends when nobody reads any more.
    let endless = std::thread::spawn(move || {
        let mut written: u64 = 0;
        while std::io::Write::write_all(&mut stdin, &[b'x'; 65_536]).is_ok() {
            written += 65_536;
        }
        written
    });
    let output = tokio::task::spawn_blocking(move || sending.wait_with_output().unwrap())
        .await
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["error"], output.status.code()), (&"too_large".into(), Some(8)));
    assert!(endless.join().unwrap() < 1024 * 1024);
    // One that ends, and is too large all the same.
    for length in [65_536, 50_000] {
        let output = shell.run_with("alice", &["send", &room], &"x".repeat(length)).await;
        assert_eq!(output.status.code(), Some(8), "{length}");
    }
    assert_eq!(shell.server.timeline(&id), before, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_13_formatted_text_is_data_and_the_body_is_what_is_shown() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let content = json!({
        "msgtype": "m.text", "body": "plain", "format": "org.matrix.custom.html",
        "formatted_body": "<script>alert(1)</script><b>bold</b>",
    });
    for _ in 0..2 {
        let sent = content.to_string();
        shell.ok("alice", &["send", &room, "--content", &sent]).await;
    }
    let shown = shell.ok("bob", &["listen", "--once", "--count", "1"]).await;
    assert_eq!(shown, format!("{room} @alice:localhost: plain"));
    let event: Value = serde_json::from_str(&shell.ok("bob", &["listen", "--once", "--json"]).await).unwrap();
    assert_eq!(event["content"], content);
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_15_sends_of_one_profile_at_once_all_arrive_once() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let sends: Vec<_> = (0..4)
        .map(|number| {
            let text = number.to_string();
            let mut command = shell.command("alice", &["send", &room, &text]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut events = Vec::new();
    for send in sends {
        let output = tokio::task::spawn_blocking(move || send.wait_with_output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        events.push(String::from_utf8(output.stdout).unwrap().trim_end().to_owned());
    }
    let read = shell.ok("bob", &["listen", "--once", "--json"]).await;
    let read: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sorted = |of: fn(&Value) -> &Value| {
        let mut all: Vec<&str> = read.iter().map(|event| of(event).as_str().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(|event| &event["content"]["body"]), ["0", "1", "2", "3"]);
    events.sort_unstable();
    assert_eq!(sorted(|event| &event["event_id"]), events);
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_15_a_send_that_does_not_want_to_wait_says_that_the_store_is_in_use() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let id = ruma::OwnedRoomId::try_from(room.as_str()).unwrap();
    let mut listener = shell
        .command("alice", &["listen"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    shell.next_sync_of("@alice:localhost").await;
    let before = shell.server.timeline(&id);
    let output = shell.run("alice", &["--json", "send", &room, "x", "--wait", "0"]).await;
    assert_eq!(output.status.code(), Some(7));
    let said = String::from_utf8(output.stderr).unwrap();
    let error: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(error["error"], "store_in_use");
    assert_eq!(shell.server.timeline(&id), before, "nothing was sent");
    listener.kill().unwrap();
    listener.wait().unwrap();
    shell.ok("alice", &["send", &room, "x", "--wait", "0"]).await;
    let heard = shell.ok("bob", &["listen", "--once"]).await;
    assert_eq!(heard, format!("{room} @alice:localhost: x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_17_no_secret_is_in_a_log_at_trace() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let place = tempfile::tempdir().unwrap();
    let mut logged = String::new();
    let mut run = async |profile: &str, arguments: &[&str], stdin: &str| {
        let output = shell.run_logging(profile, arguments, stdin).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            said.lines().last().unwrap()
        );
        logged.push_str(&said);
        String::from_utf8(output.stdout).unwrap()
    };
    for name in ["alice", "bob"] {
        run(name, &["login", "--homeserver", &uri, "--user", name], "").await;
    }
    let room = run("alice", &["room", "create", "--invite", "@bob:localhost"], "").await;
    let room = room.trim_end();
    run("bob", &["room", "join", room], "").await;
    run("alice", &["send", room], "the-plaintext").await;
    let file = [
        "send",
        room,
        "--file",
        "-",
        "--name",
        "the-name",
        "--caption",
        "the-caption",
    ];
    run("alice", &file, "the-content").await;
    let events = run("bob", &["listen", "--once", "--json"], "").await;
    run("bob", &["download", "--to", place.path().to_str().unwrap()], &events).await;
    assert_eq!(std::fs::read(place.path().join("the-name")).unwrap(), b"the-content");

    let event: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    let key = event["content"]["file"]["key"]["k"].as_str().unwrap();
    let texts = ["the-plaintext", "the-content", "the-caption", "m.text", "m.file"];
    for secret in [key, TOKEN, "alice-password", "bob-password"].into_iter().chain(texts) {
        let line = logged
            .lines()
            .find(|line| line.contains(secret))
            .map(|line| line.replace(secret, "<it>"));
        assert_eq!(line, None, "{secret} is in the log");
    }
    // Every layer was heard, the engine's too.
    for layer in ["TRACE", "Created a new Olm account", "carrying room keys"] {
        assert!(logged.contains(layer), "{layer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_is_whole_for_programs_and_names_who_cannot_read_for_people() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let bob = ruma::user_id!("@bob:localhost");
    let first = shell.server.devices_of(bob);
    shell.new_device("bob", "other").await;
    let devices = shell.server.devices_of(bob);
    let second = devices.iter().find(|device| !first.contains(device)).unwrap();
    shell.server.exhaust_keys(bob, second.as_str().into());
    let output = shell.run("alice", &["send", &room, "x"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("readable by 1 other device"), "{said}");
    let named = format!("not readable by @bob:localhost device {second}: ");
    assert!(said.contains(&named), "{said}");
    let receipt: Value = serde_json::from_str(&shell.ok("alice", &["--json", "send", &room, "y"]).await).unwrap();
    for field in ["event_id", "new_session", "room_id", "session_id", "transaction_id"] {
        assert!(!receipt[field].is_null(), "{field}: {receipt}");
    }
    for field in ["users_unknown", "users_without_devices"] {
        assert_eq!(receipt[field], json!([]), "{field}");
    }
    let devices = receipt["devices"].as_array().unwrap();
    let outcome = |device: &str| {
        let found = devices.iter().find(|receipt| receipt["device_id"] == device);
        found.map(|receipt| receipt["outcome"].as_str().unwrap())
    };
    assert_eq!(devices.len(), 2);
    assert_eq!(
        (outcome(&first[0]), outcome(second)),
        (Some("already_had"), Some("no_one_time_key"))
    );
}
