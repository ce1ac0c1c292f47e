//! Measures messages and the store against matrix-sdk-sqlite, and the storage engines against each other.
#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

mod comparison;
mod engine;
mod engines;
mod host;
mod messages;
mod table;

use clap::{Parser, Subcommand};

/// Measures messages and the store against matrix-sdk-sqlite, and the storage engines against each other.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    Store(comparison::Options),
    Engines(engines::Options),
    /// Messages sent, and keys given to rooms.
    Send(messages::Options),
    /// Messages read, and keys taken.
    Receive(messages::Options),
    /// Commits until it is killed; `engines` starts it.
    #[command(hide = true)]
    Writer(engines::WriterOptions),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().measurement {
        Measurement::Store(options) => comparison::run(&options),
        Measurement::Engines(options) => engines::run(&options),
        Measurement::Send(options) => messages::send(&options),
        Measurement::Receive(options) => messages::receive(&options),
        Measurement::Writer(options) => engines::write(&options),
    }
}
