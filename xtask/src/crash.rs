//! `crash`: kill a process that writes to a store, or a device that receives, thousands of times.

use std::process::Command;

use anyhow::bail;

use crate::process;

/// The tests of `mx-crypto-store/tests/crash.rs`, one an engine.
const ENGINES: [&str; 3] = ["sqlite", "redb", "sled"];

/// How often each engine of the store is killed.
const ROUNDS: u32 = 1000;
/// How often a device is killed at each kill point.
const ROUNDS_OF_RECEIVING: u32 = 200;

/// Kill a process that writes to a store, again and again, and look after each kill whether anything is lost.
///
/// The same code as the test `crash` of mx-crypto-store, with more rounds. One line an engine says what was done; a store
/// that lost something stays on the disk, and its seed is printed. With `--receive`, it is a device that is killed, at
/// each kill point, and the network and the disk fail at every operation: the same code as the tests `crash_matrix`,
/// `fault_matrix` and `send_share`, with more rounds.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// How often each engine, or each kill point, is killed. Default: 1000, and 200 with `--receive`.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Kill a device of the whole stack while it receives and sends.
    #[arg(long, conflicts_with_all = ["engine", "seed"])]
    receive: bool,
    /// Build in release, with overflow checks: a few minutes that ten thousand rounds are worth.
    #[arg(long)]
    release: bool,
    /// One engine only.
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// Where the moments of the kills come from, to repeat a plan.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Both kinds, as CI does.
pub(crate) fn run_all() -> anyhow::Result<()> {
    run(&Options::default())?;
    run(&Options {
        receive: true,
        ..Options::default()
    })
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.receive {
        return receive(options);
    }
    let rounds = options.rounds.unwrap_or(ROUNDS);
    let mut command = test(options)?;
    command
        .env("MX_KILL_ROUNDS", rounds.to_string())
        .args(["--test", "crash", "--"]);
    if let Some(seed) = options.seed {
        command.env("MX_KILL_SEED", seed.to_string());
    }
    if let Some(engine) = &options.engine {
        if !ENGINES.contains(&engine.as_str()) {
            bail!("there is no engine {engine:?}: one of {}", ENGINES.join(", "));
        }
        command.args([engine, "--exact"]);
    }
    process::run(command.args(["--nocapture", "--test-threads=1"]))
}

/// A device of the whole stack, on an image of a disk. A failure prints its seed, for `cargo xtask replay`.
fn receive(options: &Options) -> anyhow::Result<()> {
    let rounds = options.rounds.unwrap_or(ROUNDS_OF_RECEIVING);
    let mut command = test(options)?;
    command.env("MX_CRASH_ROUNDS", rounds.to_string());
    command.args(["--test", "it", "--"]);
    process::run(command.args(["crash_matrix", "fault_matrix", "send_share::sn_", "--nocapture"]))
}

/// `cargo test` with the features of the whole workspace, so that nothing is built twice.
fn test(options: &Options) -> anyhow::Result<Command> {
    let mut command = process::cargo(&process::root()?);
    command.args(["test", "--workspace"]);
    if options.release {
        command
            .arg("--release")
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    }
    Ok(command)
}
