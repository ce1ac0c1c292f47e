//! `mx verify` as a process: steps and states as JSON, policies, exit codes.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
};

use mx_e2ee::VerificationState;
use serde_json::{Value, json};

use crate::{
    cli::Shell,
    verification_cast::{is_done, state},
    world::Device,
};

/// Alice with a shell, who has asked carol's device, which is in this process.
async fn asked(shell: &Shell, carol: &Device, flags: &[&str]) -> Child {
    let (user, device) = (carol.client.user_id().as_str(), carol.client.device_id().as_str());
    let arguments = [flags, &["verify", "user", user, "--device", device]].concat();
    shell
        .command("alice", &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Carol goes on until her side stands as `wanted`.
async fn until(carol: &Device, wanted: impl Fn(&VerificationState) -> bool) -> mx_e2ee::VerificationId {
    loop {
        carol.client.sync().await.unwrap();
        let live = carol.client.verifications();
        if let Some(one) = live.first()
            && wanted(&one.state().unwrap())
        {
            return one.id().clone();
        }
    }
}

async fn compares(carol: &Device) -> mx_e2ee::VerificationId {
    let id = until(carol, |state| *state == VerificationState::Requested).await;
    carol.client.orchestrator().accept_verification(&id).await.unwrap();
    until(carol, |state| matches!(state, VerificationState::Compare { .. })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_compares_and_confirms_in_json() {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    let carol = Device::new(&shell.server, "carol").await;
    let mut mx = asked(&shell, &carol, &["--json"]).await;
    let id = compares(&carol).await;
    let shown = serde_json::to_value(state(&carol, &id)).unwrap();
    let mut lines = BufReader::new(mx.stdout.take().unwrap()).lines();
    let mut states = Vec::new();
    let compared: Value = loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        states.push(line["state"].as_str().unwrap().to_owned());
        if line["state"] == "compare" {
            break line;
        }
    };
    assert_eq!(states.first().map(String::as_str), Some("requested"));
    assert_eq!(compared["emoji"], shown["emoji"]);
    assert_eq!(compared["decimals"], shown["decimals"]);
    assert_eq!(compared["flow_id"], json!(id.flow_id));
    let mut stdin = mx.stdin.take().unwrap();
    writeln!(stdin, "what?").unwrap();
    writeln!(stdin, "{}", json!({"do": "confirm"})).unwrap();
    carol.client.orchestrator().confirm_verification(&id).await.unwrap();
    while !is_done(&carol, &id) {
        carol.client.sync().await.unwrap();
    }
    let last = lines.map(Result::unwrap).last().unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&last["state"], &last["outcome"]), (&json!("ended"), &json!("done")));
    let output = tokio::task::spawn_blocking(move || mx.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let trusted = shell.ok("alice", &["device", "list", "@carol:localhost"]).await;
    let key = carol.client.key_status().await.unwrap().ed25519;
    assert!(
        trusted.contains(&format!("{key} trusted by its fingerprint")),
        "{trusted}"
    );
}

/// Aaron's user id is the smaller one: it is his request that goes on, and `mx` goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_meets_that_of_a_process_is_followed_by_it() {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    let aaron = Device::new(&shell.server, "aaron").await;
    let mut mx = asked(&shell, &aaron, &["--json"]).await;
    let has_asked = || {
        let log = shell.server.log();
        log.iter()
            .any(|request| request.path.contains("/sendToDevice/m.key.verification.request"))
    };
    while !has_asked() {
        tokio::task::yield_now().await;
    }
    let alice = ruma::user_id!("@alice:localhost");
    let device = shell.server.devices_of(alice).first().unwrap().clone();
    let asking = aaron.client.orchestrator();
    let id = asking.verify_device(alice, device.as_str().into()).await.unwrap();
    until(&aaron, |state| matches!(state, VerificationState::Ready { .. })).await;
    asking.start_sas(&id).await.unwrap();
    until(&aaron, |state| matches!(state, VerificationState::Compare { .. })).await;
    let mut stdin = mx.stdin.take().unwrap();
    let mut lines = BufReader::new(mx.stdout.take().unwrap()).lines();
    for line in lines.by_ref() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["state"] == "compare" {
            assert_eq!(line["flow_id"], json!(id.flow_id));
            writeln!(stdin, "{}", json!({"do": "confirm"})).unwrap();
            break;
        }
    }
    asking.confirm_verification(&id).await.unwrap();
    while !is_done(&aaron, &id) {
        aaron.client.sync().await.unwrap();
    }
    let last: Value = serde_json::from_str(&lines.map(Result::unwrap).last().unwrap()).unwrap();
    assert_eq!((&last["state"], &last["outcome"]), (&json!("ended"), &json!("done")));
    let output = tokio::task::spawn_blocking(move || mx.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

/// Their request is there before ours, whoever's user id is the smaller one, and whatever of the two `mx` does first: hear of
/// theirs, or ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_there_before_that_of_a_process_is_followed_by_it() {
    for name in ["aaron", "carol"] {
        let shell = Shell::new().await;
        shell.new_device("alice", "alice").await;
        let other = Device::new(&shell.server, name).await;
        let alice = ruma::user_id!("@alice:localhost");
        let device = shell.server.devices_of(alice).first().unwrap().clone();
        let asking = other.client.orchestrator();
        asking.verify_device(alice, device.as_str().into()).await.unwrap();
        let mut mx = asked(&shell, &other, &["--json"]).await;
        // Theirs goes on, or ours, which is accepted here.
        let id = loop {
            other.client.sync().await.unwrap();
            let live = other.client.verifications();
            let Some(one) = live.first() else { continue };
            let shown = one.shown().unwrap();
            match shown.state {
                VerificationState::Requested if !shown.by_us => one.accept().await.unwrap(),
                VerificationState::Ready { .. } => break one.id().clone(),
                _ => {}
            }
        };
        asking.start_sas(&id).await.unwrap();
        until(&other, |state| matches!(state, VerificationState::Compare { .. })).await;
        let mut stdin = mx.stdin.take().unwrap();
        let mut lines = BufReader::new(mx.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["state"] == "compare" {
                writeln!(stdin, "{}", json!({"do": "confirm"})).unwrap();
                break;
            }
        }
        asking.confirm_verification(&id).await.unwrap();
        while !is_done(&other, &id) {
            other.client.sync().await.unwrap();
        }
        drop(lines);
        let output = tokio::task::spawn_blocking(move || mx.wait_with_output().unwrap())
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_has_gone_is_not_waited_for() {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    let carol = Device::new(&shell.server, "carol").await;
    let mut mx = asked(&shell, &carol, &["--json"]).await;
    drop(mx.stdin.take());
    let id = until(&carol, |state| *state == VerificationState::Requested).await;
    carol.client.orchestrator().accept_verification(&id).await.unwrap();
    while !state(&carol, &id).is_ended() {
        carol.client.sync().await.unwrap();
    }
    let output = tokio::task::spawn_blocking(move || mx.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(11), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_file_answers_and_its_keys_confirm() {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    let carol = Device::new(&shell.server, "carol").await;
    let key = carol.client.key_status().await.unwrap().ed25519;
    let file = shell.data.path().join("policy.json");
    std::fs::write(&file, json!({"expect": {"@carol:localhost": [key]}}).to_string()).unwrap();
    let arguments = [
        "--json",
        "verify",
        "listen",
        "--once",
        "--policy",
        file.to_str().unwrap(),
    ];
    let mx = shell
        .command("alice", &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell.next_sync_of("@alice:localhost").await;
    let alice = ruma::user_id!("@alice:localhost");
    let device = shell.server.devices_of(alice).first().unwrap().clone();
    let asking = carol.client.orchestrator();
    let id = asking.verify_device(alice, device.as_str().into()).await.unwrap();
    until(&carol, |state| matches!(state, VerificationState::Ready { .. })).await;
    asking.start_sas(&id).await.unwrap();
    until(&carol, |state| matches!(state, VerificationState::Compare { .. })).await;
    asking.confirm_verification(&id).await.unwrap();
    while !is_done(&carol, &id) {
        carol.client.sync().await.unwrap();
    }
    assert!(carol.client.verifications().is_empty());
    let output = tokio::task::spawn_blocking(move || mx.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_with_words() {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    for (arguments, code, words) in [
        (&["verify", "own"][..], 11, "verification_no_identity"),
        (
            &["verify", "user", "@bob:localhost", "--device", "NONE"],
            11,
            "verification_no_device",
        ),
        (&["verify", "user", "@bob:localhost"], 11, "verification_no_way"),
        (&["verify", "user", "bob"], 2, "invalid_id"),
        (
            &["verify", "listen", "--policy", "/nowhere/policy"],
            10,
            "cannot be read",
        ),
    ] {
        let output = shell.run("alice", arguments).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}
