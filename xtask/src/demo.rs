//! `demo`: watch two devices talk through end-to-end encryption.

use crate::{process, synapse};

/// Watch two devices publish keys, send, receive, restart and send again.
///
/// Without an option it runs on the homeserver that is embedded in the tests, and needs nothing else.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Run on your homeserver, with the accounts MX_DEMO_ALICE=name:password and MX_DEMO_BOB=name:password.
    #[arg(long, value_name = "URL", conflicts_with = "synapse")]
    pub(crate) homeserver: Option<String>,
    /// Install and start a real Synapse on this machine, and run on it.
    #[arg(long)]
    pub(crate) synapse: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let mut command = process::cargo(&root);
    command.args(["run", "--package", "mx-test-homeserver", "--example", "demo"]);
    if !options.synapse {
        if let Some(url) = &options.homeserver {
            command.args(["--", "--homeserver", url]);
        }
        return process::run(&mut command);
    }
    let synapse = synapse::start(&synapse::Options::default())?;
    command
        .env("MX_DEMO_ALICE", "alice:alice-password")
        .env("MX_DEMO_BOB", "bob:bob-password");
    process::run(command.args(["--", "--homeserver", &synapse.url]))
}
