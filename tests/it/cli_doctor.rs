//! `mx doctor` as a process: what people and programs read, and how it ends.

use mx_test_homeserver::Fault;
use serde_json::Value;

use crate::cli::Shell;

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_by_how_bad_it_is_and_says_so_to_people_and_programs() {
    let shell = Shell::new().await;
    let output = shell.run("nobody", &["doctor"]).await;
    assert_eq!(output.status.code(), Some(13));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("ERROR [not_logged_in]"), "{text}");
    assert!(
        text.contains("\n  → mx login\n") && text.contains("not looked at: rooms, since there is no login"),
        "{text}"
    );

    shell.pair().await;
    let output = shell.run("alice", &["doctor"]).await;
    assert_eq!(output.status.code(), Some(12), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("WARNING [no_identity]") && text.contains("looked at: profile, login, store"),
        "{text}"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "mx: 0 error(s), 3 warning(s) [doctor_warnings]\n");

    shell.ok("alice", &["identity", "setup"]).await;
    let text = shell.ok("alice", &["doctor"]).await;
    assert!(text.contains("all is well") && text.contains("clock"), "{text}");
    let all = shell.ok("alice", &["doctor", "--all", "--no-rooms"]).await;
    assert!(
        all.contains("one-time keys    50 on the homeserver, 50 here; a fallback key"),
        "{all}"
    );
    let json: Value = serde_json::from_str(&shell.ok("alice", &["--json", "doctor"]).await).unwrap();
    assert_eq!(
        (&json["worst"], &json["findings"]),
        (&Value::Null, &Value::Array(Vec::new()))
    );
    assert_eq!(json["checks"]["rooms"]["looked"], "yes");
    assert!(
        json["facts"]["clock_ahead_ms"].as_i64().unwrap().abs() < 60_000,
        "a socket has a date"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_mends_and_says_what_and_nothing_reaches_the_terminal_raw() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.ok("alice", &["identity", "setup"]).await;
    let file = shell.data.path().join("alice/session.json");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let output = shell.run("alice", &["doctor"]).await;
    assert_eq!(output.status.code(), Some(13));
    let fixed = shell.ok("alice", &["doctor", "--fix"]).await;
    assert!(fixed.starts_with("mended [profile_readable]"), "{fixed}");
    let words = r#"{"errcode": "M_\u001b[31mX", "error": "\u001b]0;owned\u0007\u202edlrow"}"#;
    shell
        .server
        .fault(Fault::status("/joined_rooms", 400, words).for_ever());
    let output = shell.run("alice", &["doctor"]).await;
    assert_eq!(output.status.code(), Some(12));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("[check_failed] rooms") && !text.contains(['\u{1b}', '\u{202e}', '\u{7}']),
        "{text:?}"
    );
    drop(room);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_manifest_that_cannot_be_read_is_an_error_and_nothing_is_mended_past_it() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.ok("alice", &["identity", "setup"]).await;
    shell.ok("bob", &["identity", "setup"]).await;
    let file = shell.data.path().join("manifest.json");
    let path = file.to_str().unwrap();
    shell
        .ok("alice", &["trust-manifest", "init", path, "--room", &room])
        .await;
    shell.ok("alice", &["trust-manifest", "apply", path]).await;
    shell.ok("bob", &["identity", "reset", "--yes"]).await;
    shell.run("alice", &["trust-manifest", "check"]).await;
    let output = shell.run("alice", &["doctor"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ERROR [trust_manifest_drift]"), "{text}");

    let used = shell.data.path().join("alice/trust-manifest.json");
    let manifest = std::fs::read(&used).unwrap();
    std::fs::write(&used, "{").unwrap();
    let output = shell.run("alice", &["--json", "doctor"]).await;
    assert_eq!(output.status.code(), Some(13), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["worst"], "error");
    let found = json["findings"].as_array().unwrap();
    let unreadable = found
        .iter()
        .find(|finding| finding["code"] == "trust_manifest_unreadable")
        .unwrap_or_else(|| unreachable!("{json:#}"));
    assert_eq!(unreadable["cause"], "trust_manifest_invalid");
    assert!(unreadable["subject"].as_str().unwrap().ends_with("trust-manifest.json"));
    assert!(
        found.iter().any(|finding| finding["code"] == "trust_manifest_drift"),
        "what was noted before stays: {json:#}"
    );
    // There is something to mend, and it stays.
    let store = shell.data.path().join("alice/store");
    std::fs::set_permissions(store, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = shell.run("alice", &["doctor", "--fix"]).await;
    assert_eq!(output.status.code(), Some(13), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("could not be mended: the trust manifest cannot be read") && !text.contains("mended ["),
        "{text}"
    );
    // Put back, it is what it was.
    std::fs::write(&used, manifest).unwrap();
    let output = shell.run("alice", &["doctor"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("[trust_manifest_drift]") && !text.contains("unreadable"),
        "{text}"
    );
}
