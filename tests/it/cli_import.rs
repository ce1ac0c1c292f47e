//! `mx import`: devices of other clients go on as profiles, and what is refused is left as it was.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use mx_e2ee::Room;
use mx_test_homeserver::Homeserver;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cli::Shell,
    import::{contents, scene},
    import_matrix_sdk::sdk,
    world::{Device, pair},
};

async fn shell_of(server: &Homeserver) -> Shell {
    Shell {
        listening: server.listen().await,
        data: tempfile::tempdir().unwrap(),
        server: server.clone(),
    }
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whose files must not change while they are imported.
struct Theirs {
    directory: PathBuf,
    before: BTreeMap<String, Vec<u8>>,
}

impl Theirs {
    fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            before: contents(directory),
        }
    }

    /// Refused with this error and exit code; nothing of ours is there, and nothing of theirs has changed.
    fn are_refused(&self, shell: &Shell, output: &Output, error: &str, exit: i32) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert!(output.stdout.is_empty() && said.contains(error), "{error}: {said}");
        assert!(!shell.data.path().join("alice").exists());
        self.are_untouched();
    }

    fn are_untouched(&self) {
        assert!(contents(&self.directory) == self.before, "their files changed");
    }
}

/// A message that came meanwhile is read, one is sent by the same device, and it is not taken over twice.
async fn it_goes_on(shell: &Shell, device: &str, room: &Room, bob: &Device, import: &[&str]) {
    let whoami = shell.ok("alice", &["whoami"]).await;
    let expected = format!("@alice:localhost device {device} on {}", shell.listening.uri());
    assert_eq!(whoami, expected);
    let heard = shell.ok("alice", &["listen", "--once"]).await;
    assert!(heard.contains("@bob:localhost: while nobody was there"), "{heard}");
    shell
        .ok("alice", &["send", room.id().as_str(), "from the same device"])
        .await;
    let messages = bob.messages().await;
    assert_eq!(messages[0].body(), Some("from the same device"));
    let encryption = messages[0].encryption.as_ref().unwrap();
    assert_eq!(encryption.sender_device.as_ref().unwrap(), device);
    let again = shell.run("alice", import).await;
    assert_eq!(again.status.code(), Some(10));
    assert!(String::from_utf8_lossy(&again.stderr).contains("[import_not_empty]"));
    shell.ok("alice", &["store", "verify"]).await;
}

#[tokio::test]
async fn the_device_of_the_r_client_goes_on() {
    let scene = scene().await;
    let shell = shell_of(&scene.world).await;
    scene.edit("matrix.json", |config| config["server"] = json!(shell.listening.uri()));
    scene.room.send_text("while nobody was there").await.unwrap();
    // R keeps the login elsewhere.
    let config = shell.data.path().join("config.json");
    fs::rename(scene.files.path().join("matrix.json"), &config).unwrap();
    let (files, config) = (scene.files.path().to_str().unwrap(), config.to_str().unwrap());
    let theirs = Theirs::of(scene.files.path());
    let import = ["import", "mx-client", files, "--config", config];
    let output = shell.run("alice", &[&["--json"], &import[..]].concat()).await;
    let shown = json(&output);
    assert_eq!(
        (&shown["user_id"], &shown["device_id"]),
        (&json!("@alice:localhost"), &json!("RDEV"))
    );
    assert_eq!(shown["ed25519"], scene.r_client.ed25519().to_base64());
    assert_eq!((&shown["olm_sessions"], &shown["room_keys"]), (&json!(2), &json!(1)));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("taken over with 2 sessions and 1 room keys; the old client must never run again"),
        "{said}"
    );
    it_goes_on(&shell, "RDEV", &scene.room, &scene.bob, &import).await;
    theirs.are_untouched();
}

#[tokio::test]
async fn files_of_no_r_client_are_refused_untouched() {
    let scene = scene().await;
    let shell = shell_of(&scene.world).await;
    scene.edit("matrix.json", |config| config["server"] = json!(shell.listening.uri()));
    let files = scene.files.path().to_str().unwrap();
    let mut other: Value = serde_json::from_slice(&fs::read(scene.files.path().join("matrix.json")).unwrap()).unwrap();
    other["device_id"] = json!("OTHER");
    for (name, bad, error, exit) in [
        ("pickle.key", Some(vec![7; 32]), "[import_foreign]", 8),
        ("account.pickle", Some(b"AAAA\n".to_vec()), "[import_foreign]", 8),
        ("sessions.json", Some(b"{".to_vec()), "[import_foreign]", 8),
        ("account.pickle", None, "[import_unreadable]", 10),
        (
            "matrix.json",
            Some(other.to_string().into_bytes()),
            "[import_other_device]",
            3,
        ),
    ] {
        let path = scene.files.path().join(name);
        let good = fs::read(&path).unwrap();
        match bad {
            Some(bad) => fs::write(&path, bad).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let theirs = Theirs::of(scene.files.path());
        let output = shell.run("alice", &["import", "mx-client", files]).await;
        theirs.are_refused(&shell, &output, error, exit);
        fs::write(&path, good).unwrap();
    }
    shell.ok("alice", &["import", "mx-client", files]).await;
}

/// What matrix-rust-sdk kept of alice, whom bob wrote to meanwhile, and how she is imported.
struct Sdk {
    shell: Shell,
    directory: TempDir,
    bob: Device,
    room: Room,
    device: String,
    fingerprint: String,
    token: String,
}

#[expect(
    clippy::future_not_send,
    reason = "a database of SQLite is of one thread, as this test is"
)]
async fn matrix_sdk(passphrase: Option<&str>) -> Sdk {
    let pair = pair().await;
    let server = pair.server.clone();
    let device = pair.alice.client.device_id().to_string();
    let fingerprint = pair.alice.client.orchestrator().key_status().await.unwrap().ed25519;
    let directory = tempfile::tempdir().unwrap();
    let (bob, room, token) = sdk(pair, directory.path(), passphrase).await;
    room.send_text("while nobody was there").await.unwrap();
    let shell = shell_of(&server).await;
    for (name, text) in [
        ("token", token.as_str()),
        ("pass", "a passphrase"),
        ("wrong", "another"),
    ] {
        fs::write(shell.data.path().join(name), format!("{text}\n")).unwrap();
    }
    Sdk {
        shell,
        directory,
        bob,
        room,
        device,
        fingerprint,
        token,
    }
}

impl Sdk {
    fn file(&self, name: &str) -> String {
        self.shell.data.path().join(name).display().to_string()
    }

    /// The command, with a token and what else is given.
    fn import(&self, options: &[&str]) -> Vec<String> {
        let (directory, uri) = (self.directory.path().display().to_string(), self.shell.listening.uri());
        let command = ["import", "matrix-sdk", &directory, "--homeserver", &uri];
        let all = command.iter().chain(options);
        all.map(|argument| (*argument).to_owned()).collect()
    }

    async fn is_refused(&self, options: &[&str], error: &str, exit: i32) {
        let theirs = Theirs::of(self.directory.path());
        let import = self.import(options);
        let import: Vec<&str> = import.iter().map(String::as_str).collect();
        let output = self.shell.run("alice", &import).await;
        theirs.are_refused(&self.shell, &output, error, exit);
    }
}

#[tokio::test]
async fn the_device_of_matrix_sdk_goes_on() {
    for passphrase in [None, Some("a passphrase")] {
        let theirs = matrix_sdk(passphrase).await;
        let untouched = Theirs::of(theirs.directory.path());
        let (token, pass) = (theirs.file("token"), theirs.file("pass"));
        let mut options = vec!["--json", "--token-file", &token];
        if passphrase.is_some() {
            options.extend(["--passphrase-file", &pass]);
        }
        let import = theirs.import(&options);
        let import: Vec<&str> = import.iter().map(String::as_str).collect();
        let shown = json(&theirs.shell.run("alice", &import).await);
        assert_eq!(shown["device_id"], theirs.device);
        assert_eq!(shown["ed25519"], theirs.fingerprint);
        assert!(shown["room_keys"].as_u64().unwrap() > 0, "{shown}");
        let again = theirs.import(&options[1..]);
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        it_goes_on(&theirs.shell, &theirs.device, &theirs.room, &theirs.bob, &again).await;
        untouched.are_untouched();
    }
}

#[tokio::test]
async fn a_token_is_asked_for_at_the_terminal_and_not_shown() {
    let theirs = matrix_sdk(None).await;
    let import = theirs.import(&[]);
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    let nobody = theirs.shell.run("alice", &import).await;
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("MX_TOKEN"));
    let mut terminal = theirs.shell.sit_at("alice", &import);
    terminal.asks_in_secret("access token: ");
    terminal.says(&theirs.token);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains(&theirs.device) && !shown.contains(&theirs.token),
        "{shown}"
    );
}

#[tokio::test]
async fn a_store_of_no_matrix_sdk_is_refused_untouched() {
    let theirs = matrix_sdk(Some("a passphrase")).await;
    let (token, pass) = (theirs.file("token"), theirs.file("pass"));
    let (wrong, none) = (theirs.file("wrong"), theirs.file("none"));
    let with = |pass| ["--token-file", &token, "--passphrase-file", pass];
    theirs.is_refused(&with(&wrong), "[import_foreign]", 8).await;
    theirs
        .is_refused(&["--token-file", &token], "[import_foreign]", 8)
        .await;
    theirs.is_refused(&with(&none), "[file_unreadable]", 10).await;
    theirs
        .is_refused(&["--token-file", &wrong, "--passphrase-file", &pass], "[logged_out]", 3)
        .await;
    let database = theirs.directory.path().join("matrix-sdk-crypto.sqlite3");
    let good = fs::read(&database).unwrap();
    for statement in [
        "UPDATE kv SET value = x'12' WHERE key = 'version'",
        "UPDATE kv SET value = x'00' WHERE key = 'account'",
        "DROP TABLE session",
    ] {
        Connection::open(&database).unwrap().execute(statement, ()).unwrap();
        theirs.is_refused(&with(&pass), "[import_foreign]", 8).await;
        fs::write(&database, &good).unwrap();
    }
    // Half of it, and none at all.
    fs::write(&database, &good[..good.len() / 2]).unwrap();
    theirs.is_refused(&with(&pass), "[import_", 8).await;
    fs::write(&database, "this is no database").unwrap();
    theirs.is_refused(&with(&pass), "[import_", 8).await;
    fs::remove_file(&database).unwrap();
    theirs.is_refused(&with(&pass), "[import_unreadable]", 10).await;
    // Nobody else was in the way.
    fs::write(&database, &good).unwrap();
    let import = theirs.import(&with(&pass));
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    theirs.shell.ok("alice", &import).await;
}
