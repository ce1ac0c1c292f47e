//! What `mx` asks whoever sits at its terminal: who is there, and whether both sides show the same.

use mx_test_homeserver::Fault;
use ruma::user_id;
use serde_json::json;

use crate::{cli::Shell, cli_terminal::hold, terminal::Terminal};

/// A shell whose homeserver asks for stages before it replaces alice's identity.
async fn asking(stage: &str) -> Shell {
    let shell = Shell::new().await;
    shell.pair().await;
    shell.ok("alice", &["identity", "setup"]).await;
    shell.server.ask_for(&[&[stage]]);
    shell
}

const RESET: [&str; 3] = ["identity", "reset", "--yes"];
const PASSWORD: &str = "password of @alice:localhost: ";

#[tokio::test(flavor = "multi_thread")]
async fn who_sets_an_identity_up_is_asked_for_the_password() {
    let shell = Shell::new().await;
    shell.pair().await;
    let asked = json!({"session": "s", "flows": [{"stages": ["m.login.password"]}], "params": {}, "completed": []});
    shell
        .server
        .fault(Fault::status("/keys/device_signing/upload", 401, &asked.to_string()));
    let held = hold(&shell.server, "/keys/device_signing/upload");
    let mut terminal = shell.sit_at("alice", &["identity", "setup"]);
    terminal.until("setting up the identity");
    drop(held);
    let before = terminal.asks_in_secret(PASSWORD);
    let before = before.strip_suffix(PASSWORD).unwrap();
    assert!(
        before.ends_with("\u{1b}[2K"),
        "nothing draws over the question: {before:?}"
    );
    terminal.says("alice-password");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown:?}");
    assert!(
        shown.contains("this device is verified") && !shown.contains("alice-password"),
        "{shown:?}"
    );
    let answered = shell.server.log();
    let answered = answered
        .iter()
        .filter(|exchange| exchange.path.ends_with("/keys/device_signing/upload"));
    let sessions: Vec<_> = answered
        .map(|exchange| exchange.request_body["auth"]["session"].clone())
        .collect();
    assert_eq!(sessions, [json!(null), json!("s")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_mistyped_is_asked_for_again_and_not_for_ever() {
    let shell = asking("m.login.password").await;
    let mut terminal = shell.sit_at("alice", &RESET);
    for typed in ["alice-passwort", "alice-password"] {
        terminal.asks_in_secret(PASSWORD);
        terminal.says(typed);
    }
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown:?}");
    assert_eq!(shown.matches("that was not accepted").count(), 1);

    let mut terminal = shell.sit_at("alice", &RESET);
    for _ in 0..3 {
        terminal.asks_in_secret(PASSWORD);
        terminal.says("forgotten");
    }
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(3), "{shown:?}");
    assert!(
        shown.contains("[wrong_password]") && !shown.contains("forgotten"),
        "{shown:?}"
    );
    // Whoever does not want to say it has changed nothing, and has the terminal back.
    for (key, code) in [("\u{3}", 9), ("\u{4}", 3)] {
        let mut terminal = Terminal::from_a_shell(&shell.typed("alice", &RESET));
        terminal.asks_in_secret(PASSWORD);
        terminal.presses(key);
        terminal.until(&format!("ended with {code}"));
        assert!(terminal.echoes(), "after {key:?}");
    }
    let status = shell.ok("alice", &["--json", "identity", "status"]).await;
    assert!(status.contains(r#""standing":"good""#), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_browser_can_is_waited_for() {
    let shell = asking("m.login.sso").await;
    let asks = |terminal: &mut Terminal| {
        let said = terminal.until("press Enter when it is done");
        assert!(said.contains("/auth/m.login.sso/fallback/web?session="), "{said:?}");
    };
    let mut terminal = shell.sit_at("alice", &RESET);
    asks(&mut terminal);
    shell.server.do_in_browser("m.login.sso");
    terminal.says("");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown:?}");
    let mut terminal = shell.sit_at("alice", &RESET);
    asks(&mut terminal);
    terminal.presses("\u{4}");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(3), "{shown:?}");
    assert!(shown.contains("[authentication_unanswerable]"), "{shown:?}");
    // Where nobody sits, nobody is asked.
    let mut command = shell.command("alice", &RESET);
    command.env_remove("MX_PASSWORD");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("[authentication_unanswerable]"));
}

const ANSWER: &str = "answer it? [yes/no]";
const SAME: &str = "do both sides show the same? [yes/no]";

/// Bob waits, and alice has asked his device.
async fn verifying(shell: &Shell) -> (Terminal, Terminal) {
    let device = shell.server.devices_of(user_id!("@bob:localhost")).remove(0);
    let mut bob = shell.sit_at("bob", &["verify", "listen", "--once"]);
    bob.until("waiting for somebody");
    shell.next_sync_of("@bob:localhost").await;
    let mut alice = shell.sit_at("alice", &["verify", "user", "@bob:localhost", "--device", &device]);
    alice.until("accept it on the other side");
    bob.until("asks to verify");
    bob.until(ANSWER);
    (alice, bob)
}

/// What is to be compared: seven emoji with their names, and the numbers.
fn compared(terminal: &mut Terminal) -> Vec<String> {
    terminal.until(": compare\r\n");
    let shown = terminal.until(SAME);
    let lines = shown.lines().filter(|line| line.starts_with("  "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// Both have come as far as the question.
async fn comparing(shell: &Shell) -> (Terminal, Terminal) {
    let (mut alice, mut bob) = verifying(shell).await;
    bob.says("yes");
    let (alices, bobs) = (compared(&mut alice), compared(&mut bob));
    assert_eq!(alices.len(), 8, "{alices:?}");
    assert_eq!(alices, bobs);
    (alice, bob)
}

fn end(terminal: Terminal, code: i32, words: &str) {
    let (ended, shown) = terminal.end();
    assert_eq!(ended, Some(code), "{shown}");
    assert!(shown.contains(words), "{words}: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_compare_emoji_and_say_yes() {
    let shell = Shell::new().await;
    shell.pair().await;
    let (mut alice, mut bob) = comparing(&shell).await;
    // Anything else is no answer, and is asked again.
    alice.says("maybe");
    alice.until("say yes or no");
    alice.says("Yes");
    bob.says("y");
    end(alice, 0, "is verified: ");
    end(bob, 0, "is verified: ");
    for (one, other) in [("alice", "@bob:localhost"), ("bob", "@alice:localhost")] {
        let devices = shell.ok(one, &["devices", "list", other]).await;
        assert!(devices.contains("trusted by its fingerprint"), "{devices}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_no_has_verified_nobody() {
    let shell = Shell::new().await;
    shell.pair().await;
    let (alice, mut bob) = comparing(&shell).await;
    bob.says("no");
    end(bob, 11, "[not_verified]");
    end(alice, 11, "m.mismatched_sas");
    let (alice, mut bob) = verifying(&shell).await;
    bob.says("no");
    end(bob, 11, "cancelled here");
    end(alice, 11, "cancelled there");
    let devices = shell.ok("alice", &["devices", "list", "@bob:localhost"]).await;
    assert!(!devices.contains("trusted"), "{devices}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_any_more_nothing_is_waited_for() {
    let shell = Shell::new().await;
    shell.pair().await;
    let (mut alice, bob) = comparing(&shell).await;
    alice.presses("\u{4}");
    end(alice, 11, "nobody is there to answer: it is cancelled");
    end(bob, 11, "cancelled there");
    // Another device of bob's could still answer.
    let (mut alice, mut bob) = verifying(&shell).await;
    bob.presses("\u{4}");
    end(bob, 11, "it is left to another device");
    alice.presses("\u{3}");
    end(alice, 11, "[not_verified]");
}
