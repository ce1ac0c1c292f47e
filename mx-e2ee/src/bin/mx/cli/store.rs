//! What can be typed about the store, and about events that cannot be read.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};

use super::Passphrase;

const EXPORT: &str = "\
To another machine:
  mx store export device.mx            here; asks for a passphrase for the file
  mx store import device.mx            there, after the file was carried over; then destroy it

The file is the whole device: its keys, room keys, sessions and its login. From the moment that it is made the device does
not run here any more, since two copies of one device lose messages of both and use keys twice. What is left of it here is
destroyed by mx logout --wipe, which leaves the device on the homeserver alone.

A command that was killed may leave a device that does not run: the same command again ends it, and says what is needed where
it cannot know whether a file was made.";

const COPY: &str = "\
The store is copied row by row, still sealed, read back and compared. A key file goes along; what --store-key names stays
where it is. From then on the device runs with --directory DIRECTORY, and not here.";

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Open every record, and miss every one that is not there. Ends with 7 where something is damaged.
    Verify,
    /// Give the store another key, as after somebody saw the file. The login opens with the new one, too.
    ///
    /// A command that was killed has changed the key or has not: the profile opens either way. Copies that were made before
    /// open with the former key for ever.
    Rekey {
        /// What opens the store from then on, as of --store-key. Left out: a new key, in the file that it has now.
        #[arg(long, value_name = "SOURCE")]
        to: Option<StoreKeySource>,
    },
    /// Give space that is not used any more back to the file system.
    Compact,
    /// Go on with a store that was set back, or of which a copy ran: the other one does not run any more.
    ///
    /// Sends are refused until then. Every room gets a new key. The cleaner way out is a new device: `mx logout`, and `mx login`.
    Acknowledge,
    /// Move the device into a file, for another machine. It does not run here any more.
    #[command(after_help = EXPORT)]
    Export(ExportStore),
    /// Go on here with the device of a file that `mx store export` made.
    ///
    /// The profile must be new, or one that was moved away: what is left of that is put aside. Nothing is sent.
    Import(ImportStore),
    /// Move the device into another directory. It does not run here any more.
    #[command(after_help = COPY)]
    Copy {
        /// The directory, which must be missing or empty.
        #[arg(value_name = "DIRECTORY")]
        to: PathBuf,
        /// Also where the device was moved before, or may have been. Only where nothing of it ever arrived.
        #[arg(long)]
        again: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExportStore {
    /// The file to write. None is replaced.
    pub(crate) file: PathBuf,

    /// Also where the device was moved before, or may have been. Only where nothing of it ever arrived: two of one device
    /// lose messages of both.
    #[arg(long)]
    pub(crate) again: bool,

    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

#[derive(Debug, Args)]
pub(crate) struct ImportStore {
    /// The file to read.
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

/// Where the key of a store comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreKeySource {
    File(PathBuf),
    Credential(String),
    PassphraseFile(PathBuf),
}

impl FromStr for StoreKeySource {
    type Err = &'static str;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given.split_once(':') {
            Some((_, "")) | None => Err("give file:PATH, credential:NAME or passphrase-file:PATH"),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(("credential", name)) => Ok(Self::Credential(name.to_owned())),
            Some(("passphrase-file", path)) => Ok(Self::PassphraseFile(path.into())),
            Some(_) => Err("a key is in a file:, a credential: or made of a passphrase-file:"),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum UndecryptableCommand {
    /// Show the events that wait for their keys, oldest first, and why each cannot be read.
    List {
        /// How many events.
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
    },
    /// Say why one event cannot be read, and what would mend it.
    Explain {
        /// The event's id ($…).
        event: String,
    },
    /// Try them again, as after keys came: first what the key backup has, then everything that waits.
    Retry {
        /// Ask our other devices for the key of each, too.
        #[arg(long)]
        ask: bool,
    },
}

/// Where manual pages go.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// A directory, which is made where it is missing: one page a command.
    #[arg(value_name = "DIRECTORY")]
    pub(crate) to: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is() {
        let parsed = |given: &str| given.parse::<StoreKeySource>().ok();
        assert_eq!(parsed("file:/k"), Some(StoreKeySource::File("/k".into())));
        assert_eq!(
            parsed("credential:store.key"),
            Some(StoreKeySource::Credential("store.key".to_owned()))
        );
        assert_eq!(
            parsed("passphrase-file:C:\\pass"),
            Some(StoreKeySource::PassphraseFile("C:\\pass".into()))
        );
        for wrong in ["", "secret", "file:", "passphrase:secret", ":x"] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
