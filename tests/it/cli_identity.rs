//! `mx identity`, `mx backup` and `mx trust-manifest`: what they print, with which exit code they end, and what they keep
//! to themselves.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use serde_json::Value;

use crate::cli::Shell;

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The code of an error, and the exit code.
fn refused(output: &Output) -> (String, Option<i32>) {
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    let line: Value = words
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| unreachable!("{words}"));
    let code = line["code"]
        .as_str()
        .or_else(|| line["error"].as_str())
        .unwrap_or_default();
    (code.to_owned(), output.status.code())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A shell in which alice has an identity whose recovery key is in a file.
async fn with_identity(shell: &Shell) -> (String, String) {
    let room = shell.pair().await;
    let file = shell.data.path().join("recovery.txt");
    let arguments = [
        "--json",
        "identity",
        "setup",
        "--recovery-key-file",
        file.to_str().unwrap(),
    ];
    let shown = json(&shell.run("alice", &arguments).await);
    assert_eq!(
        (&shown["standing"], &shown["recovery_key"]),
        (&"good".into(), &Value::Null)
    );
    assert_eq!(shown["backup_version"], "1");
    assert_eq!(mode(&file), 0o600);
    (room, file.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_set_up_once_and_its_key_is_only_where_it_belongs() {
    let shell = Shell::new().await;
    let (_, file) = with_identity(&shell).await;
    let key = fs::read_to_string(&file).unwrap();
    let output = shell.run("alice", &["identity", "setup"]).await;
    let words = [output.stdout.clone(), output.stderr.clone()].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&words));
    assert!(
        !String::from_utf8_lossy(&words).contains(key.trim()),
        "not a second time"
    );
    // Somebody else's device does not replace it.
    shell.new_device("alice", "second").await;
    let (code, exit) = refused(&shell.run("second", &["--json", "identity", "setup"]).await);
    assert_eq!((code.as_str(), exit), ("identity_exists", Some(3)));
    // Nor is a file replaced, and nothing depends on a key that is kept nowhere.
    let again = ["--json", "identity", "new-recovery-key", "--recovery-key-file", &file];
    let (code, exit) = refused(&shell.run("alice", &again).await);
    assert_eq!((code.as_str(), exit), ("recovery_key_not_kept", Some(10)));
    assert_eq!(fs::read_to_string(&file).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_opens_and_a_wrong_one_does_not() {
    let shell = Shell::new().await;
    let (_, file) = with_identity(&shell).await;
    shell.new_device("alice", "second").await;
    let recover = ["--json", "identity", "recover", "--recovery-key-file", "-"];
    let (code, exit) = refused(&shell.run_with("second", &recover, "EsTc 1234\n").await);
    assert_eq!((code.as_str(), exit), ("wrong_recovery_key", Some(3)));
    // There is no terminal to ask at.
    let asked = shell.run("second", &["identity", "recover"]).await;
    assert_eq!(asked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("no terminal"));
    let key = fs::read_to_string(&file).unwrap();
    let shown = json(&shell.run_with("second", &recover, &key).await);
    assert_eq!(
        (&shown["standing"], &shown["backup_version"]),
        (&"good".into(), &"1".into())
    );
    let status = json(&shell.run("second", &["--json", "identity", "status"]).await);
    assert_eq!(status["standing"], "good");
    assert_eq!(status["private_keys_missing"], serde_json::json!([]));
    assert_eq!(status["problems"], serde_json::json!([]));
    assert_eq!(status["signed_devices"].as_array().unwrap().len(), 1);

    // A new one is shown where no file is named, and the one before opens nothing.
    let new = json(&shell.run("alice", &["--json", "identity", "new-recovery-key"]).await);
    let new = new["recovery_key"].as_str().unwrap();
    assert!(new.starts_with("Es"));
    shell.new_device("alice", "third").await;
    let (code, _) = refused(&shell.run_with("third", &recover, &key).await);
    assert_eq!(code, "wrong_recovery_key");
    json(&shell.run_with("third", &recover, new).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_with_the_command_that_mends_it() {
    let shell = Shell::new().await;
    shell.pair().await;
    let status = json(&shell.run("alice", &["--json", "identity", "status"]).await);
    assert_eq!(status["standing"], "absent");
    let problems = status["problems"].as_array().unwrap();
    let codes: Vec<&str> = problems
        .iter()
        .map(|problem| problem["code"].as_str().unwrap())
        .collect();
    assert!(
        codes.contains(&"no_backup") && codes.contains(&"no_secret_storage"),
        "{codes:?}"
    );
    assert!(
        problems
            .iter()
            .all(|problem| problem["command"].as_str().unwrap().starts_with("mx "))
    );
    let words = shell.ok("alice", &["identity", "status"]).await;
    assert!(
        words.contains("NOT verified") && words.contains("mx identity setup"),
        "{words}"
    );
    // Nobody is logged in here.
    let (code, exit) = refused(&shell.run("nobody", &["--json", "identity", "status"]).await);
    assert_eq!((code.as_str(), exit), ("not_logged_in", Some(3)));
    let recover = ["--json", "identity", "recover", "--recovery-key-file", "-"];
    let (code, exit) = refused(&shell.run_with("alice", &recover, "x\n").await);
    assert_eq!((code.as_str(), exit), ("no_secret_storage", Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_meant_and_makes_another_identity() {
    let shell = Shell::new().await;
    let (_, _) = with_identity(&shell).await;
    let master = || async {
        let status = json(&shell.run("alice", &["--json", "identity", "status"]).await);
        status["master_key"].as_str().unwrap().to_owned()
    };
    let before = master().await;
    let not_meant = shell.run("alice", &["identity", "reset"]).await;
    assert!(!not_meant.status.success());
    assert!(String::from_utf8_lossy(&not_meant.stderr).contains("--yes"));
    assert_eq!(master().await, before);
    let shown = json(&shell.run("alice", &["--json", "identity", "reset", "--yes"]).await);
    assert_eq!(shown["standing"], "good");
    assert!(shown["recovery_key"].as_str().unwrap().starts_with("Es"));
    assert_ne!(master().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_goes_from_device_to_device() {
    let shell = Shell::new().await;
    let (_, file) = with_identity(&shell).await;
    let bundle = shell.data.path().join("bundle");
    let path = bundle.to_str().unwrap();
    let export = ["--json", "identity", "bundle", "export", path, "--passphrase-file", "-"];
    let shown = json(&shell.run_with("alice", &export, "horse\n").await);
    assert_eq!(shown["file"], path);
    assert_eq!(mode(&bundle), 0o600);
    let (code, exit) = refused(&shell.run_with("alice", &export, "horse\n").await);
    assert_eq!((code.as_str(), exit), ("file_exists", Some(10)));
    shell.new_device("alice", "second").await;
    let import = ["--json", "identity", "bundle", "import", path, "--passphrase-file", "-"];
    let (code, _) = refused(&shell.run_with("second", &import, "cow\n").await);
    assert_eq!(code, "wrong_recovery_key");
    let shown = json(&shell.run_with("second", &import, "horse\n").await);
    assert_eq!(shown["standing"], "good");
    // The same as a way to set an identity up.
    shell.new_device("alice", "third").await;
    let set_up = [
        "--json",
        "identity",
        "setup",
        "--bundle",
        path,
        "--bundle-passphrase-file",
        "-",
    ];
    let shown = json(&shell.run_with("third", &set_up, "horse\n").await);
    assert_eq!(shown["standing"], "good");
    shell.new_device("alice", "fourth").await;
    let set_up = ["--json", "identity", "setup", "--recover-with", "-"];
    let (code, exit) = refused(&shell.run_with("fourth", &set_up, "EsTc 1234\n").await);
    assert_eq!((code.as_str(), exit), ("wrong_recovery_key", Some(3)));
    let key = fs::read_to_string(&file).unwrap();
    let shown = json(&shell.run_with("fourth", &set_up, &key).await);
    assert_eq!(shown["standing"], "good");
    let both = [&set_up[..], &["--recovery-key-file", "new"]].concat();
    assert_eq!(shell.run("fourth", &both).await.status.code(), Some(2));
    fs::write(&bundle, "nothing").unwrap();
    let (_, exit) = refused(&shell.run_with("second", &import, "horse\n").await);
    assert_eq!(exit, Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_filled_restored_and_deleted() {
    let shell = Shell::new().await;
    let (room, file) = with_identity(&shell).await;
    shell.ok("alice", &["send", &room, "the eagle lands at noon"]).await;
    let shown = json(&shell.run("alice", &["--json", "backup", "enable"]).await);
    assert_eq!(shown["version"], "1");
    let status = json(&shell.run("alice", &["--json", "backup", "status"]).await);
    assert_eq!(
        (&status["enabled"], &status["room_keys"], &status["backed_up"]),
        (&true.into(), &1.into(), &1.into())
    );
    assert_eq!(status["on_server"]["is_ours"], true);
    shell.new_device("alice", "second").await;
    // Its key is not here, and it may well be ours: it is not replaced.
    for command in [
        &["--json", "backup", "restore"][..],
        &["--json", "backup", "enable", "--replace"],
    ] {
        let (code, exit) = refused(&shell.run("second", command).await);
        assert_eq!((code.as_str(), exit), ("backup_key_missing", Some(3)));
    }
    let recover = ["--json", "identity", "recover", "--recovery-key-file", &file];
    json(&shell.run("second", &recover).await);
    let taken = json(&shell.run("second", &["--json", "backup", "restore"]).await);
    assert_eq!(
        (&taken["total"], &taken["imported"], &taken["unusable"]),
        (&1.into(), &1.into(), &0.into())
    );
    let taken = json(
        &shell
            .run("second", &["--json", "backup", "restore", "--room", &room])
            .await,
    );
    assert_eq!((&taken["total"], &taken["imported"]), (&1.into(), &0.into()));
    let not_meant = shell.run("alice", &["backup", "delete"]).await;
    assert!(String::from_utf8_lossy(&not_meant.stderr).contains("--yes"));
    let gone = json(&shell.run("alice", &["--json", "backup", "delete", "--yes"]).await);
    assert_eq!(gone["deleted"], "1");
    let (code, exit) = refused(&shell.run("alice", &["--json", "backup", "restore"]).await);
    assert_eq!((code.as_str(), exit), ("no_backup", Some(3)));
    let (code, _) = refused(&shell.run("alice", &["--json", "backup", "delete", "--yes"]).await);
    assert_eq!(code, "no_backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_drafted_checked_applied_and_removed() {
    let shell = Shell::new().await;
    let (room, _) = with_identity(&shell).await;
    shell.ok("bob", &["identity", "setup"]).await;
    let draft = shell.data.path().join("manifest.json");
    let path = draft.to_str().unwrap();
    let shown = json(
        &shell
            .run("alice", &["--json", "trust-manifest", "init", path, "--room", &room])
            .await,
    );
    assert!(shown["users"]["@bob:localhost"].is_object(), "{shown}");
    assert_eq!(mode(&draft), 0o600);
    let init = ["--json", "trust-manifest", "init", path, "--user", "@bob:localhost"];
    let (code, exit) = refused(&shell.run("alice", &init).await);
    assert_eq!((code.as_str(), exit), ("file_exists", Some(10)));
    shell.ok("alice", &["trust-manifest", "check", path]).await;
    let applied = json(&shell.run("alice", &["--json", "trust-manifest", "apply", path]).await);
    assert_eq!(applied["applied"], true);
    shell.ok("alice", &["send", &room, "to those who are listed"]).await;
    shell.ok("bob", &["identity", "reset", "--yes"]).await;
    let check = shell.run("alice", &["--json", "trust-manifest", "check"]).await;
    assert_eq!(check.status.code(), Some(5));
    let lines = String::from_utf8(check.stdout).unwrap();
    for line in lines.lines() {
        let drift: Value = serde_json::from_str(line).unwrap();
        assert_eq!(drift["user_id"], "@bob:localhost", "{line}");
    }
    assert!(!lines.is_empty());
    let send = shell.run("alice", &["--json", "send", &room, "no"]).await;
    assert_eq!(send.status.code(), Some(5), "{}", String::from_utf8_lossy(&send.stderr));
    let removed = json(&shell.run("alice", &["--json", "trust-manifest", "remove"]).await);
    assert_eq!(removed["applied"], false);
    fs::write(&draft, "{\"users\": 7}").unwrap();
    let (code, exit) = refused(&shell.run("alice", &["--json", "trust-manifest", "apply", path]).await);
    assert_eq!((code.as_str(), exit), ("trust_manifest_invalid", Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_shared_where_it_is_asked_for() {
    let shell = Shell::new().await;
    let (_, _) = with_identity(&shell).await;
    let room = shell.ok("alice", &["room", "create"]).await;
    shell.ok("alice", &["send", &room, "the eagle lands at noon"]).await;
    let invite = ["--json", "room", "invite", &room, "@bob:localhost", "--share-history"];
    // Bob has no identity: nobody vouches for his devices.
    let (code, exit) = refused(&shell.run("alice", &invite).await);
    assert_eq!((code.as_str(), exit), ("history_no_devices", Some(5)));
    let (code, exit) = refused(&shell.run("bob", &invite).await);
    assert!(["forbidden", "not_in_room"].contains(&code.as_str()), "{code}");
    assert_eq!(exit, Some(6));
    shell.ok("bob", &["identity", "setup"]).await;
    let again = shell.run("alice", &invite).await;
    let shown = json(&again);
    assert_eq!(shown["history"]["room_keys"], 1);
    shell.ok("bob", &["listen", "--once"]).await;
    shell.ok("bob", &["room", "join", &room]).await;
    let read = shell.ok("bob", &["listen", "--once"]).await;
    assert!(
        read.contains("the eagle lands at noon") && read.contains("gave 1 room keys"),
        "{read}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dehydrated_device_is_made_shown_and_deleted() {
    let shell = Shell::new().await;
    let (_, file) = with_identity(&shell).await;
    let make = ["--json", "identity", "dehydrate", "--recovery-key-file", &file];
    let wrong = ["--json", "identity", "dehydrate", "--recovery-key-file", "-"];
    let (code, exit) = refused(&shell.run_with("alice", &wrong, "EsTc 1234\n").await);
    assert_eq!((code.as_str(), exit), ("wrong_recovery_key", Some(3)));
    let made = json(&shell.run("alice", &make).await);
    let status = json(&shell.run("alice", &["--json", "identity", "status"]).await);
    assert_eq!(status["dehydrated_device"]["device_id"], made["device_id"]);
    assert_eq!(status["dehydrated_device"]["enabled"], true);
    let words = shell.ok("alice", &["identity", "status"]).await;
    assert!(words.contains("replaced by this device every week"), "{words}");
    // Who recovers the identity opens it, and makes another one.
    shell.new_device("alice", "second").await;
    let recover = ["--json", "identity", "recover", "--recovery-key-file", &file];
    let shown = json(&shell.run("second", &recover).await);
    assert_eq!(shown["rehydrated"]["device_id"], made["device_id"]);
    let delete = ["--json", "identity", "dehydrate", "--delete"];
    let gone = json(&shell.run("second", &delete).await);
    assert_eq!(gone["deleted"], shown["rehydrated"]["new_device_id"]);
    let (code, exit) = refused(&shell.run("second", &delete).await);
    assert_eq!((code.as_str(), exit), ("no_dehydrated_device", Some(3)));
}
