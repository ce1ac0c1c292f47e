//! `mx` about whom a message is for: policy, devices, the key by hand, and the whole receipt.

use serde_json::{Value, json};

use crate::cli::Shell;

async fn receipt(shell: &Shell, arguments: &[&str]) -> Value {
    let line = shell.ok("alice", &[&["--json", "send"], arguments].concat()).await;
    serde_json::from_str(&line).unwrap()
}

/// The exit code, and what was said about it.
async fn refused(shell: &Shell, arguments: &[&str]) -> (Option<i32>, String) {
    let output = shell.run("alice", arguments).await;
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_is_whole_and_says_why_there_is_a_new_key() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let first = receipt(&shell, &[&room, "one"]).await;
    let device = first["devices"][0]["device_id"].clone();
    assert_eq!(
        first,
        json!({
            "room_id": room,
            "event_id": first["event_id"],
            "transaction_id": first["transaction_id"],
            "session_id": first["session_id"],
            "new_session": true,
            "rotation": "first_key",
            "devices": [{"user_id": "@bob:localhost", "device_id": device, "outcome": "reached"}],
            "users_without_devices": [],
            "users_unknown": [],
            "recipients_added": [],
            "new_devices": [],
            "warnings": [],
        })
    );
    let second = receipt(&shell, &[&room, "two"]).await;
    assert_eq!(
        (&second["new_session"], &second["rotation"]),
        (&json!(false), &json!(null))
    );
    shell.ok("alice", &["room", "rotate-key", &room]).await;
    let output = shell.run("alice", &["send", &room, "three"]).await;
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("with a new room key (it was asked for)"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_lasts_and_the_call_goes_before_it() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let shown = shell.ok("alice", &["room", "policy", &room]).await;
    assert_eq!(shown, "as careful as the client, every member");
    let policy = ["room", "policy", &room, "--only-trusted", "--allow", "@bob:localhost"];
    let shown = shell.ok("alice", &policy).await;
    assert_eq!(shown, "only trusted devices, only for @bob:localhost");
    let json: Value = serde_json::from_str(&shell.ok("alice", &["--json", "room", "policy", &room]).await).unwrap();
    assert_eq!(
        json,
        json!({"recipients": "only_trusted", "allowed": ["@bob:localhost"]})
    );
    let (code, words) = refused(&shell, &["send", &room, "never"]).await;
    assert_eq!(code, Some(5));
    assert!(words.contains("it is not trusted"), "{words}");
    let strict = receipt(&shell, &[&room, "the call says so", "--strict"]).await;
    assert_eq!(strict["devices"][0]["outcome"], "reached");

    shell
        .ok(
            "alice",
            &["room", "policy", &room, "--reset", "--allow", "@carol:localhost"],
        )
        .await;
    let (code, words) = refused(&shell, &["send", &room, "never"]).await;
    assert_eq!(code, Some(5));
    assert!(words.contains("@bob:localhost"), "{words}");
    shell.ok("alice", &["room", "policy", &room, "--reset"]).await;
    shell.ok("alice", &["send", &room, "to everybody"]).await;
    let (code, _) = refused(&shell, &["send", &room, "x", "--strict", "--best-effort"]).await;
    assert_eq!(code, Some(2), "one of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_blocked_and_trusted_by_their_fingerprint() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let sent = receipt(&shell, &[&room, "one"]).await;
    let device = sent["devices"][0]["device_id"].as_str().unwrap().to_owned();
    let keys: Value = serde_json::from_str(&shell.ok("bob", &["--json", "keys", "status"]).await).unwrap();
    let fingerprint = keys["ed25519"].as_str().unwrap().to_owned();

    shell.ok("alice", &["device", "block", "@bob:localhost", &device]).await;
    let (code, words) = refused(&shell, &["send", &room, "never"]).await;
    assert_eq!(code, Some(5));
    assert!(words.contains("it is blocked"), "{words}");
    let wrong = ["device", "trust", "@bob:localhost", &device, "AAAA"];
    let (_, words) = refused(&shell, &wrong).await;
    assert!(words.contains(&fingerprint), "it says which one it has: {words}");
    shell
        .ok("alice", &["device", "trust", "@bob:localhost", &device, &fingerprint])
        .await;
    let listed = shell.ok("alice", &["device", "list", "@bob:localhost"]).await;
    assert_eq!(
        listed,
        format!("{device} {fingerprint} trusted by its fingerprint (mx)")
    );
    let sent = receipt(&shell, &[&room, "two", "--only-trusted"]).await;
    assert_eq!(
        sent["devices"][0]["outcome"], "already_had",
        "the block was lifted before a new key was made"
    );
    shell
        .ok("alice", &["device", "forget", "@bob:localhost", &device])
        .await;
    let listed = shell.ok("alice", &["devices", "list", "@bob:localhost"]).await;
    assert_eq!(listed, format!("{device} {fingerprint} not signed by its owner (mx)"));
    let asked = "no device NEVERSEEN that is known here";
    for (name, is_asked) in [(device.as_str(), false), ("NEVERSEEN", true)] {
        let told = shell.run("alice", &["device", "block", "@bob:localhost", name]).await;
        assert!(told.status.success());
        let told = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.contains(asked), is_asked, "{name}: {told}");
    }
    shell
        .ok("alice", &["device", "forget", "@bob:localhost", &device])
        .await;
    let listed = shell.ok("alice", &["device", "list", "@bob:localhost"]).await;
    assert!(
        listed.contains("NEVERSEEN - blocked; the homeserver does not show it"),
        "{listed}"
    );
    let ours: Value = serde_json::from_str(&shell.ok("alice", &["--json", "device", "list"]).await).unwrap();
    assert_eq!(
        (&ours["own"], &ours["user_id"]),
        (&true.into(), &"@alice:localhost".into())
    );
    let (code, _) = refused(&shell, &["send", &room, "never", "--only-trusted"]).await;
    assert_eq!(code, Some(5));
}
