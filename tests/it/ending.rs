//! `mx` that is asked to end, and `mx` that has no memory: a message goes out once, and what was not printed is printed
//! later. Rows CR-C6 and CR-C8. And `mx` that is killed where files are made and moved, which the disks of the crash matrix
//! do not have: kill points K2, K22 and K23, row ST-47.

use std::{
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

use mx_test_homeserver::Fault;
use rustix::process::{Pid, Signal, kill_process};

use crate::{cli::Shell, world::seed::rounds};

/// How often a login and a logout are killed.
const ROUNDS: u64 = 25;

const SLOW: Duration = Duration::from_millis(400);
/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(3600);

/// A process that was begun, with its output to be read at its end.
fn begin(shell: &Shell, profile: &str, arguments: &[&str]) -> Child {
    let mut command = shell.command(profile, arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Wait for its end; a process that hangs is ended here, and has failed.
async fn end(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let ending = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    tokio::time::timeout(PATIENCE, ending)
        .await
        .inspect_err(|_| kill_process(pid, Signal::KILL).unwrap())
        .unwrap()
        .unwrap()
}

/// Wait until a request for this has come in after `after` others of it.
async fn asked(shell: &Shell, path: &str, after: usize) {
    while count(shell, path) <= after {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn count(shell: &Shell, path: &str) -> usize {
    let log = shell.server.log();
    log.iter().filter(|exchange| exchange.path.contains(path)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn cr_c6_a_send_that_is_asked_to_end_in_any_phase_finishes() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let mut said = Vec::new();
    let phases = [
        "/sync",
        "/members",
        "/keys/query",
        "/keys/claim",
        "/sendToDevice/",
        "/send/m.room.encrypted/",
    ];
    for (number, path) in phases.into_iter().enumerate() {
        // A new device of bob's, so that there is something to do in every phase.
        let text = format!("message {number}");
        shell.new_device("bob", &format!("bob-{number}")).await;
        let before = count(&shell, path);
        shell.server.fault(Fault::delay(path, SLOW));
        let sending = begin(&shell, "alice", &["send", &room, &text]);
        asked(&shell, path, before).await;
        signal(&sending, if number % 2 == 0 { Signal::TERM } else { Signal::INT });
        let output = end(sending).await;
        assert!(
            output.status.success(),
            "{path}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        said.push(format!("{room} @alice:localhost: {text}"));
    }
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, said.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cr_c6_a_send_that_cannot_finish_ends_and_its_message_goes_out_once() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let path = "/send/m.room.encrypted/";
    shell.server.fault(Fault::delay(path, NEVER));
    let sending = begin(&shell, "alice", &["send", &room, "first"]);
    asked(&shell, path, 0).await;
    signal(&sending, Signal::TERM);
    let output = end(sending).await;
    assert_eq!(
        output.status.code(),
        Some(9),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.is_empty());
    shell.server.behave();
    // Twice at once: nobody waits any longer.
    shell.new_device("bob", "bob-again").await;
    shell.server.fault(Fault::delay("/keys/query", NEVER));
    let before = count(&shell, "/keys/query");
    let sending = begin(&shell, "alice", &["send", &room, "never encrypted"]);
    asked(&shell, "/keys/query", before).await;
    signal(&sending, Signal::INT);
    signal(&sending, Signal::TERM);
    assert_eq!(end(sending).await.status.code(), Some(9));
    shell.server.behave();
    shell.ok("alice", &["send", &room, "second"]).await;
    let read = shell.ok("bob", &["listen", "--once"]).await;
    let expected: Vec<String> = ["first", "second"]
        .iter()
        .map(|text| format!("{room} @alice:localhost: {text}"))
        .collect();
    assert_eq!(read, expected.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cr_c6_a_listener_that_is_asked_to_end_succeeds_and_loses_nothing() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let mut read = String::new();
    for round in 0..4 {
        let before = count(&shell, "/sync");
        // In the long poll, while an answer is under way, and while its keys are.
        match round {
            1 => shell.server.fault(Fault::delay("/sync", SLOW).nth(2)),
            2 => shell.server.fault(Fault::delay("/keys/upload", SLOW)),
            _ => {}
        }
        let listening = begin(&shell, "bob", &["listen"]);
        asked(&shell, "/sync", before).await;
        shell.ok("alice", &["send", &room, &format!("message {round}")]).await;
        signal(&listening, if round % 2 == 0 { Signal::TERM } else { Signal::INT });
        let output = end(listening).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    read.push_str(&shell.ok("bob", &["listen", "--once"]).await);
    let read: Vec<&str> = read.lines().collect();
    let expected: Vec<String> = (0..4)
        .map(|round| format!("{room} @alice:localhost: message {round}"))
        .collect();
    assert_eq!(read, expected);
}

/// Kill a command some time after it began; the moments go from its beginning to its end. How often it died.
async fn killed_on_the_way(
    shell: &Shell,
    profile: &str,
    arguments: &[&str],
    round: u64,
    of: u64,
    whole: Duration,
) -> bool {
    let child = begin(shell, profile, arguments);
    tokio::time::sleep(whole.mul_f64(round as f64 / of as f64)).await;
    signal(&child, Signal::KILL);
    !end(child).await.status.success()
}

/// How long a command takes when nobody kills it, and a little more.
async fn measured(shell: &Shell, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    shell.ok("alice", arguments).await;
    begun.elapsed().mul_f64(1.2)
}

/// The same command again: done, or it says that there is nothing to do.
async fn again(shell: &Shell, arguments: &[&str], or: &str, round: u64) {
    let output = shell.run("alice", arguments).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains(or), "round {round}: {said}");
}

/// A first login makes the key file, the store and the login.
#[tokio::test(flavor = "multi_thread")]
async fn k2_a_login_that_is_killed_is_ended_by_the_same_command() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    let whole = measured(&shell, &login).await;
    let rounds = rounds().unwrap_or(ROUNDS);
    let mut died = 0;
    for round in 0..rounds {
        shell.ok("alice", &["logout"]).await;
        died += u64::from(killed_on_the_way(&shell, "alice", &login, round, rounds, whole).await);
        again(&shell, &login, "already_logged_in", round).await;
        let staged = shell.data.path().join("alice").join("pickle.key.new");
        assert!(!staged.exists(), "round {round}: the key has its name");
        shell.ok("alice", &["listen", "--once"]).await;
        assert!(shell.ok("alice", &["keys", "status"]).await.contains("(published)"));
    }
    assert!(died > 0, "of {rounds} logins none was killed");
    let violations = shell.server.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

/// A logout deletes the device and moves its files away.
#[tokio::test(flavor = "multi_thread")]
async fn k22_a_logout_that_is_killed_is_ended_by_the_same_command() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    shell.ok("alice", &login).await;
    let whole = measured(&shell, &["logout"]).await;
    let rounds = rounds().unwrap_or(ROUNDS);
    let mut died = 0;
    for round in 0..rounds {
        shell.ok("alice", &login).await;
        let whoami = shell.ok("alice", &["whoami"]).await;
        died += u64::from(killed_on_the_way(&shell, "alice", &["logout"], round, rounds, whole).await);
        again(&shell, &["logout"], "not_logged_in", round).await;
        let device = whoami.split_whitespace().nth(2).unwrap().to_owned();
        let left = shell.server.devices_of(ruma::user_id!("@alice:localhost"));
        assert!(
            !left.contains(&device),
            "round {round}: the device is gone from the homeserver"
        );
        for file in ["session.json", "store", "pickle.key"] {
            let path = shell.data.path().join("alice").join(file);
            assert!(!path.exists(), "round {round}: {file} is put aside");
        }
    }
    assert!(died > 0, "of {rounds} logouts none was killed");
    let violations = shell.server.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

/// A wipe deletes the device, and destroys its files. What is left in the end is a directory.
#[tokio::test(flavor = "multi_thread")]
async fn st_47_a_wipe_that_is_killed_is_ended_by_the_same_command_and_leaves_nothing() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    let wipe = ["logout", "--wipe"];
    shell.ok("alice", &login).await;
    let whole = measured(&shell, &wipe).await;
    let rounds = rounds().unwrap_or(ROUNDS);
    let mut died = 0;
    for round in 0..rounds {
        // One that was put aside before.
        shell.ok("alice", &login).await;
        shell.ok("alice", &["logout"]).await;
        shell.ok("alice", &login).await;
        died += u64::from(killed_on_the_way(&shell, "alice", &wipe, round, rounds, whole).await);
        again(&shell, &wipe, "not_logged_in", round).await;
        let left = shell.server.devices_of(ruma::user_id!("@alice:localhost"));
        assert!(left.is_empty(), "round {round}: {left:?}");
        let left = crate::attachments::names(&shell.data.path().join("alice"));
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
    assert!(died > 0, "of {rounds} wipes none was killed");
    let violations = shell.server.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

/// The token expires before every round, and is renewed in it.
#[tokio::test(flavor = "multi_thread")]
async fn k23_a_command_that_is_killed_around_a_renewal_is_made_up_for_by_the_next() {
    let shell = Shell::new().await;
    shell.server.tokens_last(Duration::from_secs(3600));
    let uri = shell.listening.uri();
    shell
        .ok("alice", &["login", "--homeserver", &uri, "--user", "alice"])
        .await;
    let alice = ruma::user_id!("@alice:localhost");
    let device = shell.server.devices_of(alice).remove(0);
    let expire = || shell.server.expire_token(alice, device.as_str().into(), true);
    let renewals = || count(&shell, "/refresh");
    let listen = ["listen", "--once"];
    expire();
    let whole = measured(&shell, &listen).await;
    let rounds = rounds().unwrap_or(ROUNDS);
    let (mut died, mut died_after_a_renewal) = (0, 0);
    for round in 0..rounds {
        expire();
        let before = renewals();
        let killed = killed_on_the_way(&shell, "alice", &listen, round, rounds, whole).await;
        died += u64::from(killed);
        died_after_a_renewal += u64::from(killed && renewals() > before);
        // No password, and no other device.
        shell.ok("alice", &listen).await;
        assert!((1..=2).contains(&(renewals() - before)), "round {round}");
    }
    assert!(died > 0, "of {rounds} commands none was killed");
    eprintln!("{died} of {rounds} were killed, {died_after_a_renewal} of them after they had renewed");
    assert_eq!(shell.server.devices_of(alice), [device]);
    let violations = shell.server.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

/// In steps from too little to begin with to enough. Where it dies is not chosen; that it dies in many places is.
#[tokio::test(flavor = "multi_thread")]
async fn cr_c8_a_process_without_memory_is_as_one_that_was_killed() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let mut read = Vec::new();
    let (mut ended, mut died) = (0, 0);
    let mut expected = Vec::new();
    for step in 0..14_u64 {
        let text = format!("message {step}");
        shell.ok("alice", &["send", &room, &text]).await;
        expected.push(format!("{room} @alice:localhost: {text}"));
        let limit_bytes = (16 + 4 * step) << 20;
        let output = end(shell.begin_within("bob", &["listen", "--once"], limit_bytes)).await;
        if output.status.success() {
            ended += 1;
        } else {
            died += 1;
        }
        // A line that was cut off is not one.
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        read.extend(
            stdout
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .map(|line| line.trim_end().to_owned()),
        );
    }
    let rest = shell.ok("bob", &["listen", "--once"]).await;
    read.extend(rest.lines().map(str::to_owned));
    // The line whose acknowledgement was cut off comes again, and never more often than there were deaths.
    let repeated = read.len() - expected.len();
    read.dedup();
    assert_eq!(read, expected);
    assert!(repeated <= died, "{repeated} lines came again in {died} deaths");
    assert!(died >= 2, "{died} died, {ended} did not");
}
