//! `mx keys export` and `mx keys import`: files for their owner, passphrases that no process sees.

use std::{fs, os::unix::fs::PermissionsExt};

use matrix_sdk_crypto::{OlmMachine, encrypt_room_key_export};
use ruma::{device_id, room_id, user_id};
use serde_json::Value;

use crate::cli::Shell;

/// A key file of somebody else, which is opened fast.
async fn foreign_file() -> String {
    let machine = OlmMachine::new(user_id!("@zoe:localhost"), device_id!("ZOE")).await;
    let room = room_id!("!zoe:localhost");
    let users = [user_id!("@zoe:localhost")];
    let settings = matrix_sdk_crypto::EncryptionSettings::default();
    machine.share_room_key(room, users.into_iter(), settings).await.unwrap();
    let keys = machine.store().export_room_keys(|_| true).await.unwrap();
    assert_eq!(keys.len(), 1);
    encrypt_room_key_export(&keys, "horse", 3).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_is_imported_and_what_is_wrong_with_it_is_said() {
    let shell = Shell::new().await;
    let _room = shell.pair().await;
    let path = shell.data.path().join("keys.txt");
    fs::write(&path, foreign_file().await).unwrap();
    let path = path.to_str().unwrap();
    let import = ["--json", "keys", "import", path, "--passphrase-file", "-"];
    let wrong = shell.run_with("alice", &import, "cow\n").await;
    assert_eq!(
        wrong.status.code(),
        Some(8),
        "{}",
        String::from_utf8_lossy(&wrong.stderr)
    );
    let words = String::from_utf8(wrong.stderr).unwrap();
    assert!(words.contains("key_file_wrong_passphrase"), "{words}");
    let right = shell.run_with("alice", &import, "horse\n").await;
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    let shown: Value = serde_json::from_slice(&right.stdout).unwrap();
    assert_eq!((&shown["imported"], &shown["unusable"]), (&1.into(), &0.into()));
    let none = shell
        .run("alice", &["keys", "import", "nowhere", "--passphrase-file", path])
        .await;
    assert_eq!(none.status.code(), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_there_is_not_replaced() {
    let shell = Shell::new().await;
    let _room = shell.pair().await;
    let (path, secret) = (shell.data.path().join("keys.txt"), shell.data.path().join("secret"));
    fs::write(&path, "mine").unwrap();
    fs::write(&secret, "").unwrap();
    let (path, secret) = (path.to_str().unwrap(), secret.to_str().unwrap());
    let refused = shell
        .run("alice", &["keys", "export", path, "--passphrase-file", secret])
        .await;
    assert_eq!(refused.status.code(), Some(10));
    let empty = shell
        .run(
            "alice",
            &["keys", "export", path, "--force", "--passphrase-file", secret],
        )
        .await;
    assert!(String::from_utf8(empty.stderr).unwrap().contains("is empty"));
    assert_eq!(fs::read_to_string(path).unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_carries_keys_from_profile_to_profile() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let (file, pass) = (shell.data.path().join("keys.txt"), shell.data.path().join("pass"));
    fs::write(&pass, "correct horse\n").unwrap();
    let (path, pass) = (file.to_str().unwrap(), pass.to_str().unwrap());
    // Bob is not given the key.
    shell.ok("bob", &["listen", "--once"]).await;
    crate::edits::hold_keys_back(&shell.server);
    shell.ok("alice", &["send", &room, "without its key"]).await;
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");

    let export = ["--json", "keys", "export", path, "--passphrase-file", pass];
    let shown: Value = serde_json::from_str(&shell.ok("alice", &export).await).unwrap();
    assert_eq!((&shown["file"], &shown["room_keys"]), (&path.into(), &1.into()));
    let mode = || fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let first = fs::read(path).unwrap();
    assert_eq!(mode(), 0o600);
    assert!(first.starts_with(b"-----BEGIN MEGOLM SESSION DATA-----"));
    let refused = shell.run("alice", &export).await;
    assert_eq!(refused.status.code(), Some(10));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("file_exists"));
    assert_eq!(fs::read(path).unwrap(), first);
    // Replaced where that is said, and for its owner alone although the one before was not.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let forced = [
        "keys",
        "export",
        path,
        "--force",
        "--room",
        &room,
        "--passphrase-file",
        pass,
    ];
    let shown = shell.ok("alice", &forced).await;
    assert_eq!(shown, format!("1 room key(s) in {path}"));
    assert_ne!(fs::read(path).unwrap(), first);
    assert_eq!(mode(), 0o600);

    let import = ["--json", "keys", "import", path, "--passphrase-file", pass];
    let output = shell.run("bob", &import).await;
    let taken: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&taken["imported"], &taken["retried"]),
        (&1.into(), &1.into()),
        "{taken}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 event(s) waited for them"));
    let heard = shell.ok("bob", &["listen", "--once"]).await;
    assert!(heard.ends_with(": without its key"), "{heard}");
}
