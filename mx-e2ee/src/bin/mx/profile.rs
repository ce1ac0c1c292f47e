//! Where a profile's login, keys and store are.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use mx_e2ee::{Client, ClientBuilder, SyncSource, TrustManifest};
use tokio::time::Instant;

use crate::{cli::Cli, commands, output::Output};

/// The first and the longest pause between two looks at a profile that is in use.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The profile's directory: the one that was asked for, else one under the platform's directory for data.
pub(crate) fn directory(cli: &Cli) -> Result<PathBuf> {
    if let Some(directory) = &cli.directory {
        return Ok(directory.clone());
    }
    let name = &cli.profile;
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        bail!("a profile's name is made of letters, digits, '-', '_' and '.': {name:?} is not");
    }
    let base =
        directories::ProjectDirs::from("", "", "mx").context("this user has no home directory: use --directory")?;
    Ok(base.data_local_dir().join(name))
}

/// Where the profile keeps the trust manifest that it uses.
pub(crate) fn manifest_file(cli: &Cli) -> Result<PathBuf> {
    Ok(directory(cli)?.join("trust-manifest.json"))
}

/// The trust manifest that the profile uses. One that cannot be read is not taken for none.
pub(crate) fn manifest(cli: &Cli) -> Result<Option<TrustManifest>> {
    let path = manifest_file(cli)?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(commands::manifest::parsed(&text)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(mx_e2ee::Error::File { path, source }.into()),
    }
}

/// What opens the profile's client.
pub(crate) fn builder(cli: &Cli) -> Result<ClientBuilder> {
    let source = if cli.sliding_sync {
        SyncSource::SlidingWhereOffered
    } else {
        SyncSource::Sync
    };
    let builder = Client::builder().directory(directory(cli)?).sync_source(source);
    Ok(match manifest(cli)? {
        Some(manifest) => builder.trust_manifest(manifest),
        None => builder,
    })
}

/// The profile's client, with the login that is there.
pub(crate) async fn open(cli: &Cli) -> Result<Client> {
    Ok(builder(cli)?.open().await?)
}

/// As [`open`], and wait this long for another process that uses the profile.
pub(crate) async fn open_within(cli: &Cli, wait: Duration, output: Output) -> Result<Client> {
    let end = Instant::now() + wait;
    let mut pause = FIRST_PAUSE;
    loop {
        match builder(cli)?.open().await {
            Err(error) if error.code() == "store_in_use" && Instant::now() < end => {
                if pause == FIRST_PAUSE {
                    output.note("another mx uses this profile: waiting for it");
                }
                tokio::time::sleep(pause.min(end - Instant::now())).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            opened => return Ok(opened?),
        }
    }
}
