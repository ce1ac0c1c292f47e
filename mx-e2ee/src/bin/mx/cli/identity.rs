//! What can be typed after `mx identity` and `mx backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Passphrase;

const SETUP: &str = "\
An account that has an identity already is not changed, and this device becomes part of it: with its recovery key or
passphrase, which is asked for at a terminal (or --recover-with), or with a bundle of its secrets (--bundle).

The recovery key opens everything that belongs to the identity, and is shown once: keep it where this disk is not. With
--recovery-key-file it is written into a file for its owner only (mode 0600) and not shown.

Where the homeserver asks who is there, the password comes from MX_PASSWORD, --password-file or a prompt; what it wants done
in a browser is shown on a terminal.";

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make this device a verified one: part of the identity that the account has, or else of a new one, with a key backup and a
    /// secret storage.
    #[command(after_help = SETUP)]
    Setup {
        #[command(flatten)]
        existing: Existing,
        #[command(flatten)]
        recovery: Recovery,
        #[command(flatten)]
        password: Password,
    },
    /// Make this device part of the account's identity, with its recovery key or passphrase.
    Recover {
        /// Read the recovery key, or the passphrase, from the first line of this file; `-`: of stdin. Without it, it is
        /// asked for.
        #[arg(long, value_name = "PATH")]
        recovery_key_file: Option<PathBuf>,
    },
    /// Say who we are, who vouches for us, what is missing, and which command mends it.
    Status,
    /// Make a new recovery key for the identity that this device holds. The one before counts no more.
    NewRecoveryKey {
        #[command(flatten)]
        recovery: Recovery,
    },
    /// Replace the identity by a new one. Everybody who verified this account has to verify it again.
    Reset {
        #[command(flatten)]
        recovery: Recovery,
        #[command(flatten)]
        password: Password,
        /// Do it: nothing is asked.
        #[arg(long)]
        yes: bool,
    },
    /// Make a device on the homeserver that takes room keys while this one is lost, for the one that recovers the identity
    /// afterwards. `mx listen` replaces it every week. One that another device made is opened first.
    Dehydrate {
        /// Read the recovery key, or the passphrase, from the first line of this file; `-`: of stdin. Without it, it is
        /// asked for.
        #[arg(long, value_name = "PATH")]
        recovery_key_file: Option<PathBuf>,
        /// Delete it instead, and make none any more.
        #[arg(long, conflicts_with = "recovery_key_file")]
        delete: bool,
    },
    /// Carry the secrets of the identity in a file.
    #[command(subcommand)]
    Bundle(BundleCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Write them into a file that a passphrase protects, for its owner only (mode 0600).
    Export {
        /// The file to write.
        file: PathBuf,
        /// Replace the file if it exists.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// Make this device part of the identity whose secrets are in such a file.
    Import {
        /// The file to read.
        file: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
    },
}

/// What opens an identity that there is.
#[derive(Debug, Args)]
pub(crate) struct Existing {
    /// Take the account's identity with the recovery key, or the passphrase, in the first line of this file; `-`: of stdin.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["recovery_key_file", "passphrase_file", "password_file"])]
    pub(crate) recover_with: Option<PathBuf>,

    /// Take the identity whose secrets are in this file (mx identity bundle export).
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["recover_with", "recovery_key_file", "passphrase_file", "password_file"]
    )]
    pub(crate) bundle: Option<PathBuf>,

    /// Read the passphrase of that file from the first line of this one; `-`: of stdin. Without it, it is asked for.
    #[arg(long, value_name = "PATH", requires = "bundle")]
    pub(crate) bundle_passphrase_file: Option<PathBuf>,
}

/// Where a new recovery key goes.
#[derive(Debug, Args)]
pub(crate) struct Recovery {
    /// Write the recovery key into this file, which must not exist, and show it nowhere.
    #[arg(long, value_name = "PATH")]
    pub(crate) recovery_key_file: Option<PathBuf>,

    /// Read a passphrase that shall open the secret storage, too, from the first line of this file; `-`: of stdin.
    #[arg(long, value_name = "PATH")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Who is there, when the homeserver asks.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// Read the password from the first line of this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Say how the backup stands, here and on the homeserver.
    Status,
    /// Use the account's backup, or make one, and put all room keys into it.
    Enable {
        /// Make a new one where the one that is there is not ours. What is in it can be read with its own key only.
        #[arg(long)]
        replace: bool,
    },
    /// Take the room keys of the backup. What waited for them is printed by the next `mx listen`.
    Restore {
        /// Only the keys of this room.
        #[arg(long, value_name = "ROOM")]
        room: Option<String>,
    },
    /// Delete the backup with all keys in it.
    Delete {
        /// Do it: nothing is asked.
        #[arg(long)]
        yes: bool,
    },
}
