//! `mx` as a process: output, exit codes, and SIGKILL.

use std::{
    io::{BufRead, BufReader, Seek, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use mx_test_homeserver::{Homeserver, Listening};
use serde_json::Value;

pub(crate) struct Shell {
    pub(crate) server: Homeserver,
    pub(crate) listening: Listening,
    pub(crate) data: tempfile::TempDir,
}

/// The binary beside this test's. A whole run of the workspace's tests has built it.
fn binary() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join(format!("mx{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "mx-e2ee", "--bin", "mx"])
            .status()
            .unwrap();
        assert!(built.success());
    }
    path
}

async fn output_of(mut command: Command, stdin: &str) -> Output {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(stdin.as_bytes()).unwrap();
    file.rewind().unwrap();
    command.stdin(file);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

impl Shell {
    pub(crate) async fn new() -> Self {
        let server = Homeserver::new();
        // Tests wait for the next sync of a process, and plan its faults.
        server.wait_at_most(std::time::Duration::from_millis(100));
        for name in ["alice", "bob"] {
            let _user = server.register(name, &format!("{name}-password"));
        }
        Self {
            listening: server.listen().await,
            data: tempfile::tempdir().unwrap(),
            server,
        }
    }

    pub(crate) fn command(&self, profile: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["--profile", profile, "--directory"])
            .arg(self.data.path().join(profile))
            .args(arguments);
        command
            .env("MX_PASSWORD", format!("{profile}-password"))
            .stdin(Stdio::null());
        command
    }

    /// A process that may have so much memory.
    pub(crate) fn begin_within(&self, profile: &str, arguments: &[&str], bytes: u64) -> Child {
        let whole = self.command(profile, arguments);
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {}; exec \"$0\" \"$@\"", bytes / 1024)])
            .arg(whole.get_program())
            .args(whole.get_args());
        for (name, value) in whole.get_envs() {
            command.env(name, value.unwrap());
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Another device of somebody.
    pub(crate) async fn new_device(&self, user: &str, profile: &str) {
        let uri = self.listening.uri();
        let mut command = self.command(profile, &["login", "--homeserver", &uri, "--user", user]);
        command.env("MX_PASSWORD", format!("{user}-password"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) async fn run(&self, profile: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(profile, arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Run it with this on its stdin.
    pub(crate) async fn run_with(&self, profile: &str, arguments: &[&str], stdin: &str) -> Output {
        output_of(self.command(profile, arguments), stdin).await
    }

    /// The same, and it logs all that it and everything below it has to say.
    pub(crate) async fn run_logging(&self, profile: &str, arguments: &[&str], stdin: &str) -> Output {
        let mut command = self.command(profile, arguments);
        command.env("MX_LOG", "trace");
        output_of(command, stdin).await
    }

    pub(crate) async fn ok(&self, profile: &str, arguments: &[&str]) -> String {
        let output = self.run(profile, arguments).await;
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Wait until a user has asked once more what is new.
    pub(crate) async fn next_sync_of(&self, user: &str) {
        let syncs = || {
            let log = self.server.log();
            log.iter()
                .filter(|exchange| exchange.path.ends_with("/sync") && exchange.user.as_deref() == Some(user))
                .count()
        };
        let before = syncs();
        while syncs() == before {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn pair(&self) -> String {
        let uri = self.listening.uri();
        for name in ["alice", "bob"] {
            self.ok(name, &["login", "--homeserver", &uri, "--user", name]).await;
        }
        let room = self
            .ok("alice", &["room", "create", "--invite", "@bob:localhost"])
            .await;
        self.ok("bob", &["room", "join", &room]).await;
        room
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_on_stdout_and_json_is_one_object_a_line() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let event = shell.ok("alice", &["send", &room, "hello\u{1b}[31m"]).await;
    assert!(event.starts_with('$') && !event.contains('\n'));
    let receipt: Value = serde_json::from_str(&shell.ok("alice", &["--json", "send", &room, "again"]).await).unwrap();
    assert_eq!(receipt["devices"][0]["outcome"], "already_had");
    let text = shell.ok("bob", &["listen", "--once", "--count", "1"]).await;
    assert_eq!(
        text,
        format!(r"{room} @alice:localhost: hello\u{{1b}}[31m"),
        "no escape reaches the terminal"
    );
    let json: Value = serde_json::from_str(&shell.ok("bob", &["listen", "--once", "--json"]).await).unwrap();
    assert_eq!(
        (&json["kind"], &json["content"]["body"]),
        (&"message".into(), &"again".into())
    );
    assert_eq!(
        shell.ok("bob", &["listen", "--once"]).await,
        "",
        "what was printed is not printed again"
    );
    assert!(shell.ok("alice", &["keys", "status"]).await.contains("(published)"));
    assert!(shell.ok("alice", &["room", "list"]).await.contains("encrypted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_killed_misses_nothing_and_repeats_nothing() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let mut read = Vec::new();
    for round in 0..3 {
        let mut listener = shell
            .command("bob", &["listen", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(listener.stdout.take().unwrap());
        let reader = tokio::task::spawn_blocking(move || {
            let mut lines = stdout.lines();
            [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()]
        });
        for part in 0..2 {
            shell.ok("alice", &["send", &room, &format!("{round}.{part}")]).await;
        }
        read.extend(reader.await.unwrap());
        // The listener asks for more only after it acknowledged what it printed.
        shell.next_sync_of("@bob:localhost").await;
        listener.kill().unwrap();
        listener.wait().unwrap();
        shell.ok("alice", &["send", &room, &format!("{round}.down")]).await;
        read.extend(
            shell
                .ok("bob", &["listen", "--once", "--json"])
                .await
                .lines()
                .map(str::to_owned),
        );
    }
    let bodies: Vec<String> = read
        .iter()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["content"]["body"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        bodies,
        ["0.0", "0.1", "0.down", "1.0", "1.1", "1.down", "2.0", "2.1", "2.down"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_distinct_and_errors_go_to_stderr() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let cases: [(&str, &[&str], i32); 5] = [
        ("nobody", &["whoami"], 3),
        ("alice", &["send"], 2),
        (
            "alice",
            &["login", "--homeserver", "http://127.0.0.1:9", "--user", "alice"],
            4,
        ),
        ("wrong", &["login", "--homeserver", &uri, "--user", "alice"], 3),
        ("alice", &["login", "--homeserver", "no sense", "--user", "alice"], 2),
    ];
    for (profile, arguments, code) in cases {
        let output = shell.run(profile, arguments).await;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let room = shell.pair().await;
    assert_eq!(
        shell
            .run("alice", &["send", "!nowhere:localhost", "x"])
            .await
            .status
            .code(),
        Some(6)
    );
    assert_eq!(
        shell
            .run("alice", &["send", &room, "--content", r#"{"a":1.5}"#])
            .await
            .status
            .code(),
        Some(8)
    );
    let error = shell
        .run("alice", &["--json", "send", "!nowhere:localhost", "x"])
        .await
        .stderr;
    let error: Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(error["error"], "not_in_room");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_key_is_listed_and_explained() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.ok("bob", &["listen", "--once"]).await;
    crate::edits::hold_keys_back(&shell.server);
    let event = shell.ok("alice", &["send", &room, "later"]).await;
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
    let listed: Value = serde_json::from_str(&shell.ok("bob", &["--json", "waiting"]).await).unwrap();
    assert_eq!(listed["event"]["event_id"], event);
    assert_eq!(listed["event"]["reason"]["code"], "missing_room_key");
    assert_eq!(listed["findings"][0], "this device does not have the room key");
    let text = shell.ok("bob", &["waiting", "--limit", "1"]).await;
    assert!(
        text.starts_with(&format!("{room} @alice:localhost {event}\n  this device")),
        "{text}"
    );
}
