//! What is on the disk, and what a process that died while it wrote leaves there.

use super::*;

fn session() -> Session {
    Session {
        homeserver: "https://hs.test".to_owned(),
        user_id: ruma::user_id!("@a:hs.test").to_owned(),
        device_id: "DEVICE".into(),
    }
}

fn tokens(number: u32) -> Tokens {
    let access = AccessToken::new(format!("access-{number}")).unwrap();
    let refresh = Some(RefreshToken::new(format!("refresh-{number}")));
    Tokens::lasting(access, refresh, Some(Duration::from_secs(300)))
}

fn access(directory: &Path) -> String {
    let (held, tokens) = load(directory).unwrap().unwrap();
    assert_eq!(held, session());
    tokens.access.expose().to_owned()
}

#[test]
fn a_login_is_what_was_kept_and_only_its_owners() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), &session(), &tokens(1)).unwrap();
    let (_, read) = load(here.path()).unwrap().unwrap();
    assert_eq!(read.refresh.unwrap().expose(), "refresh-1");
    let left = read.expires_at.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(
        left > Duration::from_secs(200) && left <= Duration::from_secs(300),
        "{left:?}"
    );
    #[cfg(unix)]
    {
        let metadata = fs::metadata(here.path().join(FILE)).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777,
            0o600
        );
    }
}

#[test]
fn a_login_of_before_there_were_refresh_tokens_still_opens() {
    let here = tempfile::tempdir().unwrap();
    let text =
        r#"{"homeserver":"https://hs.test","user_id":"@a:hs.test","device_id":"DEVICE","access_token":"access-0"}"#;
    let path = here.path().join(FILE);
    fs::write(&path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (_, read) = load(here.path()).unwrap().unwrap();
    assert!(read.refresh.is_none() && read.expires_at.is_none());
    assert_eq!(access(here.path()), "access-0");
    let plain = Tokens::from(AccessToken::new("access-0").unwrap());
    save(here.path(), &session(), &plain).unwrap();
    let written: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        written,
        serde_json::from_str::<serde_json::Value>(text).unwrap(),
        "and older versions open it"
    );
}

/// Between two operations of the write, all that a process that dies leaves is a staged file, whole or not.
#[test]
fn k23_a_write_that_was_not_ended_leaves_the_old_login_and_is_made_up_for() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), &session(), &tokens(1)).unwrap();
    let whole = fs::read(here.path().join(FILE)).unwrap();
    for staged in [&[][..], &whole[..40], &whole] {
        fs::write(here.path().join("session.json.new"), staged).unwrap();
        assert_eq!(access(here.path()), "access-1");
        save(here.path(), &session(), &tokens(2)).unwrap();
        assert_eq!(access(here.path()), "access-2");
        assert!(!here.path().join("session.json.new").exists());
        save(here.path(), &session(), &tokens(1)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_write_that_fails_leaves_the_old_login() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), &session(), &tokens(1)).unwrap();
    // It can be neither removed nor replaced.
    fs::create_dir(here.path().join("session.json.new")).unwrap();
    let error = save(here.path(), &session(), &tokens(2)).unwrap_err();
    assert_eq!(error.code(), "session_file");
    assert!(!format!("{error} {error:?}").contains("access"));
    assert_eq!(access(here.path()), "access-1");
}

#[test]
fn a_damaged_login_is_an_error_that_quotes_nothing() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), &session(), &tokens(1)).unwrap();
    let whole = fs::read_to_string(here.path().join(FILE)).unwrap();
    for damaged in [
        whole.replace("access-1", "access 1"),
        whole.replace("\"refresh-1\"", "[\"refresh-1\"]"),
        whole[..60].to_owned(),
    ] {
        fs::write(here.path().join(FILE), damaged).unwrap();
        let error = load(here.path()).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), "session_file");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("access") && !said.contains("refresh-1"), "{said}");
    }
}
