//! `mx listen` with a command, with a program that acknowledges, and from a time on.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use serde_json::Value;

use crate::cli::Shell;

fn bodies(text: &str) -> Vec<String> {
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let bodies = events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned));
    bodies.collect()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_run_for_each_event_and_what_it_did_not_handle_comes_again() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    // What a shell would run, if it read it.
    let texts = ["one", "$(touch evil); `touch evil`", "two\n\"quoted\" 'too'", "three"];
    for text in texts {
        shell.ok("alice", &["send", &room, text]).await;
    }
    let log = shell.data.path().join("log");
    let program = shell.data.path().join("handler");
    let (path, evil) = (log.display(), shell.data.path().join("evil"));
    // The second event is refused until somebody mends what handles it.
    let script = |refuses: &str| {
        format!(
            "IFS= read -r line\ncase \"$line\" in *{refuses}*) exit 7;; esac\n\
             printf '%s\\n' \"$line\" >> {path}\nprintf '%s' \"$MX_SENDER $MX_ROOM_ID $MX_EVENT_TYPE $MX_EVENT_KIND\" > {path}.env\n"
        )
    };
    fs::write(&program, script("touch")).unwrap();
    let exec = format!("cd {} && sh {}", shell.data.path().display(), program.display());
    let listen = ["listen", "--once", "--exec", &exec];
    let failed = shell.run("bob", &listen).await;
    assert_eq!(failed.status.code(), Some(14));
    assert!(failed.stdout.is_empty());
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        said.contains("exit status: 7") && said.contains("[not_handled]"),
        "{said}"
    );
    assert_eq!(bodies(&fs::read_to_string(&log).unwrap()), ["one"]);
    assert_eq!(
        shell.run("bob", &listen).await.status.code(),
        Some(14),
        "it comes again"
    );
    fs::write(&program, script("none")).unwrap();
    shell.ok("bob", &listen).await;
    assert_eq!(bodies(&fs::read_to_string(&log).unwrap()), texts);
    assert!(!evil.exists());
    let environment = fs::read_to_string(log.with_extension("env")).unwrap();
    assert_eq!(environment, format!("@alice:localhost {room} m.room.message message"));
    shell.ok("bob", &listen).await;
    assert_eq!(
        bodies(&fs::read_to_string(&log).unwrap()).len(),
        4,
        "and no event twice"
    );
    // A command that reads nothing is as good; one that is not there is said.
    shell.ok("alice", &["send", &room, "four"]).await;
    let missing = shell
        .run("bob", &["listen", "--once", "--exec", "/nowhere/at/all"])
        .await;
    assert_eq!(missing.status.code(), Some(14));
    shell.ok("bob", &["listen", "--once", "--exec", "true"]).await;
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
}

/// Asked to end, it waits for the command that runs: the event is handled, and not handled twice.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_runs_is_waited_for() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let log = shell.data.path().join("log");
    let begun = shell.data.path().join("begun");
    let exec = format!("touch {}; sleep 1; cat >> {}", begun.display(), log.display());
    let mut listener = shell.command("bob", &["listen", "--exec", &exec]).spawn().unwrap();
    shell.ok("alice", &["send", &room, "slow"]).await;
    while !begun.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let ended = std::process::Command::new("kill")
        .arg(listener.id().to_string())
        .status();
    assert!(ended.unwrap().success());
    let status = tokio::task::spawn_blocking(move || listener.wait().unwrap())
        .await
        .unwrap();
    assert!(status.success());
    assert_eq!(bodies(&fs::read_to_string(&log).unwrap()), ["slow"]);
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "", "it was acknowledged");
}

/// One that takes too long ends with it, with all that it started, and its event comes again.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_end_is_ended() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let pid = shell.data.path().join("pid");
    let exec = format!("trap '' TERM; sleep 300 & echo $! > {}; wait", pid.display());
    let mut command = shell.command("bob", &["listen", "--exec", &exec]);
    let listener = command.stderr(Stdio::piped()).spawn().unwrap();
    shell.ok("alice", &["send", &room, "endless"]).await;
    let sleeper = loop {
        match fs::read_to_string(&pid) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    let kill = |arguments: &[&str]| {
        std::process::Command::new("kill")
            .args(arguments)
            .output()
            .unwrap()
            .status
    };
    assert!(kill(&["-0", &sleeper]).success());
    assert!(kill(&[&listener.id().to_string()]).success());
    let ended = tokio::task::spawn_blocking(move || listener.wait_with_output().unwrap())
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(14));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("[not_handled]"));
    let mut looks = 0;
    while kill(&["-0", &sleeper]).success() {
        looks += 1;
        assert!(looks < 1000, "what it started goes on");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(
        shell.ok("bob", &["listen", "--once"]).await.ends_with("endless"),
        "it comes again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_acknowledges_what_it_has() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    for text in ["one", "two", "three"] {
        shell.ok("alice", &["send", &room, text]).await;
    }
    let mut command = shell.command("bob", &["--json", "listen", "--ack"]);
    let mut listener = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = listener.stdin.take().unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    for (text, number) in [("one", 1), ("two", 2), ("three", 3)] {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&event["content"]["body"], &event["ack"]),
            (&text.into(), &number.into())
        );
        if number < 3 {
            writeln!(answers, "{number}").unwrap();
        }
    }
    // It dies with the third in its hands.
    drop(answers);
    assert!(listener.wait().unwrap().success());
    let again = shell
        .run_with("bob", &["--json", "listen", "--once", "--ack"], "7\n")
        .await;
    assert_eq!(again.status.code(), Some(14), "that is the number of no event");
    assert_eq!(bodies(&String::from_utf8(again.stdout).unwrap()), ["three"]);
    let again = shell
        .run_with("bob", &["--json", "listen", "--once", "--ack"], "1\n")
        .await;
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(bodies(&String::from_utf8(again.stdout).unwrap()), ["three"]);
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
    let for_people = shell.run("bob", &["listen", "--ack"]).await;
    assert_eq!(for_people.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_is_passed_over_and_does_not_come_again() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.ok("alice", &["send", &room, "new"]).await;
    let tomorrow = "2999-01-01T00:00:00Z";
    assert_eq!(shell.ok("bob", &["listen", "--once", "--since", tomorrow]).await, "");
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
    shell.ok("alice", &["send", &room, "newer"]).await;
    let read = shell.ok("bob", &["listen", "--once", "--since", "1 hour"]).await;
    assert!(read.ends_with("newer"), "{read}");
    let wrong = shell.run("bob", &["listen", "--since", "yesterday"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

/// Bob listens for months, and meanwhile somebody says who is who.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_applied_counts_for_a_listener_that_runs() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.ok("alice", &["send", &room, "before"]).await;
    let draft = shell.data.path().join("trust.json");
    let path = draft.to_str().unwrap();
    let init = ["trust-manifest", "init", path, "--user", "@alice:localhost"];
    shell.ok("bob", &init).await;
    let mut manifest: Value = serde_json::from_slice(&fs::read(&draft).unwrap()).unwrap();
    let devices = manifest["users"]["@alice:localhost"]["devices"]
        .as_object_mut()
        .unwrap();
    let device = devices.keys().next().unwrap().clone();
    // Not hers: that of somebody who is nobody here.
    devices.insert(device.clone(), "uY7K0dLV0pwK6nrDkNHWKMtCQSyLVb1aXzTpZxB5d9I".into());
    fs::write(&draft, manifest.to_string()).unwrap();
    let mut listener = shell
        .command("bob", &["--json", "listen"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    let mut next = move || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let first = next();
    assert_eq!(first["content"]["body"], "before");
    assert_ne!(first["encryption"]["trust"], "not_listed");
    shell.ok("bob", &["trust-manifest", "apply", path]).await;
    shell.ok("alice", &["send", &room, "after"]).await;
    let (mut told, mut after) = (false, None);
    while !told || after.is_none() {
        let event = next();
        match event["kind"].as_str().unwrap() {
            "trust_drift" => {
                assert_eq!(event["differences"][0]["device_id"], device, "{event}");
                told = true;
            }
            "message" => after = Some(event["encryption"]["trust"].clone()),
            _ => {}
        }
    }
    assert_eq!(after.unwrap(), "not_listed");
    listener.kill().unwrap();
    listener.wait().unwrap();
}
