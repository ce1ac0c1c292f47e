//! `mx` and application services: a registration is made, given to the homeserver, and bots of it log in.

use std::fs;

use mx_e2ee::transport::AppServiceRegistration;
use serde_json::Value;

use crate::cli::Shell;

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_written_once_and_its_bots_log_in() {
    let shell = Shell::new().await;
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("registration.yaml");
    let path = file.to_str().unwrap();
    let new = [
        "appservice",
        "new",
        "--id",
        "fleet",
        "--server",
        "localhost",
        "--prefix",
        "bot_",
        path,
    ];
    let made = shell.ok("nobody", &[&["--json"], &new[..]].concat()).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["users"], r"@bot_.*:localhost");
    let registration: AppServiceRegistration = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let token = registration.as_token().unwrap();
    assert!(!made.to_string().contains(token.expose()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = shell.run("nobody", &new).await;
    assert!(!again.status.success(), "another one would end the first");
    let kept: AppServiceRegistration = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept.as_token().unwrap().expose(), token.expose());

    shell
        .server
        .add_appservice(token.expose(), &registration.sender_localpart, "bot_");
    let login = [
        "login",
        "--homeserver",
        &shell.listening.uri(),
        "--appservice",
        path,
        "--user",
    ];
    shell.ok("one", &[&login[..], &["@bot_one:localhost"]].concat()).await;
    assert!(
        shell
            .ok("one", &["whoami"])
            .await
            .starts_with("@bot_one:localhost device ")
    );
    let other = shell.run("two", &[&login[..], &["@alice:localhost"]].concat()).await;
    assert!(!other.status.success(), "alice is not of its namespace");
}
