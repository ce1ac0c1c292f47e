//! Secrets that people type or keep in files: never an argument, which every process of the machine could see.

use std::{
    io::{self, BufRead},
    path::Path,
};

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use mx_e2ee::Error;
use zeroize::Zeroizing;

use crate::{cli::Passphrase, signals::Ended};

/// A passphrase that exists.
pub(super) async fn passphrase(from: &Passphrase, what: &str) -> Result<Zeroizing<String>> {
    match &from.passphrase_file {
        Some(file) => first_line(file),
        None => asked_for(what).await,
    }
}

/// A passphrase that is made now: what nobody sees is typed twice.
pub(super) async fn new_passphrase(from: &Passphrase, what: &str) -> Result<Zeroizing<String>> {
    let first = passphrase(from, what).await?;
    if from.passphrase_file.is_none() && *first != *asked_for(&format!("{what}, again")).await? {
        let what = "the two passphrases are not the same: try again".to_owned();
        bail!(Error::Configuration { what });
    }
    Ok(first)
}

async fn asked_for(what: &str) -> Result<Zeroizing<String>> {
    typed(&format!("{what}: "), "the passphrase", "use --passphrase-file").await
}

/// What somebody types who does not see it. `instead` says how it gets in where nobody is there.
pub(super) async fn typed(question: &str, what: &str, instead: &str) -> Result<Zeroizing<String>> {
    match prompt(question.to_owned(), ProgressBar::hidden()).await {
        Ok(typed) => Ok(typed),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Ended.into()),
        Err(error) => bail!(Error::Configuration {
            what: format!("there is no terminal to ask for {what} ({error}): {instead}"),
        }),
    }
}

/// Ask at the terminal, and show nothing of what is typed. What shows there that something takes a while waits meanwhile.
///
/// # Why
/// It is read on a thread of its own, so that Ctrl-C is a signal that somebody listens to: one that ends the process at
/// once would leave the terminal silent.
///
/// # Cancel safety
/// Safe: the terminal is as it was before, although the thread goes on to read.
pub(super) async fn prompt(question: String, progress: ProgressBar) -> io::Result<Zeroizing<String>> {
    let _as_it_was = AsItWas::now();
    let ask = move || progress.suspend(|| rpassword::prompt_password(question));
    let typed = tokio::task::spawn_blocking(ask).await;
    Ok(Zeroizing::new(typed.map_err(io::Error::other)??))
}

/// The settings of the terminal, to which it goes back.
#[cfg(unix)]
struct AsItWas(Option<(std::fs::File, rustix::termios::Termios)>);

#[cfg(unix)]
impl AsItWas {
    fn now() -> Self {
        let terminal = std::fs::File::open("/dev/tty").ok();
        Self(terminal.and_then(|terminal| {
            let settings = rustix::termios::tcgetattr(&terminal).ok()?;
            Some((terminal, settings))
        }))
    }
}

#[cfg(unix)]
impl Drop for AsItWas {
    fn drop(&mut self) {
        if let Some((terminal, settings)) = &self.0 {
            // One that has gone needs none.
            let _set = rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Now, settings);
        }
    }
}

#[cfg(not(unix))]
struct AsItWas;

#[cfg(not(unix))]
impl AsItWas {
    const fn now() -> Self {
        Self
    }
}

/// The first line of a file, without what ends it; `-`: of stdin. Blanks are part of a passphrase.
pub(crate) fn first_line(file: &Path) -> Result<Zeroizing<String>> {
    let failed = |source| Error::FileUnreadable {
        path: file.to_owned(),
        source,
    };
    let mut line = Zeroizing::new(String::new());
    if file.as_os_str() == "-" {
        io::stdin().lock().read_line(&mut line)
    } else {
        std::fs::File::open(file).and_then(|file| io::BufReader::new(file).read_line(&mut line))
    }
    .map_err(failed)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    if line.is_empty() {
        bail!(empty(file));
    }
    Ok(line)
}

/// A file that says nothing where a secret is wanted.
pub(super) fn empty(file: &Path) -> Error {
    Error::FileUnreadable {
        path: file.to_owned(),
        source: io::Error::new(io::ErrorKind::UnexpectedEof, "its first line is empty"),
    }
}

/// The text of a file.
pub(super) fn text_of(file: &Path) -> Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::FileUnreadable {
        path: file.to_owned(),
        source,
    })?;
    Ok(Zeroizing::new(text))
}
