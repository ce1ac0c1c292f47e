//! What can be typed after `mx trust-manifest`.

use std::path::PathBuf;

use clap::Subcommand;

const INIT: &str = "\
The draft shows what the homeserver says now. Compare every key with what its owner says before you apply it: who controls
the homeserver controls the draft.";

const APPLY: &str = "\
The profile keeps a copy, which every command uses from then on, also a listener that runs: nothing is sent to a room while
one of its members, or a device of theirs, differs from it, and mx listen prints each difference. Change the file and apply
it again.";

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Write a draft of the members of rooms, or of users.
    #[command(after_help = INIT)]
    Init {
        /// The file to write.
        file: PathBuf,
        /// The members of this room; may be given several times.
        #[arg(long, value_name = "ROOM", required_unless_present = "user")]
        room: Vec<String>,
        /// This user; may be given several times.
        #[arg(long, value_name = "USER")]
        user: Vec<String>,
        /// Replace the file if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Print every difference between a manifest and what the homeserver shows. Without a file: the one that is applied.
    Check {
        /// The manifest.
        file: Option<PathBuf>,
    },
    /// Use a manifest from now on.
    #[command(after_help = APPLY)]
    Apply {
        /// The manifest.
        file: PathBuf,
    },
    /// Use none any more.
    Remove,
}
