//! `mx` at a terminal: what is drawn there and nowhere else, and what is typed and never shown.

use std::{
    io::Read as _,
    sync::{Mutex, mpsc},
};

use mx_test_homeserver::Homeserver;
use ruma::user_id;
use serde_json::Value;

use crate::{cli::Shell, logins::browse, terminal::Terminal};

/// The homeserver answers nothing more from such a request on, until what this returns is dropped.
pub(crate) fn hold(server: &Homeserver, path: &str) -> mpsc::Sender<()> {
    let (held, released) = mpsc::channel();
    let released = Mutex::new(released);
    server.rewrite(path, move |_, answer| {
        // Nothing is ever sent: it ends when the other half is dropped.
        let _dropped = released.lock().unwrap().recv();
        answer
    });
    held
}

/// Whether a terminal is told to change how text looks.
fn is_coloured(shown: &str) -> bool {
    let mut sequences = shown.split("\u{1b}[").skip(1);
    sequences.any(|sequence| {
        let end = sequence.find(|char: char| !matches!(char, '0'..='9' | ';'));
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_for_a_terminal_and_not_for_who_says_no_color() {
    let shell = Shell::new().await;
    shell.pair().await;
    for arguments in [&["-vv", "keys", "publish"][..], &["--help"], &["nonsense"]] {
        let (_, shown) = shell.sit_at("alice", arguments).end();
        assert!(is_coloured(&shown), "{arguments:?}: {shown:?}");
        let mut command = shell.typed("alice", arguments);
        command.env("NO_COLOR", "1");
        let (_, shown) = Terminal::of(command).end();
        assert!(!shown.is_empty() && !is_coloured(&shown), "{arguments:?}: {shown:?}");
        // As the convention has it, an empty one says nothing.
        let mut command = shell.typed("alice", arguments);
        command.env("NO_COLOR", "");
        assert!(is_coloured(&Terminal::of(command).end().1), "{arguments:?}");
    }
    // The data is on the terminal, and the log is not.
    let mut terminal = Terminal::with_words_in_a_pipe(shell.typed("alice", &["-vv", "keys", "publish"]));
    let mut words = String::new();
    let mut pipe = terminal.process().stderr.take().unwrap();
    pipe.read_to_string(&mut words).unwrap();
    assert!(!words.is_empty() && !words.contains('\u{1b}'), "{words:?}");
    assert_eq!(terminal.end().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_while_is_shown_on_a_terminal_until_it_is_done() {
    let shell = Shell::new().await;
    shell.pair().await;
    let doing = "looking at everything";
    for no_color in [false, true] {
        let held = hold(&shell.server, "/account/whoami");
        let mut command = shell.typed("alice", &["doctor"]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let mut terminal = Terminal::of(command);
        terminal.until(doing);
        drop(held);
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(12), "{shown:?}");
        assert!(!(no_color && is_coloured(&shown)), "{shown:?}");
        let (_, after) = shown.rsplit_once(doing).unwrap();
        assert!(
            after.contains("\u{1b}[2K") && after.contains("WARNING [no_identity]"),
            "it is wiped before the result: {after:?}"
        );
        shell.server.behave();
    }
    // The data goes into a pipe as it is.
    let held = hold(&shell.server, "/account/whoami");
    let mut terminal = Terminal::with_data_in_a_pipe(shell.typed("alice", &["doctor"]));
    terminal.until(doing);
    drop(held);
    let mut data = String::new();
    let mut pipe = terminal.process().stdout.take().unwrap();
    pipe.read_to_string(&mut data).unwrap();
    assert!(
        data.starts_with("WARNING [no_identity]") && !data.contains('\u{1b}'),
        "{data:?}"
    );
    assert_eq!(terminal.end().0, Some(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_drawn_for_programs_and_into_pipes() {
    let shell = Shell::new().await;
    shell.pair().await;
    let (code, shown) = shell.sit_at("alice", &["--json", "doctor", "--no-rooms"]).end();
    assert_eq!(code, Some(12));
    assert!(!shown.contains("looking at") && !shown.contains('\u{1b}'), "{shown:?}");
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["worst"], &lines[1]["error"]),
        (&"warning".into(), &"doctor_warnings".into())
    );
    let mut terminal = Terminal::with_words_in_a_pipe(shell.typed("alice", &["doctor"]));
    let mut words = String::new();
    let mut pipe = terminal.process().stderr.take().unwrap();
    pipe.read_to_string(&mut words).unwrap();
    assert_eq!(words, "mx: 0 error(s), 3 warning(s) [doctor_warnings]\n");
    assert!(!terminal.end().1.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_never_shown() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    let mut terminal = shell.sit_at("alice", &login);
    terminal.asks_in_secret("password of alice: ");
    terminal.says("mistyped");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(3));
    assert!(
        shown.contains("[wrong_password]") && !shown.contains("mistyped"),
        "{shown:?}"
    );
    let mut terminal = Terminal::from_a_shell(&shell.typed("alice", &login));
    terminal.asks_in_secret("password of alice: ");
    // What was mistyped is taken back as on every terminal.
    terminal.says("wrong\u{15}alice-passwort\u{7f}d");
    terminal.until("ended with 0");
    assert!(terminal.echoes());
    let shown = terminal.shown();
    assert!(
        shown.contains("@alice:localhost device") && !shown.contains("alice-passwor"),
        "{shown:?}"
    );
    assert!(shell.ok("alice", &["whoami"]).await.starts_with("@alice:localhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_the_question_has_a_terminal_that_echoes() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    // Ctrl-C is a signal, and Ctrl-D is nobody.
    for (key, code, words) in [("\u{3}", 9, "[ended]"), ("\u{4}", 2, "--password-file")] {
        let mut terminal = Terminal::from_a_shell(&shell.typed("alice", &login));
        terminal.asks_in_secret("password of alice: ");
        terminal.presses(key);
        let shown = terminal.until(&format!("ended with {code}"));
        assert!(shown.contains(words), "{shown:?}");
        assert!(terminal.echoes(), "after {key:?}");
    }
    let mut terminal = Terminal::from_a_shell(&shell.typed("alice", &login));
    terminal.asks_in_secret("password of alice: ");
    terminal.terminates();
    terminal.until("once more to end at once");
    terminal.terminates();
    terminal.until("ended with 9");
    assert!(terminal.echoes(), "after a signal");
    assert_eq!(shell.run("alice", &["whoami"]).await.status.code(), Some(3));
    assert!(shell.server.devices_of(user_id!("@alice:localhost")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_brings_ends_the_question_for_it() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    shell.server.offer_logins(&["m.login.sso", "m.login.token"]);
    shell.server.visit_single_sign_on(user_id!("@alice:localhost"));
    let login = ["login", "--homeserver", &uri, "--sso"];
    let page = |terminal: &mut Terminal| {
        terminal.until("open ");
        let page = terminal.until("\r\n").trim_end().to_owned();
        terminal.asks_in_secret("or the token\r\n");
        page
    };
    let mut terminal = Terminal::from_a_shell(&shell.typed("alice", &login));
    let (_, back) = browse(&page(&mut terminal)).await;
    assert_eq!(browse(&back.unwrap()).await.0, 200);
    terminal.until("ended with 0");
    assert!(terminal.echoes(), "nobody answered the question");
    // The browser of another machine cannot come back: its address is pasted, and the token in it is not shown.
    let mut terminal = Terminal::from_a_shell(&shell.typed("bob", &login));
    let (_, back) = browse(&page(&mut terminal)).await;
    terminal.says(&back.unwrap());
    let shown = terminal.until("ended with 0");
    assert!(!shown.contains("loginToken") && terminal.echoes(), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_passphrase_is_typed_twice_and_a_recovery_key_once() {
    let shell = Shell::new().await;
    shell.pair().await;
    let file = shell.data.path().join("bundle");
    let path = file.to_str().unwrap();
    let recovery = shell.ok("alice", &["identity", "setup"]).await;
    let recovery = recovery.lines().last().unwrap();
    let export = ["identity", "bundle", "export", path];
    for (second, code) in [("cow", 2), ("horse", 0)] {
        let mut terminal = shell.sit_at("alice", &export);
        terminal.asks_in_secret("passphrase for the bundle: ");
        terminal.says("horse");
        terminal.asks_in_secret("passphrase for the bundle, again: ");
        terminal.says(second);
        let (ended, shown) = terminal.end();
        assert_eq!((ended, file.exists()), (Some(code), code == 0), "{shown:?}");
        assert!(!shown.contains("horse") && !shown.contains("cow"), "{shown:?}");
    }
    for (profile, command, question, secret) in [
        (
            "second",
            &["identity", "bundle", "import", path][..],
            "passphrase of the bundle: ",
            "horse",
        ),
        (
            "third",
            &["identity", "recover"],
            "recovery key or passphrase: ",
            recovery,
        ),
        // One command, whether there is an identity or not.
        (
            "fourth",
            &["identity", "setup"],
            "recovery key or passphrase: ",
            recovery,
        ),
        (
            "fifth",
            &["identity", "setup", "--bundle", path],
            "passphrase of the bundle: ",
            "horse",
        ),
    ] {
        shell.new_device("alice", profile).await;
        let mut terminal = shell.sit_at(profile, command);
        terminal.asks_in_secret(question);
        terminal.says(secret);
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(0), "{shown:?}");
        assert!(
            shown.contains("this device is verified") && !shown.contains(secret),
            "{shown:?}"
        );
    }
}
