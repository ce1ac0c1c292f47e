//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
First steps:
  mx login --homeserver https://matrix.example.org --user mybot
  mx room create --name alerts --invite @friend:example.org
  mx send '!room:example.org' 'the eagle lands at noon'
  mx listen

Files:
  mx send '!room:example.org' --file eagle.jpg --caption 'it has landed'
  mx listen --save ~/Downloads
  mx listen --json > events;  mx download --to ~/Downloads < events

Several devices side by side:
  mx --profile alerts login …        (or MX_PROFILE=alerts)

For programs: --json writes one JSON object a line to stdout; everything else goes to stderr.

Exit codes:
  0  done
  1  unexpected
  2  wrong usage
  3  not logged in, or the login was refused
  4  the homeserver cannot be reached, or fails
  5  refused to send: recipients are unknown, not allowed, or none can be given the key
  6  room: not in it, not encrypted, forbidden
  7  store: in use, wrong key, damaged, of another device
  8  content: malformed or too large; a file that is not the one that was sent, or was sent without encryption
  9  ended by a signal before it was done
 10  files here: cannot be read or written, or exist already";

const SECRETS: &str = "\
The password is never an argument, which every process of the machine could see. It comes from the
environment variable MX_PASSWORD, from --password-file, or from a prompt.

A login whose token expired is made again with the same command: the same device, the same keys. Where the
homeserver gives tokens that can be renewed, that is done without anybody.";

const WIPING: &str = "\
With --wipe nothing of the profile is left that could be read: the key is removed first, then the store. Nothing
is destroyed while the homeserver has not ended the login. A wipe that was interrupted is ended by the same command,
which also destroys what earlier logouts put aside where there is no login any more.

Removing is not overwriting, which on today's disks is no promise: only a disk that is encrypted as a whole makes
sure that nobody finds what was there.";

/// End-to-end encrypted Matrix for a shell: log in once, then a send is one command and a receive is one command.
#[derive(Debug, Parser)]
#[command(name = "mx", version, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    /// Which login to use; each has its own device, keys and store.
    #[arg(
        long,
        global = true,
        env = "MX_PROFILE",
        default_value = "default",
        value_name = "NAME"
    )]
    pub(crate) profile: String,

    /// Keep the profile in this directory instead of the platform's usual one.
    #[arg(long, global = true, env = "MX_DIRECTORY", value_name = "PATH")]
    pub(crate) directory: Option<PathBuf>,

    /// Write one JSON object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more on stderr; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in, make this device's keys and publish them.
    #[command(after_help = SECRETS)]
    Login(Login),
    /// Delete this device on the homeserver and forget the login. Its store is put aside, unless it is destroyed.
    #[command(after_help = WIPING)]
    Logout(Logout),
    /// Show who is logged in, as which device.
    Whoami,
    /// Make, list, join rooms; see and invite members.
    #[command(subcommand)]
    Room(RoomCommand),
    /// Encrypt a message for everybody in a room and send it. Prints the event's id.
    Send(Send),
    /// Print what arrives, decrypted, until stopped. What was printed is never printed again.
    Listen(Listen),
    /// Fetch, check and decrypt the files of events that `mx listen --json` printed, from stdin. Prints their paths.
    ///
    /// It works while another mx uses the profile.
    Download(Download),
    /// Show the events that wait for their keys, oldest first, and why each cannot be read.
    Waiting(Waiting),
    /// Block and trust devices of others, and other devices of ours.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// See and publish this device's keys.
    #[command(subcommand)]
    Keys(KeysCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// How many events.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The homeserver's address, such as `https://matrix.example.org`.
    #[arg(long, env = "MX_HOMESERVER", value_name = "URL")]
    pub(crate) homeserver: String,

    /// The user name (mybot) or the whole user id (@mybot:example.org).
    #[arg(long, env = "MX_USER", value_name = "NAME", required_unless_present = "token_file")]
    pub(crate) user: Option<String>,

    /// Read the password from the first line of this file.
    #[arg(long, value_name = "PATH", conflicts_with = "token_file")]
    pub(crate) password_file: Option<PathBuf>,

    /// Take over a login that exists: read its access token from the first line of this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,

    /// How the device is called where people look at their devices.
    #[arg(long, default_value = "mx", value_name = "NAME")]
    pub(crate) device_name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Destroy the key and the store, and what earlier logouts put aside.
    #[arg(long)]
    pub(crate) wipe: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoomCommand {
    /// List the rooms that we are in: id, whether it is encrypted, name.
    List,
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
        /// Room id (!…) or alias (#…).
        room: String,
        /// User id (@…:server).
        user: String,
    },
    /// Mark a room as encrypted. This cannot be undone.
    Encrypt {
        /// Room id (!…) or alias (#…).
        room: String,
    },
    /// List who is in a room or invited to it.
    Members {
        /// Room id (!…) or alias (#…).
        room: String,
    },
    /// Give the room a new key with the next message, as after a device was stolen.
    RotateKey {
        /// Room id (!…) or alias (#…).
        room: String,
    },
    /// Say for whom messages of the room may be, from now on; without an option, show it.
    Policy(Policy),
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// Room id (!…) or alias (#…).
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
    /// List what was decided about a user's devices.
    List {
        /// User id (@…:server).
        user: String,
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
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Room id (!…) or alias (#…).
    pub(crate) room: String,

    /// The text. Left out, or `-`: read it from stdin.
    #[arg(conflicts_with_all = ["content", "file"])]
    pub(crate) text: Option<String>,

    /// Send as a notice, which other bots do not answer.
    #[arg(long, conflicts_with_all = ["content", "file"])]
    pub(crate) notice: bool,

    /// Send this file, encrypted. `-`: what is on stdin, with --name.
    #[arg(long, value_name = "PATH", conflicts_with = "content")]
    pub(crate) file: Option<PathBuf>,

    /// Another name for the file than that of its path.
    #[arg(long, value_name = "NAME", requires = "file", required_if_eq("file", "-"))]
    pub(crate) name: Option<String>,

    /// Another MIME type for the file than that of its name's extension.
    #[arg(long, value_name = "TYPE", requires = "file")]
    pub(crate) mime: Option<String>,

    /// Text to go with the file.
    #[arg(long, value_name = "TEXT", requires = "file")]
    pub(crate) caption: Option<String>,

    /// A small picture of the file.
    #[arg(long, value_name = "PATH", requires = "file")]
    pub(crate) thumbnail: Option<PathBuf>,

    /// The event's type, with --content.
    #[arg(
        long = "type",
        default_value = "m.room.message",
        value_name = "TYPE",
        requires = "content"
    )]
    pub(crate) event_type: String,

    /// The event's content as a JSON object, instead of text.
    #[arg(long, value_name = "JSON")]
    pub(crate) content: Option<String>,

    #[command(flatten)]
    pub(crate) care: Care,

    /// Send although the room was replaced by another one.
    #[arg(long)]
    pub(crate) into_tombstoned: bool,

    /// How long to wait for another mx that uses this profile.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) wait: u64,
}

/// How careful a send is: as the room's policy says, where none of these is given.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Care {
    /// Refuse while anybody's devices are unknown.
    #[arg(long)]
    pub(crate) strict: bool,

    /// Send although the devices of some members are unknown: they cannot read it.
    #[arg(long)]
    pub(crate) best_effort: bool,

    /// Give the key to trusted devices only.
    #[arg(long)]
    pub(crate) only_trusted: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Download {
    /// The directory to keep them in. Names are made harmless, and nothing is replaced.
    #[arg(long, default_value = ".", value_name = "DIRECTORY")]
    pub(crate) to: PathBuf,

    /// Take no file that is larger, in mebibytes.
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub(crate) max: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Stop after this many events.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// Print what is there, without waiting for more.
    #[arg(long)]
    pub(crate) once: bool,

    /// Keep the files that arrive in this directory. Names are made harmless, and nothing is replaced.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Show this device's fingerprint, whether others see it, and how many one-time keys are left.
    Status,
    /// Publish this device's keys and top up one-time keys. Every command that syncs does this too.
    Publish,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_secret_is_an_argument() {
        for secret in ["--password", "--token", "--access-token"] {
            let parsed = Cli::try_parse_from(["mx", "login", "--homeserver", "x", "--user", "u", secret, "s"]);
            assert!(parsed.is_err(), "{secret}");
        }
    }
}
