//! `example`: run one of the examples of `mx-e2ee` beside somebody who talks to it.

use std::process::Command;

use anyhow::Context as _;

use crate::process;

/// Run an example against a homeserver in this process, with somebody who talks to it.
///
/// alert_sender, echo_bot, file_drop, fleet, moderation_bot, own_backend, own_transport. Each is a file of
/// `mx-e2ee/examples`, and says at its top how it is started on a homeserver of yours.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which one.
    name: String,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    play(
        &options.name,
        &["--package", "mx-e2ee", "--example", &options.name],
        &[],
    )
}

/// Build the playground, with what it plays, and play.
pub(crate) fn play(name: &str, with: &[&str], arguments: &[&str]) -> anyhow::Result<()> {
    let mut build = process::cargo(&process::root()?);
    build.args(["build", "--package", "mx-test-homeserver", "--example", "playground"]);
    println!("building what is played; the first time takes minutes");
    process::run(build.args(with))?;
    let beside = std::env::current_exe()?;
    let built = beside.parent().context("this program is in no directory")?;
    process::run(
        Command::new(built.join("examples").join("playground"))
            .arg(name)
            .args(arguments),
    )
}
