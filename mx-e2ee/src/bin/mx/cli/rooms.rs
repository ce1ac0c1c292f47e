//! What can be typed about rooms, and about devices of those who are in them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Care;

#[derive(Debug, Subcommand)]
pub(crate) enum RoomCommand {
    /// List the rooms that we are in: id, whether it is encrypted, name.
    List,
    /// Show who can read a room's next message and why not: users, devices, trust, the age of the room's key.
    ///
    /// Members and devices are asked for as with a send. Nobody is given a key.
    Show {
        /// Room id (!…), alias (#…), or name.
        room: String,
        /// Draw it as a page into this file, too, which needs nothing beside itself.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Replace the file, where there is one.
        #[arg(long, requires = "html")]
        force: bool,
    },
    /// Make a private, encrypted room. Prints its id.
    Create {
        /// The room's name. It is not encrypted.
        #[arg(long)]
        name: Option<String>,
        /// Invite this user; may be given several times.
        #[arg(long, value_name = "USER")]
        invite: Vec<String>,
        /// Do not encrypt the room.
        #[arg(long)]
        plaintext: bool,
    },
    /// Join a room by its id or alias, as after an invitation. Prints its id.
    Join {
        /// Room id (!…) or alias (#…).
        room: String,
    },
    /// Invite somebody.
    Invite {
        /// Room id (!…), alias (#…), or name.
        room: String,
        /// User id (@…:server).
        user: String,
        /// Give them the keys of what was said before, too, as far as the room let newcomers read. This cannot be undone.
        #[arg(long)]
        share_history: bool,
    },
    /// Mark a room as encrypted. This cannot be undone.
    Encrypt {
        /// Room id (!…), alias (#…), or name.
        room: String,
    },
    /// List who is in a room or invited to it.
    Members {
        /// Room id (!…), alias (#…), or name.
        room: String,
    },
    /// Give the room a new key with the next message, as after a device was stolen.
    RotateKey {
        /// Room id (!…), alias (#…), or name.
        room: String,
    },
    /// Say for whom messages of the room may be, from now on; without an option, show it.
    Policy(Policy),
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// Room id (!…), alias (#…), or name.
    pub(crate) room: String,

    #[command(flatten)]
    pub(crate) care: Care,

    /// Only these users may read; may be given several times. Any other member refuses every send.
    #[arg(long, value_name = "USER")]
    pub(crate) allow: Vec<String>,

    /// Forget what was said before.
    #[arg(long)]
    pub(crate) reset: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List a user's devices: id, fingerprint, how far each is trusted, what its owner calls it.
    List {
        /// User id (@…:server). Left out: ourselves.
        user: Option<String>,
    },
    /// Give the device no room key any more. Rooms whose key it has get a new one.
    Block {
        /// User id (@…:server).
        user: String,
        /// The device's id.
        device: String,
    },
    /// Trust the device by the fingerprint that its owner told you.
    Trust {
        /// User id (@…:server).
        user: String,
        /// The device's id.
        device: String,
        /// Its Ed25519 key in base64, as `mx keys status` shows it there.
        fingerprint: String,
    },
    /// Neither block nor trust the device.
    Forget {
        /// User id (@…:server).
        user: String,
        /// The device's id.
        device: String,
    },
    /// Show how a user's identity stands.
    Identity {
        /// User id (@…:server).
        user: String,
    },
    /// Go on with a user whose identity was replaced, without verifying it.
    Acknowledge {
        /// User id (@…:server).
        user: String,
        /// The public master key that the user has now, as `mx device identity` shows it.
        master_key: String,
    },
}
