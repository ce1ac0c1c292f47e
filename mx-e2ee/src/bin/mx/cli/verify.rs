//! What can be typed after `mx verify`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(crate) const EXAMPLES: &str = "\
People compare seven emoji, or three numbers, that both sides show. Nothing is verified unless somebody who sees both
sides says so, or every key is one that its owner gave: --expect, or the policy's \"expect\".

With --json every change is a line on stdout, and steps are lines on stdin:
  {\"do\": \"accept\"}   also: start, confirm, mismatch, cancel, show_qr
  {\"do\": \"scan\", \"image\": \"code.png\"}
With more than one verification under way, name the one that is meant: \"user_id\" and \"flow_id\".

A policy is a file like this one; all of it is optional:
  {\"accept\": [\"@friend:example.org\"], \"accept_own_devices\": false, \"decline_others\": false,
   \"expect\": {\"@friend:example.org\": [\"the master key, or a device's, in base64\"]}}";

#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Ask a user to verify, in the room for the two of you alone.
    User {
        /// User id (@…:server).
        user: String,
        /// In this room instead: its id (!…) or alias (#…).
        #[arg(long, conflicts_with = "device")]
        room: Option<String>,
        /// This one device instead, without a room.
        #[arg(long)]
        device: Option<String>,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        expected: Expected,
    },
    /// Ask our other devices to verify this one, which is then given their secrets, or to be verified by it.
    Own {
        /// Only this one.
        #[arg(long)]
        device: Option<String>,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        expected: Expected,
    },
    /// Answer what others ask for.
    Listen {
        /// Answer by this policy, a file of JSON. Without one, somebody is asked about each.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Stop after one verification has ended.
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        how: How,
    },
}

/// How it is compared.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Show a code to be scanned, where the other side can scan, instead of emoji.
    #[arg(long)]
    pub(crate) qr: bool,

    /// Also write the code as a picture. Nothing is replaced, and only this user can read it.
    #[arg(long, value_name = "FILE", requires = "qr")]
    pub(crate) qr_png: Option<PathBuf>,

    /// Scan the other side's code from this picture, PNG or JPEG, as soon as it is there.
    #[arg(long, value_name = "FILE", conflicts_with = "qr")]
    pub(crate) scan: Option<PathBuf>,
}

/// Of whom it is known who it is.
#[derive(Debug, Args)]
pub(crate) struct Expected {
    /// Confirm when all that is verified is among these Ed25519 keys, and cancel when not; may be given several times.
    #[arg(long, value_name = "KEY")]
    pub(crate) expect: Vec<String>,
}
