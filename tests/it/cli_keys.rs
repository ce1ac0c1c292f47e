//! `mx keys export` and `mx keys import`: files for their owner, passphrases that no process sees.

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
    std::fs::write(&path, foreign_file().await).unwrap();
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
    std::fs::write(&path, "mine").unwrap();
    std::fs::write(&secret, "").unwrap();
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
    assert_eq!(std::fs::read_to_string(path).unwrap(), "mine");
}
