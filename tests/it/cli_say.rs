//! `mx` and what people say: answers, threads, edits, reactions, redactions, and rooms by name.

use serde_json::{Value, json};

use crate::cli::Shell;

/// What bob is told next, without waiting.
async fn heard(shell: &Shell) -> Value {
    let line = shell.ok("bob", &["listen", "--once", "--count", "1", "--json"]).await;
    serde_json::from_str(&line).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_arrives_where_it_belongs() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let first = shell.ok("alice", &["send", &room, "is it up?"]).await;
    assert_eq!(heard(&shell).await["event_id"], first.as_str());

    let answer = shell
        .ok(
            "bob",
            &["send", &room, "**yes**", "--markdown", "--notice", "--reply-to", &first],
        )
        .await;
    let line = shell.ok("alice", &["listen", "--once", "--json"]).await;
    let told: Value = serde_json::from_str(&line).unwrap();
    let content = &told["content"];
    assert_eq!(content["msgtype"], "m.notice");
    assert_eq!(content["formatted_body"], "<strong>yes</strong>");
    assert_eq!(content["m.relates_to"], json!({"m.in_reply_to": {"event_id": first}}));
    assert_eq!(content["m.mentions"], json!({"user_ids": ["@alice:localhost"]}));

    // An answer to what stands in a thread stands in the thread.
    let arguments = [
        "send",
        &room,
        "since when?",
        "--thread",
        &first,
        "--mention",
        "@bob:localhost",
    ];
    let threaded = shell.ok("alice", &arguments).await;
    let content = heard(&shell).await["content"].clone();
    assert_eq!(content["m.relates_to"]["rel_type"], "m.thread");
    assert_eq!(content["m.mentions"], json!({"user_ids": ["@bob:localhost"]}));
    shell
        .ok("alice", &["send", &room, "hello?", "--reply-to", &threaded])
        .await;
    let content = heard(&shell).await["content"].clone();
    assert_eq!(content["m.relates_to"]["event_id"], first.as_str());
    assert_eq!(content["m.relates_to"]["m.in_reply_to"]["event_id"], threaded.as_str());

    shell
        .ok("alice", &["send", &room, "is it down?", "--edit", &first])
        .await;
    let content = heard(&shell).await["content"].clone();
    assert_eq!(
        content["m.relates_to"],
        json!({"rel_type": "m.replace", "event_id": first})
    );
    assert_eq!(content["m.new_content"]["body"], "is it down?");

    shell.ok("alice", &["react", &room, &answer, "👍"]).await;
    let reaction = heard(&shell).await;
    assert_eq!(reaction["event_type"], "m.reaction");
    assert!(reaction["encryption"].is_object());
    assert_eq!(reaction["content"]["m.relates_to"]["key"], "👍");

    let redaction = shell.ok("alice", &["redact", &room, &first, "--reason", "typo"]).await;
    let told = heard(&shell).await;
    assert_eq!(told["event_id"], redaction.as_str());
    assert_eq!(told["content"], json!({"redacts": first, "reason": "typo"}));
    assert_eq!(told["plaintext_in_encrypted_room"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let before = shell.server.log().len();
    for arguments in [
        &["send", &room, "x", "--reply-to", "nonsense"][..],
        &["send", &room, "x", "--mention", "bob"],
        &["send", &room, "x", "--edit", "$a", "--thread", "$b"],
        &["send", &room, "--file", "x", "--reply-to", "$a"],
        &["react", &room, "nonsense", "👍"],
        &["redact", &room, "nonsense"],
    ] {
        let output = shell.run("alice", arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(shell.server.log().len(), before);
    // An event that is not there is nobody's question.
    let output = shell
        .run("alice", &["send", &room, "x", "--reply-to", "$not-there"])
        .await;
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_found_by_its_name_when_only_one_has_it() {
    let shell = Shell::new().await;
    shell.pair().await;
    let alerts = shell.ok("alice", &["room", "create", "--name", "alerts"]).await;
    let event = shell.ok("alice", &["send", "alerts", "hello"]).await;
    assert!(event.starts_with('$'));
    let output = shell.run("alice", &["send", "Alerts", "hello"]).await;
    assert_eq!(output.status.code(), Some(6), "to the letter");

    let second = shell.ok("alice", &["room", "create", "--name", "alerts"]).await;
    let output = shell.run("alice", &["send", "alerts", "hello"]).await;
    assert_eq!(output.status.code(), Some(6));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&alerts) && said.contains(&second), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_are_accepted_from_those_who_may() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    for name in ["alice", "bob"] {
        shell.ok(name, &["login", "--homeserver", &uri, "--user", name]).await;
    }
    shell.ok("bob", &["listen", "--once"]).await;
    let make = ["room", "create", "--name", "alerts", "--invite", "@bob:localhost"];
    let first = shell.ok("alice", &make).await;
    let told = shell
        .ok("bob", &["listen", "--once", "--accept-invites", "@eve:localhost"])
        .await;
    assert_eq!(
        told,
        format!("{first} * @alice:localhost invites you: mx room join '{first}'")
    );
    assert_eq!(shell.ok("bob", &["room", "list"]).await, "");

    let second = shell.ok("alice", &make).await;
    let told = shell
        .ok("bob", &["listen", "--once", "--accept-invites", "@alice:localhost"])
        .await;
    assert_eq!(told, format!("{second} * @alice:localhost invites you: and you joined"));
    assert!(shell.ok("bob", &["room", "list"]).await.contains(&second));

    // A room that lets nobody in is told, and keeps nothing else from being received.
    let third = shell.ok("alice", &make).await;
    shell
        .server
        .fault(mx_test_homeserver::Fault::status("/join", 403, "{}").for_ever());
    shell.ok("alice", &["send", &second, "hello"]).await;
    let told = shell
        .ok("bob", &["listen", "--once", "--accept-invites", "everybody"])
        .await;
    assert!(told.contains(&format!("mx room join '{third}'")), "{told}");
    assert!(told.contains("hello"), "{told}");
    let output = shell.run("bob", &["listen", "--accept-invites", "@alice"]).await;
    assert_eq!(output.status.code(), Some(2));
}
