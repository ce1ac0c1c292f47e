//! `soak`: several of ours and the peers on a real Synapse, for as long as you like.

use crate::{interop, process};

/// Several of ours and the peers in several rooms on a real Synapse: random messages, restarts, kills and faults.
///
/// At the end every message that was accepted was read once by everybody who should, no index of a room key was used
/// twice, the homeserver holds no word of it, and memory and file descriptors are flat. Prints a report with numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long.
    #[arg(long, default_value_t = 5.0, value_name = "N")]
    minutes: f64,
    /// What happens when; a run prints its own.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let plan = interop::plan(&root)?;
    let mut command = interop::example(&root, &plan)?;
    command.arg("soak").arg(options.minutes.to_string());
    command.args(options.seed.map(|seed| seed.to_string()));
    process::run(&mut command)
}
