//! `mx keys`.

use anyhow::{Context, Result};
use mx_e2ee::write_private_file;
use serde_json::json;

use super::secret;
use crate::{
    cli::{Cli, ExportKeys, ImportKeys, KeysCommand},
    output::Output,
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &KeysCommand, output: Output) -> Result<()> {
    match command {
        KeysCommand::Status => show(cli, false, output).await,
        KeysCommand::Publish => show(cli, true, output).await,
        KeysCommand::Export(options) => export(cli, options, output).await,
        KeysCommand::Import(options) => import(cli, options, output).await,
    }
}

async fn show(cli: &Cli, publish: bool, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    if publish {
        client.sync().await?;
        client.publish_keys().await?;
    }
    let keys = client.key_status().await?;
    client.close().await?;
    let published = if keys.published {
        "published"
    } else {
        "NOT published: run mx keys publish"
    };
    let lines = format!(
        "user           {}\ndevice         {} ({published})\nfingerprint    {}\ncurve25519     {}\none-time keys  {} on the homeserver",
        keys.user_id, keys.device_id, keys.ed25519, keys.curve25519, keys.one_time_keys
    );
    output.show(&json!(keys), &lines)?;
    Ok(())
}

async fn export(cli: &Cli, options: &ExportKeys, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    // Before anybody thinks of a passphrase.
    if !options.force && options.file.exists() {
        let path = options.file.clone();
        return Err(mx_e2ee::Error::FileExists { path }.into());
    }
    let mut rooms = Vec::new();
    for room in &options.room {
        rooms.push(client.resolve(room).await?);
    }
    let passphrase = secret::new_passphrase(&options.passphrase, "passphrase for the key file").await?;
    let progress = output.progress("exporting room keys");
    let rooms = (!rooms.is_empty()).then_some(rooms.as_slice());
    let file = client.export_room_keys(&passphrase, rooms).await?;
    client.close().await?;
    write_private_file(&options.file, file.text.as_bytes(), options.force)?;
    progress.finish_and_clear();
    let shown = options.file.display().to_string();
    output.show(
        &json!({"file": shown, "room_keys": file.room_keys}),
        &format!("{} room key(s) in {shown}", file.room_keys),
    )?;
    Ok(())
}

async fn import(cli: &Cli, options: &ImportKeys, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let text = secret::text_of(&options.file).context("no key file could be read")?;
    let passphrase = secret::passphrase(&options.passphrase, "passphrase of the key file").await?;
    let progress = output.progress("importing room keys");
    let taken = client.import_room_keys(&text, &passphrase).await?;
    client.close().await?;
    progress.finish_and_clear();
    let line = format!(
        "{} of {} room key(s) are new here, {} cannot be used",
        taken.imported, taken.total, taken.unusable
    );
    output.show(&json!(taken), &line)?;
    if taken.retried > 0 {
        output.note(&format!(
            "{} event(s) waited for them: mx listen prints them",
            taken.retried
        ));
    }
    Ok(())
}
