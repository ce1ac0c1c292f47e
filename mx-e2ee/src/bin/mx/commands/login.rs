//! `mx login`, `mx logout`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mx_e2ee::{Client, ClientBuilder};
use serde_json::json;

use crate::{
    cli::{Cli, Login, Logout},
    output::Output,
    profile,
};

pub(crate) async fn login(cli: &Cli, login: &Login, output: Output) -> Result<()> {
    let directory = profile::directory(cli)?;
    let builder = Client::builder()
        .homeserver(&login.homeserver)
        .directory(&directory)
        .device_name(&login.device_name);
    let client = match (&login.token_file, &login.user) {
        (Some(file), _) => {
            let token = first_line(file)?;
            let progress = output.progress("logging in and publishing keys");
            let client = builder.login_with_token(&token).await?;
            progress.finish_and_clear();
            client
        }
        (None, Some(user)) => {
            let password = password(login, user)?;
            let progress = output.progress("logging in and publishing keys");
            let client = builder.login(user, &password).await?;
            progress.finish_and_clear();
            client
        }
        (None, None) => bail!("who is to log in? Use --user"),
    };
    let keys = client.key_status().await?;
    client.close().await?;
    output.note(&format!("keys and store are kept in {}", directory.display()));
    let json = json!({"user_id": keys.user_id, "device_id": keys.device_id, "fingerprint": keys.ed25519});
    output.show(
        &json,
        &format!(
            "{} device {} fingerprint {}",
            keys.user_id, keys.device_id, keys.ed25519
        ),
    )?;
    Ok(())
}

fn password(login: &Login, user: &str) -> Result<String> {
    if let Some(file) = &login.password_file {
        return first_line(file);
    }
    match std::env::var("MX_PASSWORD") {
        Ok(password) => Ok(password),
        Err(_) => rpassword::prompt_password(format!("password of {user}: "))
            .context("there is no terminal to ask for the password: set MX_PASSWORD or use --password-file"),
    }
}

fn first_line(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    text.lines()
        .next()
        .map(|line| line.trim().to_owned())
        .with_context(|| format!("{} is empty", file.display()))
}

pub(crate) async fn logout(cli: &Cli, logout: &Logout, output: Output) -> Result<()> {
    let directory = profile::directory(cli)?;
    let builder = Client::builder().directory(&directory);
    if logout.wipe {
        return wipe(builder, output).await;
    }
    let session = builder.logout().await?;
    output.note(&format!(
        "its store was put aside into {}",
        directory.join("logged-out").display()
    ));
    let line = format!("{} device {} is logged out", session.user_id, session.device_id);
    output.show(
        &json!({"user_id": session.user_id, "logged_out": session.device_id, "wiped": false}),
        &line,
    )?;
    Ok(())
}

async fn wipe(builder: ClientBuilder, output: Output) -> Result<()> {
    let (json, line) = match builder.logout_and_wipe().await? {
        Some(session) => (
            json!({"user_id": session.user_id, "logged_out": session.device_id, "wiped": true}),
            format!(
                "{} device {} is logged out, and its key and store are destroyed",
                session.user_id, session.device_id
            ),
        ),
        None => (
            json!({"user_id": null, "logged_out": null, "wiped": true}),
            "there was no login, and what earlier logouts put aside is destroyed".to_owned(),
        ),
    };
    Ok(output.show(&json, &line)?)
}
