//! What can be typed about application services.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum AppServiceCommand {
    /// Write a registration with new tokens, for the operator of the homeserver. Prints the file's path.
    ///
    /// The file is for its owner only (mode 0600): who has it speaks for all of these users.
    New {
        /// The application service's name, of which there is one on a homeserver, and which never changes.
        #[arg(long)]
        id: String,
        /// The name of the server (example.org), as in user ids.
        #[arg(long)]
        server: String,
        /// It speaks for every user whose name begins with this.
        #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        prefix: String,
        /// Write it here.
        file: PathBuf,
        /// Replace the file, if there is one.
        #[arg(long)]
        force: bool,
    },
}
