//! `mx import`.

use anyhow::Result;
use mx_e2ee::{ImportLogin, ImportedDevice};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    login,
    secret::{first_line, typed},
};
use crate::{
    cli::{Cli, ImportCommand, ImportedLogin},
    output::{Output, clean},
    profile,
};

/// What nio seals with where it is given nothing.
const NIO_KEY: &str = "DEFAULT_KEY";

pub(crate) async fn run(cli: &Cli, command: &ImportCommand, output: Output) -> Result<()> {
    let imported = imported(cli, command).await?;
    let session = &imported.session;
    let json = json!({
        "user_id": session.user_id,
        "device_id": session.device_id,
        "homeserver": session.homeserver,
        "ed25519": imported.ed25519,
        "olm_sessions": imported.olm_sessions,
        "room_keys": imported.room_keys,
        "room_keys_of_unknown_devices": imported.room_keys_of_unknown_devices,
        "room_keys_left_out": imported.room_keys_left_out,
    });
    let line = format!(
        "{} device {} fingerprint {}",
        session.user_id,
        clean(session.device_id.as_str()),
        imported.ed25519
    );
    output.show(&json, &line)?;
    output.note(&format!(
        "taken over with {} sessions and {} room keys{}; the old client must never run again: two that use one device lose \
         messages of both",
        imported.olm_sessions,
        imported.room_keys,
        match imported.room_keys_of_unknown_devices {
            0 => String::new(),
            unknown => format!(" ({unknown} of them prove nobody's, and are marked as imported)"),
        }
    ));
    if imported.room_keys_left_out > 0 {
        output.note(&format!(
            "{} room keys were under the name of another one, or for no room, and are left out",
            imported.room_keys_left_out
        ));
    }
    Ok(())
}

async fn imported(cli: &Cli, command: &ImportCommand) -> Result<ImportedDevice> {
    let builder = profile::builder(cli)?;
    Ok(match command {
        ImportCommand::MxClient {
            from,
            config,
            without_unreachable,
        } => {
            let config = config.clone().unwrap_or_else(|| from.join("matrix.json"));
            let builder = builder.without_unreachable(*without_unreachable);
            builder.import_mx_client(from, config).await?
        }
        ImportCommand::Nio {
            database,
            login,
            pickle_key_file,
        } => {
            let key = match pickle_key_file {
                Some(file) => first_line(file)?,
                None => Zeroizing::new(NIO_KEY.to_owned()),
            };
            builder.import_nio(database, &key, login_of(login).await?).await?
        }
        ImportCommand::MatrixSdk {
            from,
            login,
            passphrase_file,
        } => {
            let passphrase = passphrase_file.as_ref().map(|file| first_line(file)).transpose()?;
            let passphrase = passphrase.as_ref().map(|passphrase| passphrase.as_str());
            let login = login_of(login).await?;
            builder.import_matrix_sdk(from, passphrase, login).await?
        }
    })
}

async fn login_of(login: &ImportedLogin) -> Result<ImportLogin> {
    let token = match (&login.token_file, std::env::var("MX_TOKEN")) {
        (Some(file), _) => login::first_line(file)?,
        (None, Ok(token)) => token,
        (None, Err(_)) => {
            let instead = "set MX_TOKEN or use --token-file";
            let mut typed = typed("access token: ", "the access token", instead).await?;
            std::mem::take(&mut *typed)
        }
    };
    Ok(ImportLogin::new(&login.homeserver, &Zeroizing::new(token))?)
}
