//! `homeserver`: a homeserver to play with.

use crate::example;

/// Start a homeserver to play with: in memory, on this machine, with the users alice, bob and carol. Ctrl-C ends it.
///
/// It is the one of the tests, and needs nothing else; `cargo xtask synapse` starts a real one.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Listen on this port. Left out, or 0: on any that is free
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    example::play("homeserver", &[], &[&options.port.to_string()])
}
