//! Secrets that people type or keep in files: never an argument, which every process of the machine could see.

use std::{
    io::{self, BufRead},
    path::Path,
};

use anyhow::{Context, Result, bail};
use mx_e2ee::Error;
use zeroize::Zeroizing;

use crate::cli::Passphrase;

/// A passphrase that exists.
pub(super) fn passphrase(from: &Passphrase, what: &str) -> Result<Zeroizing<String>> {
    match &from.passphrase_file {
        Some(file) => first_line(file),
        None => asked_for(what),
    }
}

/// A passphrase that is made now: what nobody sees is typed twice.
pub(super) fn new_passphrase(from: &Passphrase, what: &str) -> Result<Zeroizing<String>> {
    let first = passphrase(from, what)?;
    if from.passphrase_file.is_none() && *first != *asked_for(&format!("{what}, again"))? {
        bail!("the two passphrases are not the same: try again");
    }
    Ok(first)
}

pub(super) fn asked_for(what: &str) -> Result<Zeroizing<String>> {
    typed(&format!("{what}: "), "the passphrase", "use --passphrase-file")
}

/// What somebody types who does not see it. `instead` says how it gets in where nobody is there.
pub(super) fn typed(prompt: &str, what: &str, instead: &str) -> Result<Zeroizing<String>> {
    let typed = rpassword::prompt_password(prompt).map_err(|error| Error::Configuration {
        what: format!("there is no terminal to ask for {what} ({error}): {instead}"),
    })?;
    Ok(Zeroizing::new(typed))
}

/// The first line of a file, without what ends it; `-`: of stdin. Blanks are part of a passphrase.
pub(crate) fn first_line(file: &Path) -> Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    let read = if file.as_os_str() == "-" {
        io::stdin().lock().read_line(&mut line)
    } else {
        std::fs::File::open(file).and_then(|file| io::BufReader::new(file).read_line(&mut line))
    };
    read.with_context(|| format!("{} cannot be read", file.display()))?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    if line.is_empty() {
        bail!("{} is empty", file.display());
    }
    Ok(line)
}
