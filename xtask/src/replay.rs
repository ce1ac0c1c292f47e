//! `replay`: tell the story of a seed that failed again, exactly.

use crate::process;

/// Tell the story again whose seed a failure printed as `MX_SEED=…`, with its output.
///
/// The choices of a story come from the name of its seed alone, on one thread and with a clock that stands still. Keys are
/// random each time: they are the operating system's, and decide nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The seed, as it was printed.
    seed: String,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut command = process::cargo(&process::root()?);
    command.env("MX_SEED", &options.seed).env("RUST_BACKTRACE", "1");
    command.args(["test", "--package", "mx-test-homeserver", "--test", "it"]);
    let story = "crash_replay::a_seed_is_the_same_story_again";
    process::run(command.args(["--", story, "--exact", "--nocapture"]))
}
