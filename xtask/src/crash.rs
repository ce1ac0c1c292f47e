//! `crash`: kill a process that writes to a store, thousands of times, on each engine.

use anyhow::bail;

use crate::process;

/// The tests of `mx-crypto-store/tests/crash.rs`, one an engine.
const ENGINES: [&str; 3] = ["sqlite", "redb", "sled"];

/// Kill a process that writes to a store, again and again, and look after each kill whether anything is lost.
///
/// The same code as the test `crash` of mx-crypto-store, with more rounds. One line an engine says what was done; a store
/// that lost something stays on the disk, and its seed is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each engine is killed while it writes.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rounds: u32,
    /// One engine only.
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// Where the moments of the kills come from, to repeat a plan.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 1000,
            engine: None,
            seed: None,
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut command = process::cargo(&process::root()?);
    command.env("MX_KILL_ROUNDS", options.rounds.to_string()).args([
        "test",
        "--package",
        "mx-crypto-store",
        "--test",
        "crash",
        "--",
    ]);
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
