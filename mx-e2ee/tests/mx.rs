//! `mx` without a homeserver: usage, help, and what it says when there is no login.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

fn mx(arguments: &[&str]) -> Output {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mx"));
    command
        .arg("--directory")
        .arg(nowhere.path())
        .args(arguments)
        .env_remove("MX_PROFILE")
        .output()
        .unwrap()
}

#[test]
fn help_is_data_and_teaches() {
    let output = mx(&["--help"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for taught in ["First steps", "Exit codes", "--json", "MX_PROFILE"] {
        assert!(text.contains(taught), "{taught}");
    }
    let login = String::from_utf8(mx(&["login", "--help"]).stdout).unwrap();
    assert!(login.contains("MX_PASSWORD"));
}

#[test]
fn wrong_usage_is_told_from_no_login() {
    for (arguments, code) in [
        (&["send"][..], 2),
        (&["nonsense"], 2),
        (&[], 2),
        (&["whoami"], 3),
        (&["send", "!a:b", "x"], 3),
        (&["listen"], 3),
    ] {
        let output = mx(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: errors are no data");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_profile_cannot_leave_its_place() {
    for name in ["../other", "a/b", "", ".hidden"] {
        let output = Command::new(env!("CARGO_BIN_EXE_mx"))
            .args(["--profile", name, "whoami"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(
            String::from_utf8(output.stderr).unwrap().contains("a profile's name"),
            "{name:?}"
        );
    }
}
