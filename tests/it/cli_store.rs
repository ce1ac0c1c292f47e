//! `mx store`, `mx undecryptable`, completions and manual pages, as processes.

use serde_json::Value;

use crate::cli::Shell;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_verified_compacted_and_given_another_key_and_the_login_goes_on() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let verified: Value = serde_json::from_str(&shell.ok("alice", &["--json", "store", "verify"]).await).unwrap();
    assert_eq!((&verified["damaged"], &verified["schema"]), (&0.into(), &2.into()));
    assert!(verified["records"].as_u64().unwrap() > 10, "{verified}");
    let key = shell.data.path().join("alice/pickle.key");
    let before = std::fs::read(&key).unwrap();
    let said = shell.ok("alice", &["store", "rekey"]).await;
    assert!(
        said.contains("@alice:localhost") && said.contains("another key"),
        "{said}"
    );
    let after = std::fs::read(&key).unwrap();
    assert_ne!(before, after);
    // The store and the tokens beside it, both.
    shell.ok("alice", &["send", &room, "with another key"]).await;
    assert!(
        shell
            .ok("bob", &["listen", "--once"])
            .await
            .ends_with("with another key")
    );
    std::fs::write(&key, before).unwrap();
    let refused = shell.run("alice", &["store", "verify"]).await;
    assert_eq!(refused.status.code(), Some(7), "the former key opens nothing");
    std::fs::write(&key, after).unwrap();
    let sizes: Value = serde_json::from_str(&shell.ok("alice", &["--json", "store", "compact"]).await).unwrap();
    assert!(sizes["after_bytes"].as_u64().unwrap() > 0, "{sizes}");
    shell.ok("alice", &["logout"]).await;
    assert_eq!(shell.run("alice", &["store", "rekey"]).await.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_moves_to_another_machine_and_to_another_disk() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let (file, pass) = (shell.data.path().join("device.mx"), shell.data.path().join("pass"));
    let (file, pass) = (file.to_str().unwrap(), pass.to_str().unwrap());
    std::fs::write(pass, "correct horse\n").unwrap();
    let device = shell.ok("bob", &["whoami"]).await;
    let export = ["--json", "store", "export", file, "--passphrase-file", pass];
    let import = ["store", "import", file, "--passphrase-file", pass];
    let moved: Value = serde_json::from_str(&shell.ok("bob", &export).await).unwrap();
    assert_eq!(moved["moved_to"], file);
    for command in [
        &["whoami"][..],
        &["listen", "--once"],
        &["send", &room, "x"],
        &["logout"],
    ] {
        let refused = shell.run("bob", command).await;
        assert_eq!(refused.status.code(), Some(3), "{command:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("[device_moved]"),
            "{command:?}"
        );
    }
    // As it is for whoever was killed before the last step: the same command ends the move.
    let login = shell.data.path().join("bob/session.json");
    let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&login).unwrap()).unwrap();
    text["moved"] = serde_json::json!({"leaving": {"to": file}});
    text["sealed_tokens"] = "AAAA".into();
    std::fs::write(&login, text.to_string()).unwrap();
    let moved: Value = serde_json::from_str(&shell.ok("bob", &export).await).unwrap();
    assert_eq!(moved["moved_to"], file);
    let again = shell.run("bob", &export).await;
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("file_exists"),
        "{again:?}"
    );
    std::fs::write(pass, "wrong\n").unwrap();
    assert_eq!(shell.run("bobs-new-machine", &import).await.status.code(), Some(7));
    std::fs::write(pass, "correct horse\n").unwrap();
    shell.ok("bobs-new-machine", &import).await;
    assert_eq!(shell.ok("bobs-new-machine", &["whoami"]).await, device);
    shell.ok("alice", &["send", &room, "welcome"]).await;
    assert!(
        shell
            .ok("bobs-new-machine", &["listen", "--once"])
            .await
            .ends_with("welcome")
    );
    // The rest here is destroyed, and the device is not.
    shell.ok("bob", &["logout", "--wipe"]).await;
    let elsewhere = shell.data.path().join("elsewhere");
    shell
        .ok("bobs-new-machine", &["store", "copy", elsewhere.to_str().unwrap()])
        .await;
    assert_eq!(shell.run("bobs-new-machine", &["whoami"]).await.status.code(), Some(3));
    assert_eq!(shell.ok("elsewhere", &["whoami"]).await, device);
    shell.ok("elsewhere", &["send", &room, "back"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_store_comes_from_where_it_is_said_to() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let path = |name: &str| shell.data.path().join(name);
    std::fs::create_dir(path("credentials")).unwrap();
    for (name, bytes) in [("credentials/store.key", [7; 32]), ("own.key", [8; 32])] {
        std::fs::write(path(name), bytes).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::write(path("pass"), "correct horse battery\n").unwrap();
    let run = async |source: Option<&str>, arguments: &[&str]| {
        let mut command = shell.command("alice", arguments);
        command.env("CREDENTIALS_DIRECTORY", path("credentials"));
        if let Some(source) = source {
            command.env("MX_STORE_KEY", source);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let credential = "credential:store.key";
    let pass = format!("passphrase-file:{}", path("pass").display());
    assert_eq!(run(None, &["store", "rekey", "--to", credential]).await.0, Some(0));
    assert_eq!(
        run(None, &["send", &room, "x"]).await.0,
        Some(7),
        "its old key opens nothing"
    );
    assert_eq!(run(Some(credential), &["send", &room, "one"]).await.0, Some(0));
    assert_eq!(
        run(Some(credential), &["store", "rekey", "--to", &pass]).await.0,
        Some(0)
    );
    assert_eq!(run(Some(&pass), &["send", &room, "two"]).await.0, Some(0));
    let (code, said) = run(Some(credential), &["send", &room, "x"]).await;
    assert_eq!(code, Some(7), "{said}");
    let (code, said) = run(Some("secret"), &["send", &room, "x"]).await;
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = run(Some(&pass), &["store", "rekey"]).await;
    assert_eq!(code, Some(2), "which one is next has to be said: {said}");
    let read = shell.ok("bob", &["listen", "--once"]).await;
    assert!(read.contains("one") && read.ends_with("two"), "{read}");
    assert_eq!(
        run(Some(&pass), &["logout"]).await.0,
        Some(0),
        "the tokens open with it, too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_explained_and_tried_again() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    shell.ok("bob", &["listen", "--once"]).await;
    crate::edits::hold_keys_back(&shell.server);
    let event = shell.ok("alice", &["send", &room, "later"]).await;
    assert_eq!(shell.ok("bob", &["listen", "--once"]).await, "");
    shell.server.behave();
    let listed = shell.ok("bob", &["undecryptable", "list"]).await;
    assert_eq!(listed, shell.ok("bob", &["waiting"]).await, "under its older name");
    assert_eq!(listed, shell.ok("bob", &["undecryptable", "explain", &event]).await);
    let retried: Value = serde_json::from_str(&shell.ok("bob", &["--json", "undecryptable", "retry"]).await).unwrap();
    assert_eq!((&retried["read"], &retried["waiting"]), (&0.into(), &1.into()));
    let other = shell.run("bob", &["undecryptable", "explain", "$nothing"]).await;
    assert_eq!(other.status.code(), Some(1));
    // No backup is no trouble; one that does not answer is.
    shell.ok("bob", &["identity", "setup"]).await;
    let retried: Value = serde_json::from_str(&shell.ok("bob", &["--json", "undecryptable", "retry"]).await).unwrap();
    assert_eq!((&retried["read"], &retried["waiting"]), (&0.into(), &1.into()));
    shell
        .server
        .fault(mx_test_homeserver::Fault::status("/room_keys/keys/", 403, "{}").for_ever());
    let failed = shell.run("bob", &["undecryptable", "retry"]).await;
    assert_ne!(failed.status.code(), Some(0), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_manual_pages_come_from_what_can_be_typed() {
    let shell = Shell::new().await;
    for (name, says) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef mx"),
        ("fish", "complete -c mx"),
    ] {
        let script = shell.ok("alice", &["completions", name]).await;
        assert!(script.contains(says) && script.contains("undecryptable"), "{name}");
    }
    let pages = shell.data.path().join("man1");
    let said = shell.ok("alice", &["man", pages.to_str().unwrap()]).await;
    assert!(said.contains("page(s)"), "{said}");
    let page = std::fs::read_to_string(pages.join("mx.1")).unwrap();
    assert!(page.contains(".TH mx 1") && page.contains("Exit codes"), "{page}");
    assert!(pages.join("mx-room-show.1").exists());
    // A reader that goes away at once is a success.
    let mut command = shell.command("alice", &["completions", "bash"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_coloured_where_no_terminal_is() {
    let shell = Shell::new().await;
    shell.pair().await;
    for arguments in [&["-vv", "room", "list"][..], &["--help"], &["doctor"]] {
        let output = shell.run("alice", arguments).await;
        let said = [output.stdout, output.stderr].concat();
        assert!(
            !said.is_empty() && !said.contains(&0x1b),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_copy_ran_sends_go_on_when_that_is_acknowledged() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let acknowledge = ["--json", "store", "acknowledge"];
    let nothing: Value = serde_json::from_str(&shell.ok("alice", &acknowledge).await).unwrap();
    assert_eq!(nothing["acknowledged"], serde_json::json!([]));
    shell.ok("alice", &["send", &room, "one"]).await;
    let (original, copy) = (shell.data.path().join("alice"), shell.data.path().join("copy"));
    crate::rollback::copy_all(&original, &copy);
    shell.ok("alice", &["send", &room, "two"]).await;
    let refused = shell.run("copy", &["--json", "send", &room, "three"]).await;
    assert!(String::from_utf8(refused.stderr).unwrap().contains("store_set_back"));
    let noticed: Value = serde_json::from_str(&shell.ok("copy", &acknowledge).await).unwrap();
    assert_eq!(noticed["acknowledged"], serde_json::json!(["store_set_back"]));
    shell.ok("copy", &["send", &room, "three"]).await;
    assert!(shell.ok("bob", &["listen", "--once"]).await.ends_with("three"));
}
