//! `mx trust-manifest`.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result};
use mx_e2ee::{Error, ManifestError, ManifestFile, TrustManifest, orchestrator, write_private_file};
use serde_json::json;

use super::room::user_id;
use crate::{
    cli::{Cli, ManifestCommand},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &ManifestCommand, output: Output) -> Result<()> {
    match command {
        ManifestCommand::Init {
            file,
            room,
            user,
            force,
        } => init(cli, file, room, user, *force, output).await,
        ManifestCommand::Check { file } => {
            let manifest = match file {
                Some(file) => read(file)?,
                None => profile::manifest(cli)?.ok_or_else(|| Error::Configuration {
                    what: "no manifest is applied: name a file".to_owned(),
                })?,
            };
            check(cli, &manifest, output).await
        }
        ManifestCommand::Apply { file } => {
            let text = serde_json::to_vec_pretty(&read(file)?)?;
            let place = profile::manifest_file(cli)?;
            write_private_file(&place, &text, true)?;
            output.note(
                "it is used at once, by a listener that runs as well; mx trust-manifest check says whether anything \
                 differs",
            );
            Ok(output.show(&json!({"applied": true}), "applied")?)
        }
        ManifestCommand::Remove => {
            let place = profile::manifest_file(cli)?;
            match std::fs::remove_file(&place) {
                Ok(()) => Ok(output.show(&json!({"applied": false}), "removed")?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(output.show(&json!({"applied": false}), "there was none")?)
                }
                Err(source) => Err(Error::File { path: place, source }.into()),
            }
        }
    }
}

fn read(file: &Path) -> Result<TrustManifest> {
    let manifest = ManifestFile::new(file).load();
    let manifest = manifest.map_err(|error| Error::from(orchestrator::Error::from(error)))?;
    manifest.context("there is no such file")
}

async fn init(cli: &Cli, file: &Path, rooms: &[String], users: &[String], force: bool, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let mut all = BTreeSet::new();
    for user in users {
        all.insert(user_id(user)?);
    }
    for room in rooms {
        let room = super::room::by_name(&client, room).await?;
        all.extend(room.members().await?.into_iter().map(|member| member.user_id));
    }
    all.remove(client.user_id());
    let manifest = client.draft_trust_manifest(&all).await?;
    client.close().await?;
    let text = serde_json::to_string_pretty(&manifest)?;
    write_private_file(file, format!("{text}\n").as_bytes(), force)?;
    let line = format!("{} of {} user(s) are in the draft", manifest.users.len(), all.len());
    output.note("compare every key with what its owner says, then: mx trust-manifest apply");
    Ok(output.show(&json!(manifest), &line)?)
}

async fn check(cli: &Cli, manifest: &TrustManifest, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let differences = client.check_trust_manifest(manifest).await?;
    client.close().await?;
    for drift in &differences {
        output.show(&json!(drift), &clean(&drift.to_string()))?;
    }
    if differences.is_empty() {
        output.note("nothing differs");
        return Ok(());
    }
    Err(Error::from(orchestrator::Error::from(ManifestError::Drift { differences })).into())
}
