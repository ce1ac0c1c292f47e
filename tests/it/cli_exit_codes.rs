//! How `mx` ends: each exit code that the help names, files that cannot be read, and what is not meant like that.

use std::{collections::BTreeSet, process::Output};

use crate::{cli::Shell, terminal::Terminal};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The codes that the help lists, which the manual page repeats.
fn documented(help: &str) -> BTreeSet<i32> {
    let (_, listed) = help.split_once("Exit codes:\n").unwrap();
    let numbers = listed.lines().filter_map(|line| line.trim().split_once("  "));
    numbers.filter_map(|(number, _)| number.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_of_the_help_is_one_that_mx_ends_with() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let uri = shell.listening.uri();
    let wrong = shell.data.path().join("wrong");
    std::fs::write(&wrong, "another passphrase\n").unwrap();
    let wrong = format!("passphrase-file:{}", wrong.display());
    shell
        .ok("bob", &["room", "policy", &room, "--allow", "@carol:localhost"])
        .await;
    let cases: [(&str, &[&str], i32); 14] = [
        ("alice", &["whoami"], 0),
        ("alice", &["undecryptable", "explain", "$nothing"], 1),
        ("alice", &["send"], 2),
        ("nobody", &["whoami"], 3),
        (
            "nobody",
            &["login", "--homeserver", "http://127.0.0.1:9", "--user", "x"],
            4,
        ),
        ("bob", &["send", &room, "x"], 5),
        ("alice", &["send", "!nowhere:localhost", "x"], 6),
        ("alice", &["--store-key", &wrong, "keys", "status"], 7),
        ("alice", &["send", &room, "--content", r#"{"a":1.5}"#], 8),
        (
            "alice",
            &["keys", "import", "/nowhere/keys", "--passphrase-file", "-"],
            10,
        ),
        ("alice", &["verify", "user", "@bob:localhost", "--device", "NONE"], 11),
        ("alice", &["doctor", "--no-rooms"], 12),
        ("nobody", &["doctor"], 13),
        ("alice", &["listen", "--once", "--exec", "false"], 14),
    ];
    shell.ok("bob", &["room", "policy", &room, "--reset"]).await;
    shell.ok("bob", &["send", &room, "for the command"]).await;
    shell
        .ok("bob", &["room", "policy", &room, "--allow", "@carol:localhost"])
        .await;
    let mut seen = BTreeSet::new();
    for (profile, arguments, code) in cases {
        let output = shell.run(profile, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        seen.insert(code);
    }
    let login = ["login", "--homeserver", &uri, "--user", "x"];
    let mut terminal: Terminal = shell.sit_at("nobody", &login);
    terminal.asks_in_secret("password of x: ");
    terminal.presses("\u{3}");
    assert_eq!(terminal.end().0, Some(9));
    seen.insert(9);
    assert_eq!(seen, documented(&shell.ok("alice", &["--help"]).await));
}

/// Every option that names a file to read.
fn reading<'a>(file: &'a str, room: &'a str, uri: &'a str, new: &'a str, pass: &'a str) -> Vec<Vec<&'a str>> {
    let login = ["login", "--homeserver", uri, "--user", "@x:localhost"];
    let secret = ["--passphrase-file", file];
    let token = ["--homeserver", uri, "--token-file", file];
    vec![
        [&login[..], &["--password-file", file]].concat(),
        [&login[..], &["--token-file", file]].concat(),
        [&login[..], &["--login-token-file", file]].concat(),
        [&login[..], &["--appservice", file]].concat(),
        [&["keys", "export", new][..], &secret].concat(),
        vec!["keys", "import", file, "--passphrase-file", pass],
        [&["store", "export", new][..], &secret].concat(),
        vec!["store", "import", file, "--passphrase-file", pass],
        vec!["identity", "setup", "--password-file", file],
        vec!["identity", "setup", "--passphrase-file", file],
        vec!["identity", "recover", "--recovery-key-file", file],
        vec!["identity", "dehydrate", "--recovery-key-file", file],
        [&["identity", "bundle", "export", new][..], &secret].concat(),
        vec!["identity", "bundle", "import", file, "--passphrase-file", pass],
        vec!["trust-manifest", "check", file],
        vec!["trust-manifest", "apply", file],
        vec!["verify", "listen", "--policy", file],
        vec!["send", room, "--file", file],
        vec!["send", room, "--file", pass, "--thumbnail", file],
        vec!["import", "mx-client", file],
        [&["import", "nio", file][..], &token[..2], &["--token-file", pass]].concat(),
        [&["import", "nio", pass][..], &token].concat(),
        [
            &["import", "matrix-sdk", file][..],
            &token[..2],
            &["--token-file", pass],
        ]
        .concat(),
        [&["import", "matrix-sdk", new][..], &token].concat(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_told_from_everything_else() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let uri = shell.listening.uri();
    let path = |name: &str| shell.data.path().join(name).display().to_string();
    let (missing, new, pass) = (path("missing"), path("new"), path("pass"));
    std::fs::write(&pass, "horse\n").unwrap();
    for arguments in reading(&missing, &room, &uri, &new, &pass) {
        // Devices of others come into profiles of their own.
        let is_new = matches!(arguments[..], ["import" | "login", ..] | ["store", "import", ..]);
        let profile = if is_new { "fresh" } else { "alice" };
        let output = shell.run(profile, &arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(10), "{arguments:?}: {said}");
        assert!(
            output.stdout.is_empty() && said.contains(&missing),
            "{arguments:?}: {said}"
        );
    }
    let key = format!("passphrase-file:{missing}");
    let output = shell.run("alice", &["--store-key", &key, "keys", "status"]).await;
    assert_eq!(output.status.code(), Some(10), "{}", said(&output));
    // A directory is none, and neither is one that says nothing where a secret is wanted.
    let (directory, empty) = (path("alice"), path("empty"));
    std::fs::write(&empty, "\n").unwrap();
    for file in [&directory, &empty] {
        for arguments in [
            &["login", "--homeserver", &uri, "--user", "x", "--password-file", file][..],
            &["keys", "export", &new, "--passphrase-file", file],
            &["identity", "recover", "--recovery-key-file", file],
        ] {
            let profile = if arguments[0] == "login" { "fresh" } else { "alice" };
            let output = shell.run(profile, arguments).await;
            assert_eq!(output.status.code(), Some(10), "{arguments:?}: {}", said(&output));
        }
    }
    assert!(!shell.data.path().join("new").exists() && !shell.data.path().join("fresh").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_file_and_is_not_what_is_wanted_is_wrong_usage_or_wrong_content() {
    let shell = Shell::new().await;
    let room = shell.pair().await;
    let uri = shell.listening.uri();
    let file = shell.data.path().join("file");
    std::fs::write(&file, "{\"neither\": \"this\",\n \"nor\": [\"that\"\n").unwrap();
    let file = file.to_str().unwrap();
    let login = [
        "login",
        "--homeserver",
        &uri,
        "--user",
        "@x:localhost",
        "--appservice",
        file,
    ];
    let cases: [(&[&str], i32); 7] = [
        (&["verify", "listen", "--policy", file], 2),
        (&["trust-manifest", "check", file], 2),
        (&["trust-manifest", "apply", file], 2),
        (&login, 2),
        (&["send", &room, "--content", "no JSON"], 2),
        (&["keys", "import", file, "--passphrase-file", file], 8),
        (&["identity", "bundle", "import", file, "--passphrase-file", file], 8),
    ];
    for (arguments, code) in cases {
        let profile = if arguments[0] == "login" { "fresh" } else { "alice" };
        let output = shell.run(profile, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_be_meant_is_wrong_usage_where_it_is_not_said() {
    let shell = Shell::new().await;
    shell.pair().await;
    let uri = shell.listening.uri();
    let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let file = shell.data.path().join("registration.yaml");
    let file = file.to_str().unwrap();
    let new = [
        "appservice",
        "new",
        "--id",
        "bots",
        "--server",
        "no name",
        "--prefix",
        "bot",
        file,
    ];
    for (arguments, words) in [
        (&["identity", "reset"][..], "--yes"),
        (&["backup", "delete"], "--yes"),
        (&["trust-manifest", "check"], "name a file"),
        (&new, "like example.org"),
    ] {
        let output = shell.run("alice", arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words) && said.contains("[configuration]"), "{said}");
    }
    // Whose key it would be is not clear there.
    let expected = shell.run("alice", &["verify", "listen", "--expect", key]).await;
    assert_eq!(expected.status.code(), Some(2), "{}", said(&expected));
    assert!(said(&expected).contains("unexpected argument"));
    let nobody = shell.run("fresh", &["login", "--homeserver", &uri]).await;
    assert_eq!(nobody.status.code(), Some(2), "{}", said(&nobody));
    assert!(said(&nobody).contains("--user"));
}
