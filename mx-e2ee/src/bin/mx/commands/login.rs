//! `mx login`, `mx logout`.

use std::{
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use anyhow::{Result, bail};
use mx_e2ee::{
    Client, ClientBuilder, Error, Session, SsoListener,
    ruma::OwnedUserId,
    transport::{ClientRegistration, DeviceAuthorization},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    appservice,
    secret::{empty, text_of, typed},
};
use crate::{
    cli::{Cli, Login, Logout},
    output::{Output, clean},
    profile,
};

/// How long a person may take on the page of single sign-on.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

pub(crate) async fn login(cli: &Cli, login: &Login, output: Output) -> Result<()> {
    let directory = profile::directory(cli)?;
    let mut builder = profile::bare_builder(cli)?
        .device_name(&login.device_name)
        .follow_redirects(login.follow_redirects);
    let of_user = login.user.as_deref().filter(|user| user.starts_with('@'));
    let Some(given) = login.homeserver.as_deref().or(of_user) else {
        bail!(Error::Configuration {
            what: "which homeserver? Use --homeserver, or a whole user id (@mybot:example.org)".to_owned()
        });
    };
    let found = builder.homeserver(given);
    let at = found.discover().await?;
    if let (Some(name), Some(page)) = (&at.server_name, &at.said_by) {
        output.note(&clean(&format!(
            "{name} has its homeserver at {} (says {page})",
            at.base_url
        )));
    }
    builder = found.homeserver(&at.base_url);
    if login.kind.offered {
        return offered(&builder, output).await;
    }
    let client = log_in(builder, login, output).await?;
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

async fn offered(builder: &ClientBuilder, output: Output) -> Result<()> {
    let kinds = builder.login_kinds().await?;
    let json = json!({
        "password": kinds.password, "token": kinds.token, "sso": kinds.sso, "device_code": kinds.device_code,
        "names": kinds.names,
    });
    output.show(&json, &clean(&kinds.names.join(" ")))?;
    Ok(())
}

async fn log_in(builder: ClientBuilder, login: &Login, output: Output) -> Result<Client> {
    let begun = || output.progress("logging in and publishing keys");
    let kind = &login.kind;
    let (client, progress) = if let Some(file) = &kind.token_file {
        let token = first_line(file)?;
        let progress = begun();
        (builder.login_with_token(&token).await, progress)
    } else if let Some(file) = &kind.login_token_file {
        let token = first_line(file)?;
        let progress = begun();
        (builder.login_with_login_token(&token).await, progress)
    } else if kind.sso {
        let token = single_sign_on(&builder, output).await?;
        let progress = begun();
        (builder.login_with_login_token(&token).await, progress)
    } else if kind.oauth {
        let progress = output.progress("waiting until the code is typed");
        let registration = ClientRegistration::default();
        (
            builder
                .login_with_oauth(registration, |code| show_code(code, output))
                .await,
            progress,
        )
    } else if let Some(file) = &kind.appservice {
        let token = appservice::token(file)?;
        let user = OwnedUserId::try_from(login.user.as_deref().unwrap_or_default()).map_err(|_| Error::InvalidId {
            given: login.user.clone().unwrap_or_default(),
            wanted: "a whole user id (@bot:example.org)",
        })?;
        let progress = begun();
        (builder.login_as_service(&token, user).await, progress)
    } else {
        let Some(user) = &login.user else {
            bail!(Error::Configuration {
                what: "who is to log in? Use --user".to_owned()
            });
        };
        let password = password(login, user).await?;
        let progress = begun();
        (builder.login(user, &password).await, progress)
    };
    progress.finish_and_clear();
    Ok(client?)
}

/// Where and what a person types.
fn show_code(code: &DeviceAuthorization, output: Output) {
    output.note(&clean(&format!(
        "open {} and type {}",
        code.verification_uri, code.user_code
    )));
    if let Some(complete) = &code.verification_uri_complete {
        output.note(&clean(&format!("or open {complete}")));
    }
    output.note(&format!(
        "the code is valid for {} minutes",
        code.left().as_secs().div_ceil(60)
    ));
}

/// A browser of this machine comes back by itself; one of another machine shows an address that cannot be opened there, which
/// holds the token, and which is pasted.
async fn single_sign_on(builder: &ClientBuilder, output: Output) -> Result<Zeroizing<String>> {
    let listener = SsoListener::start().await?;
    let page = builder.sso_page(listener.address()).await?;
    output.note(&format!("open {page}"));
    let interactive = io::stdin().is_terminal();
    if interactive {
        output
            .note("with a browser of another machine: paste the address that it cannot open in the end, or the token");
    }
    let pasted = async {
        if !interactive {
            return std::future::pending().await;
        }
        let line = typed("", "the token", "use --login-token-file").await?;
        pasted_token(&line).ok_or_else(|| {
            let what = "what was pasted holds no login token: paste the whole address that the browser ends at";
            Error::Configuration { what: what.to_owned() }.into()
        })
    };
    tokio::select! {
        token = listener.token(PATIENCE) => Ok(token?),
        token = pasted => token,
    }
}

/// The token in what was pasted: an address with it, or the token alone.
fn pasted_token(line: &str) -> Option<Zeroizing<String>> {
    let line = line.trim();
    let token = match url::Url::parse(line) {
        Ok(address) => address
            .query_pairs()
            .find(|(name, _)| name == "loginToken")?
            .1
            .into_owned(),
        Err(_) => line.to_owned(),
    };
    (!token.is_empty()).then(|| Zeroizing::new(token))
}

async fn password(login: &Login, user: &str) -> Result<String> {
    if let Some(file) = &login.kind.password_file {
        return first_line(file);
    }
    match std::env::var("MX_PASSWORD") {
        Ok(password) => Ok(password),
        Err(_) => {
            let question = format!("password of {user}: ");
            let instead = "set MX_PASSWORD or use --password-file";
            let mut typed = typed(&question, "the password", instead).await?;
            Ok(std::mem::take(&mut *typed))
        }
    }
}

pub(super) fn first_line(file: &Path) -> Result<String> {
    let text = text_of(file)?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
    Ok(line.ok_or_else(|| empty(file))?.to_owned())
}

pub(crate) async fn logout(cli: &Cli, logout: &Logout, output: Output) -> Result<()> {
    let directory = profile::directory(cli)?;
    let builder = profile::bare_builder(cli)?;
    let was_moved = Session::of(&directory).is_err_and(|error| error.code() == "device_moved");
    if logout.wipe {
        return wipe(builder, was_moved, output).await;
    }
    if logout.forget {
        let session = builder.forget().await?;
        if !was_moved {
            output.note("the device is still on the homeserver: delete it there, from another device of the user");
        }
        let line = format!("{} device {} is forgotten here", session.user_id, session.device_id);
        let json =
            json!({"user_id": session.user_id, "logged_out": null, "forgotten": session.device_id, "wiped": false});
        return Ok(output.show(&json, &line)?);
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

async fn wipe(builder: ClientBuilder, was_moved: bool, output: Output) -> Result<()> {
    let (json, line) = match builder.logout_and_wipe().await? {
        Some(session) if was_moved => (
            json!({"user_id": session.user_id, "logged_out": null, "wiped": true}),
            format!(
                "what {} device {} left here is destroyed; it goes on where it was moved to",
                session.user_id, session.device_id
            ),
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_an_address_or_a_token() {
        for (line, token) in [
            ("http://127.0.0.1:1/x?loginToken=a%2Bb\n", Some("a+b")),
            (" syl_abc ", Some("syl_abc")),
            ("http://127.0.0.1:1/x", None),
            ("", None),
        ] {
            assert_eq!(pasted_token(line).as_deref().map(String::as_str), token, "{line:?}");
        }
    }
}
