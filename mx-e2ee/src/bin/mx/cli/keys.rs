//! What can be typed after `mx keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXPORT: &str = "\
The file is the one that Element exports and imports: who has it and guesses the passphrase reads every message that
its keys are for. It is made for its owner only (mode 0600), and no other is replaced without --force.";

const IMPORT: &str = "\
All keys of the file are taken, or none. Keys that are here and reach as far back stay. What they decrypt is marked as
imported: whoever made the file could have made the messages.";

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Show this device's fingerprint, whether others see it, and how many one-time keys are left.
    Status,
    /// Publish this device's keys and top up one-time keys. Every command that syncs does this too.
    Publish,
    /// Write the room keys into a file that a passphrase protects.
    #[command(after_help = EXPORT)]
    Export(ExportKeys),
    /// Take the room keys of such a file. What waited for them is printed by the next `mx listen`.
    #[command(after_help = IMPORT)]
    Import(ImportKeys),
}

#[derive(Debug, Args)]
pub(crate) struct ExportKeys {
    /// The file to write.
    pub(crate) file: PathBuf,

    /// Only the keys of this room; may be given several times.
    #[arg(long, value_name = "ROOM")]
    pub(crate) room: Vec<String>,

    /// Replace the file if it exists.
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

#[derive(Debug, Args)]
pub(crate) struct ImportKeys {
    /// The file to read.
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

/// A passphrase is never an argument. Without an option it is asked for.
#[derive(Debug, Args)]
pub(crate) struct Passphrase {
    /// Read the passphrase from the first line of this file; `-`: of stdin. Without it, it is asked for.
    #[arg(long, value_name = "PATH")]
    pub(crate) passphrase_file: Option<PathBuf>,
}
