//! Where a profile's login, keys and store are.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use mx_e2ee::{
    Client, ClientBuilder, ManifestFile, SyncSource, TrustManifest, orchestrator,
    store::{KeySource, Passphrase},
};
use tokio::time::Instant;

use crate::{
    cli::{Cli, StoreKeySource},
    commands,
    output::Output,
};

/// The trust manifest that the profile uses; it moves with it.
const MANIFEST: &str = "trust-manifest.json";

/// What a command finds in its environment that a listener runs: which profile is in use.
pub(crate) const HELD: &str = "MX_LISTENING";

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
        let what = format!("a profile's name is made of letters, digits, '-', '_' and '.': {name:?} is not");
        return Err(mx_e2ee::Error::Configuration { what }.into());
    }
    let base =
        directories::ProjectDirs::from("", "", "mx").context("this user has no home directory: use --directory")?;
    Ok(base.data_local_dir().join(name))
}

/// Where the profile keeps the trust manifest that it uses.
pub(crate) fn manifest_file(cli: &Cli) -> Result<PathBuf> {
    Ok(directory(cli)?.join(MANIFEST))
}

/// The trust manifest that the profile uses. One that cannot be read is not taken for none.
pub(crate) fn manifest(cli: &Cli) -> Result<Option<TrustManifest>> {
    let manifest = ManifestFile::if_any(manifest_file(cli)?).load();
    Ok(manifest.map_err(|error| mx_e2ee::Error::from(orchestrator::Error::from(error)))?)
}

/// What opens the profile's client.
pub(crate) fn builder(cli: &Cli) -> Result<ClientBuilder> {
    // One that cannot be read stops before anything is done.
    manifest(cli)?;
    builder_for_looking(cli)
}

/// The same for a checkup, which says that the manifest cannot be read.
pub(crate) fn builder_for_looking(cli: &Cli) -> Result<ClientBuilder> {
    let source = if cli.sliding_sync {
        SyncSource::SlidingWhereOffered
    } else {
        SyncSource::Sync
    };
    let manifest = ManifestFile::if_any(manifest_file(cli)?);
    Ok(bare_builder(cli)?.sync_source(source).trust_manifest_file(manifest))
}

/// Only where the profile is and what opens it: for what needs no store.
pub(crate) fn bare_builder(cli: &Cli) -> Result<ClientBuilder> {
    let builder = Client::builder().directory(directory(cli)?).take_along(MANIFEST);
    Ok(match &cli.store_key {
        Some(source) => builder.key(key(source)?),
        None => builder,
    })
}

/// The key of a store.
pub(crate) fn key(source: &StoreKeySource) -> Result<KeySource> {
    Ok(match source {
        StoreKeySource::File(path) => KeySource::File(path.clone()),
        StoreKeySource::Credential(name) => KeySource::Credential(name.clone()),
        StoreKeySource::PassphraseFile(path) if path.as_os_str() == "-" => {
            let what = "the passphrase of a store is read more than once: give a file".to_owned();
            return Err(mx_e2ee::Error::Configuration { what }.into());
        }
        StoreKeySource::PassphraseFile(path) => {
            KeySource::Passphrase(Passphrase::new(commands::first_line(path)?.as_str()))
        }
    })
}

/// The profile's client, with the login that is there.
pub(crate) async fn open(cli: &Cli) -> Result<Client> {
    Ok(builder(cli)?.open().await?)
}

/// As [`open`], and wait this long for another process that uses the profile.
pub(crate) async fn open_within(cli: &Cli, wait: Duration, output: Output) -> Result<Client> {
    // Whom we wait for would wait for us.
    let is_held = std::env::var_os(HELD).is_some_and(|held| directory(cli).is_ok_and(|here| held == here.as_os_str()));
    let end = Instant::now() + if is_held { Duration::ZERO } else { wait };
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
