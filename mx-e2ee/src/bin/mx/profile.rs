//! Where a profile's login, keys and store are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mx_e2ee::Client;

use crate::cli::Cli;

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

/// The profile's client, with the login that is there.
pub(crate) async fn open(cli: &Cli) -> Result<Client> {
    Ok(Client::builder().directory(directory(cli)?).open().await?)
}
