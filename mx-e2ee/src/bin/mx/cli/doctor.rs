//! What can be typed after `mx doctor`.

use clap::Args;

pub(crate) const EXAMPLES: &str = "\
It works where half of it is broken: without the homeserver the disk is looked at, beside another mx the homeserver is,
and what was not looked at is said.

--fix mends what costs nobody anything: keys are published, what waits is tried again, the key backup is filled, files
of the profile are closed to others. Nothing is deleted and nobody is trusted.

Exit codes of its own:
  0  everything that was looked at is well, or only worth a note
 12  warnings: something works worse than it could
 13  errors: messages are not sent, or not read";

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Mend what is safe to mend, and look again.
    #[arg(long)]
    pub(crate) fix: bool,

    /// Do not look at each room, which asks for its members and their devices.
    #[arg(long)]
    pub(crate) no_rooms: bool,

    /// Show notes, too, and what each check found to be in order.
    #[arg(long)]
    pub(crate) all: bool,
}
