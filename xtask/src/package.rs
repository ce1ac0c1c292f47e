//! `package`: every crate that is published can be.

use crate::process;

/// Package every published crate, as `cargo publish` would.
///
/// Their sources are not built again from the packages unless you ask: it takes as long as everything else together.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Build each crate from its package.
    #[arg(long)]
    verify: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let mut command = process::cargo(&root);
    command.args([
        "package",
        "--quiet",
        "--workspace",
        "--exclude",
        "xtask",
        "--allow-dirty",
    ]);
    if !options.verify {
        command.arg("--no-verify");
    }
    process::run(&mut command)
}
