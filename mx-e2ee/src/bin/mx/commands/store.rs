//! `mx store`.

use std::path::Path;

use anyhow::Result;
use mx_e2ee::{
    ClientBuilder, Health, MovedDevice, Session,
    store::{KeySource, Passphrase, StoreError},
};
use serde_json::json;

use super::secret;
use crate::{
    cli::{Cli, ExportStore, ImportStore, StoreCommand},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &StoreCommand, output: Output) -> Result<()> {
    match command {
        StoreCommand::Verify => verify(cli, output).await,
        StoreCommand::Rekey { to } => {
            let to = to.as_ref().map(profile::key).transpose()?;
            let session = profile::bare_builder(cli)?.rekey(to).await?;
            let line = format!(
                "the store of {} device {} has another key",
                session.user_id, session.device_id
            );
            let json = json!({"user_id": session.user_id, "device_id": session.device_id, "rekeyed": true});
            Ok(output.show(&json, &line)?)
        }
        StoreCommand::Compact => compact(cli, output).await,
        StoreCommand::Acknowledge => acknowledge(cli, output).await,
        StoreCommand::Export(options) => export(cli, options, output).await,
        StoreCommand::Import(options) => import(cli, options, output).await,
        StoreCommand::Copy { to, again } => copy(cli, to, *again, output).await,
    }
}

async fn export(cli: &Cli, options: &ExportStore, output: Output) -> Result<()> {
    let file = &options.file;
    // Before anybody thinks of a passphrase; unless the device is on its way to it, which the same call ends.
    if file.exists() && !is_on_its_way(cli, file)? {
        return Err(mx_e2ee::Error::FileExists { path: file.clone() }.into());
    }
    let passphrase = secret::new_passphrase(&options.passphrase, "passphrase for the file").await?;
    let key = KeySource::Passphrase(Passphrase::new(passphrase.as_str()));
    let progress = output.progress("moving the device into the file");
    let moved = leaving(cli, async |builder| {
        if options.again {
            builder.move_out_again(file, &key).await
        } else {
            builder.move_out(file, &key).await
        }
    });
    let moved = Box::pin(moved).await;
    progress.finish_and_clear();
    show_moved(&moved?, file, output)?;
    output.note(&format!(
        "it does not run here any more: mx store import {} goes on with it, here or on another machine; then destroy \
         the file. mx logout --wipe destroys what is left here",
        file.display()
    ));
    Ok(())
}

/// Whether the device began to leave for this file, and lacks the last step.
fn is_on_its_way(cli: &Cli, file: &Path) -> Result<bool> {
    let Ok(absolute) = std::path::absolute(file) else {
        return Ok(false);
    };
    Ok(match Session::of(profile::directory(cli)?) {
        Err(mx_e2ee::Error::MoveUnfinished { to, .. }) => to == absolute.display().to_string(),
        _ => false,
    })
}

async fn acknowledge(cli: &Cli, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let problems = match client.health().await? {
        Health::Degraded { problems } => problems,
        _ => Vec::new(),
    };
    let is_of_a_copy = |code: &&str| matches!(*code, "store_set_back" | "one_time_key_conflict");
    let found: Vec<&str> = problems
        .iter()
        .map(|problem| problem.code)
        .filter(is_of_a_copy)
        .collect();
    client.orchestrator().acknowledge_rollback().await?;
    client.acknowledge_key_conflict().await?;
    client.close().await?;
    let line = match found.as_slice() {
        [] => "no copy of this store was noticed: there is nothing to acknowledge",
        _ => "sends go on, each room with a new key: make sure that the other copy never runs again",
    };
    Ok(output.show(&json!({"acknowledged": found}), line)?)
}

async fn import(cli: &Cli, options: &ImportStore, output: Output) -> Result<()> {
    let file = &options.file;
    if let Err(source) = std::fs::File::open(file) {
        let path = file.clone();
        return Err(mx_e2ee::Error::File { path, source }.into());
    }
    let passphrase = secret::passphrase(&options.passphrase, "passphrase of the file").await?;
    let key = KeySource::Passphrase(Passphrase::new(passphrase.as_str()));
    let progress = output.progress("taking the device out of the file");
    let moved = profile::bare_builder(cli)?.move_in(file, &key).await;
    progress.finish_and_clear();
    show_moved(&moved?, &profile::directory(cli)?, output)?;
    output.note(&format!(
        "it goes on here: destroy {}, which is this device for whoever has it and its passphrase",
        file.display()
    ));
    Ok(())
}

async fn copy(cli: &Cli, to: &Path, again: bool, output: Output) -> Result<()> {
    let progress = output.progress("copying the store");
    let moved = leaving(cli, async |builder| {
        if again {
            builder.move_to_again(to).await
        } else {
            builder.move_to(to).await
        }
    });
    let moved = Box::pin(moved).await;
    progress.finish_and_clear();
    show_moved(&moved?, to, output)?;
    output.note(&format!(
        "it goes on with --directory {}, and not here: mx logout --wipe destroys what is left here",
        to.display()
    ));
    Ok(())
}

/// Move the device. Events that wait to be sent are sent before.
async fn leaving(cli: &Cli, way: impl AsyncFn(ClientBuilder) -> mx_e2ee::Result<MovedDevice>) -> Result<MovedDevice> {
    match way(profile::bare_builder(cli)?).await {
        Err(error) if error.code() == "unsent_events" => {}
        moved => return Ok(moved?),
    }
    let client = profile::open(cli).await?;
    let sent = client.orchestrator().flush_outbox().await;
    client.close().await?;
    sent.map_err(mx_e2ee::Error::from)?;
    Ok(way(profile::bare_builder(cli)?).await?)
}

fn show_moved(moved: &MovedDevice, to: &Path, output: Output) -> Result<()> {
    let session = &moved.session;
    let to = to.display().to_string();
    let json = json!({
        "user_id": session.user_id, "device_id": session.device_id, "homeserver": session.homeserver,
        "records": moved.records, "moved_to": to,
    });
    let device = clean(session.device_id.as_str());
    let line = format!("{} device {device} is in {to}", session.user_id);
    Ok(output.show(&json, &line)?)
}

async fn verify(cli: &Cli, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let progress = output.progress("opening every record");
    let store = client.orchestrator().store().sealed();
    let verified = store.verify().await;
    let stats = store.stats().await;
    progress.finish_and_clear();
    let closed = client.close().await;
    let (verified, stats) = (
        verified.map_err(mx_e2ee::Error::from)?,
        stats.map_err(mx_e2ee::Error::from)?,
    );
    closed?;
    let damage: Vec<_> = verified
        .first_damaged
        .iter()
        .map(|damage| json!({"records": damage.records, "what": format!("{:?}", damage.kind).to_lowercase()}))
        .collect();
    let json = json!({
        "records": verified.records, "damaged": verified.damaged, "first_damaged": damage,
        "schema": stats.schema, "size_bytes": stats.size_bytes, "by_kind": stats.records,
    });
    let mut lines = vec![format!(
        "{} record(s), {} damaged; schema {}{}",
        verified.records,
        verified.damaged,
        stats.schema,
        stats
            .size_bytes
            .map(|bytes| format!(", {} KiB", bytes.div_ceil(1024)))
            .unwrap_or_default()
    )];
    let damaged = verified.first_damaged.iter();
    lines.extend(damaged.map(|damage| format!("  {}: {:?}", damage.records, damage.kind).to_lowercase()));
    output.show(&json, &lines.join("\n"))?;
    match verified.first_damaged.first() {
        None => Ok(()),
        Some(damage) => Err(mx_e2ee::Error::from(StoreError::Corrupt { what: damage.records }).into()),
    }
}

async fn compact(cli: &Cli, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let progress = output.progress("compacting");
    let store = client.orchestrator().store().sealed();
    let sizes = async {
        let before = store.stats().await?.size_bytes;
        store.compact().await?;
        Ok::<_, StoreError>((before, store.stats().await?.size_bytes))
    };
    let sizes = sizes.await;
    progress.finish_and_clear();
    let closed = client.close().await;
    let (before, after) = sizes.map_err(mx_e2ee::Error::from)?;
    closed?;
    let kib = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.div_ceil(1024).to_string());
    let json = json!({"before_bytes": before, "after_bytes": after});
    Ok(output.show(&json, &format!("{} KiB before, {} KiB after", kib(before), kib(after)))?)
}
