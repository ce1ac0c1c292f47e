//! `mx backup`.

use anyhow::{Result, bail};
use mx_e2ee::{BackupStatus, Client};
use serde_json::json;

use super::progress;
use crate::{
    cli::{BackupCommand, Cli},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &BackupCommand, output: Output) -> Result<()> {
    if matches!(command, BackupCommand::Delete { yes: false }) {
        let what = "room keys that are nowhere else are lost with the backup: say --yes if that is meant".to_owned();
        bail!(mx_e2ee::Error::Configuration { what });
    }
    let client = profile::open(cli).await?;
    let done = carry_out(&client, command, output).await;
    let closed = client.close().await;
    done?;
    Ok(closed?)
}

async fn carry_out(client: &Client, command: &BackupCommand, output: Output) -> Result<()> {
    match command {
        BackupCommand::Status => {
            let status = client.backup_status().await?;
            output.show(&json!(status), &described(&status))?;
        }
        BackupCommand::Enable { replace } => {
            let version = client.enable_backup(*replace).await?;
            let room_keys = progress::shown(client, output, "backing up room keys", client.back_up()).await?;
            output.show(
                &json!({"version": version, "room_keys": room_keys}),
                &clean(&format!(
                    "version {version} of the backup is used, {room_keys} room key(s) were put into it"
                )),
            )?;
        }
        BackupCommand::Restore { room } => {
            let room = match room {
                Some(room) => Some(client.resolve(room).await?),
                None => None,
            };
            let restoring = client.restore_backup(room.as_deref());
            let taken = progress::shown(client, output, "restoring room keys", restoring).await?;
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
        }
        BackupCommand::Delete { .. } => {
            let version = client.delete_backup().await?;
            let line = clean(&format!("version {version} of the backup is deleted"));
            output.show(&json!({"deleted": version}), &line)?;
        }
    }
    Ok(())
}

/// One line for people.
pub(super) fn described(status: &BackupStatus) -> String {
    let here = match (&status.version, status.enabled) {
        (Some(version), true) => format!(
            "version {version} is used, {} of {} room key(s) are in it",
            status.backed_up, status.room_keys
        ),
        _ => format!("none is used; {} room key(s) are here", status.room_keys),
    };
    let there = match &status.on_server {
        None => "the homeserver has none".to_owned(),
        Some(backup) => format!(
            "the homeserver has version {} with {} room key(s), {}",
            backup.version,
            backup.room_keys,
            match (backup.is_ours, backup.is_signed) {
                (true, _) => "which is ours",
                (false, true) => "which is signed by us and whose key is not here",
                (false, false) => "which NOBODY WHOM WE TRUST HAS SIGNED",
            }
        ),
    };
    clean(&format!("{here}; {there}"))
}
