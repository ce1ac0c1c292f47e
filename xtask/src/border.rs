//! `border`: the largest event that we send, on a real homeserver.

use crate::{process, synapse};

/// Start a Synapse, and measure the largest event that it takes against the largest that we send.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> anyhow::Result<()> {
    let synapse = synapse::start(&synapse::Options::default())?;
    let mut command = process::cargo(&process::root()?);
    command.env("MX_DEMO_ALICE", "alice:alice-password");
    command.args(["run", "--package", "mx-test-homeserver", "--example", "border", "--"]);
    process::run(command.args(["--homeserver", &synapse.url]))
}
