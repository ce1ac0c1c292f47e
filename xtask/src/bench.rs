//! `bench`: measure messages and the store against matrix-sdk-sqlite, and the storage engines against each other.

mod e2e;

use std::env;

use clap::Subcommand;

use crate::process;

/// Measure messages, the store, or the storage engines under it, and print a table.
///
/// Builds a package of its own in release: the main workspace never compiles what the store is compared with. Figures
/// hold within one run only, as ratios; leave the machine alone meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// The whole stack against matrix-sdk with its SQLite store, on a Synapse that is started for it.
    E2e(e2e::Options),
    /// The store on each engine against matrix-sdk-sqlite, with and without a passphrase.
    Store {
        /// Fewer rounds and smaller stores: to look whether something changed, not to write it down.
        #[arg(long)]
        quick: bool,
        /// Only cases whose name contains this.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Only the variant of this name, as for a profiler.
        #[arg(long, value_name = "NAME")]
        variant: Option<String>,
    },
    /// The storage engines: commits, reads, killed processes and power cuts.
    Engines {
        /// Fewer commits and rounds.
        #[arg(long)]
        quick: bool,
        /// Only engines whose name contains this.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Messages sent and keys given to rooms, against the bare engine on matrix-sdk-sqlite and against vodozemac alone.
    Send(Messages),
    /// Messages read and keys taken, against the same.
    Receive(Messages),
}

/// How messages are measured.
#[derive(Debug, clap::Args)]
struct Messages {
    /// Fewer rounds and no rooms of thousands: to look whether something changed, not to write it down.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

impl Measurement {
    /// As the measuring program takes it.
    fn arguments(&self) -> Vec<String> {
        let (name, quick, filter, variant) = match self {
            // It is a program of its own.
            Self::E2e(_) => return Vec::new(),
            Self::Store { quick, filter, variant } => ("store", *quick, filter.as_ref(), variant.as_ref()),
            Self::Engines { quick, filter } => ("engines", *quick, filter.as_ref(), None),
            Self::Send(messages) => ("send", messages.quick, messages.filter.as_ref(), None),
            Self::Receive(messages) => ("receive", messages.quick, messages.filter.as_ref(), None),
        };
        let mut arguments = vec![name.to_owned()];
        arguments.extend(quick.then(|| "--quick".to_owned()));
        arguments.extend(filter.map(|text| format!("--filter={text}")));
        arguments.extend(variant.map(|text| format!("--variant={text}")));
        arguments
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Measurement::E2e(options) = &options.measurement {
        return e2e::run(options);
    }
    let root = process::root()?;
    let mut command = process::cargo(&root);
    command.args(["run", "--release", "--locked", "--manifest-path"]);
    command.arg(root.join("tests/benches/Cargo.toml"));
    if env::var_os("CARGO_TARGET_DIR").is_none() {
        command.arg("--target-dir").arg(root.join("target/bench"));
    }
    process::run(command.arg("--").args(options.measurement.arguments()))
}

#[cfg(test)]
mod tests {
    use super::Measurement;

    #[test]
    fn what_was_asked_for_is_passed_on() {
        let store = Measurement::Store {
            quick: true,
            filter: Some("sync, 1 key".to_owned()),
            variant: None,
        };
        assert_eq!(store.arguments(), ["store", "--quick", "--filter=sync, 1 key"]);
        let engines = Measurement::Engines {
            quick: false,
            filter: None,
        };
        assert_eq!(engines.arguments(), ["engines"]);
    }
}
