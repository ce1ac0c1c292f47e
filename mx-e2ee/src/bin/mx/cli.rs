//! What can be typed.

mod appservice;
mod doctor;
mod identity;
mod import;
mod keys;
mod manifest;
mod messages;
mod rooms;
mod store;
pub(crate) mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    appservice::AppServiceCommand,
    doctor::Doctor,
    identity::{BackupCommand, BundleCommand, Existing, IdentityCommand, Password, Recovery},
    import::{ImportCommand, ImportedLogin},
    keys::{ExportKeys, ImportKeys, KeysCommand, Passphrase},
    manifest::ManifestCommand,
    messages::{Care, Download, Listen, React, Redact, Send, Since},
    rooms::{DeviceCommand, Policy, RoomCommand},
    store::{ExportStore, ImportStore, Man, StoreCommand, StoreKeySource, UndecryptableCommand},
};

const EXAMPLES: &str = "\
First steps:
  mx login --user @mybot:example.org
  mx room create --name alerts --invite @friend:example.org
  mx send '!room:example.org' 'the eagle lands at noon'
  mx listen

Answers:
  mx send alerts '**all clear**' --markdown --reply-to '$event'
  mx react alerts '$event' 👍

Files:
  mx send '!room:example.org' --file eagle.jpg --caption 'it has landed'
  mx listen --save ~/Downloads
  mx listen --json > events;  mx download --to ~/Downloads < events

Events into programs:
  mx listen --exec 'jq -r .content.body >> log'   one run for each, acknowledged where it ends with 0
  mx listen --json --ack                          a line on stdin acknowledges: the number in \"ack\"
  mx listen --since 2h                            what is older is passed over

Other ways to log in:
  mx login --homeserver example.org --offered     which ones there are
  mx login --homeserver example.org --oauth       type a code in a browser of any machine
  mx login --homeserver example.org --sso         in a browser of this machine

Several devices side by side:
  mx --profile alerts login …        (or MX_PROFILE=alerts)

For programs: --json writes one JSON object a line to stdout; everything else goes to stderr.

Exit codes:
  0  done
  1  unexpected
  2  wrong usage
  3  not logged in, or the login was refused; the identity or the key backup is missing, not ours, or not opened
  4  the homeserver cannot be reached, or fails
  5  refused to send: recipients are unknown, not allowed, or none can be given the key
  6  room: not in it, not encrypted, forbidden
  7  store: in use, wrong key, damaged, of another device
  8  content: malformed or too large; a file that is not the one that was sent, or was sent without encryption; a key
     file that is none, or another passphrase
  9  ended by a signal before it was done
 10  files here: cannot be read or written, or exist already
 11  nothing was verified: cancelled, not the same, too late, or not the expected keys
 12  mx doctor: warnings
 13  mx doctor: errors
 14  mx listen --exec, --ack: an event was not handled, and comes again";

const SECRETS: &str = "\
The password is never an argument, which every process of the machine could see. It comes from the
environment variable MX_PASSWORD, from --password-file, or from a prompt.

A login whose token expired is made again with the same command: the same device, the same keys. Where the
homeserver gives tokens that can be renewed, that is done without anybody.";

/// The heading of the options that all commands have.
const EVERYWHERE: &str = "Options of every command";

const WIPING: &str = "\
With --wipe nothing of the profile is left that could be read: the key is removed first, then the store. Nothing
is destroyed while the homeserver has not ended the login. A wipe that was interrupted is ended by the same command,
which also destroys what earlier logouts put aside where there is no login any more.

Removing is not overwriting, which on today's disks is no promise: only a disk that is encrypted as a whole makes
sure that nobody finds what was there.";

const COMPLETIONS: &str = "\
bash:  mx completions bash > ~/.local/share/bash-completion/completions/mx
zsh:   mx completions zsh > ~/.zfunc/_mx        (with fpath+=~/.zfunc before compinit)
fish:  mx completions fish > ~/.config/fish/completions/mx.fish";

const MANUAL: &str = "\
mx man ~/.local/share/man/man1;  man mx";

/// End-to-end encrypted Matrix for a shell: log in once, then a send is one command and a receive is one command.
#[derive(Debug, Parser)]
#[command(name = "mx", version, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    /// Which login to use; each has its own device, keys and store.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "MX_PROFILE",
        default_value = "default",
        value_name = "NAME"
    )]
    pub(crate) profile: String,

    /// Keep the profile in this directory instead of the platform's usual one.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "MX_DIRECTORY", value_name = "PATH")]
    pub(crate) directory: Option<PathBuf>,

    /// What opens the profile's store and login, where that is not a key file in its directory: `file:PATH`, with 32 raw
    /// bytes; `credential:NAME`, of the service manager (systemd's LoadCredential=); `passphrase-file:PATH`, whose first
    /// line is a passphrase.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "MX_STORE_KEY", value_name = "SOURCE")]
    pub(crate) store_key: Option<StoreKeySource>,

    /// Write one JSON object a line.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,

    /// Ask the homeserver for news by simplified sliding sync, where it offers that. A send asks for messages then, too,
    /// which wait for `mx listen`.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "MX_SLIDING_SYNC")]
    pub(crate) sliding_sync: bool,

    /// Say more on stderr; twice for even more.
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = clap::ArgAction::Count)]
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
    #[command(subcommand, visible_alias = "rooms")]
    Room(RoomCommand),
    /// Encrypt a message for everybody in a room and send it. Prints the event's id.
    Send(Box<Send>),
    /// React to an event, encrypted. Prints the reaction's id.
    React(React),
    /// Take back an event: the homeserver forgets what it said. Edits are events of their own, and are taken back each by
    /// itself. Prints the redaction's id.
    Redact(Redact),
    /// Print what arrives, decrypted, until stopped. What was printed is never printed again.
    Listen(Listen),
    /// Fetch, check and decrypt the files of events that `mx listen --json` printed, from stdin. Prints their paths.
    ///
    /// It works while another mx uses the profile.
    Download(Download),
    /// Find out why somebody cannot read us, or we cannot read somebody, and what mends it.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Doctor),
    /// See which events cannot be read and why, and try them again.
    #[command(subcommand)]
    Undecryptable(UndecryptableCommand),
    /// Another name of `mx undecryptable list`.
    Waiting(Waiting),
    /// Look after the store: whether it is whole, its key, its space; move the device to another place.
    #[command(subcommand)]
    Store(StoreCommand),
    /// List, block and trust devices of others, and other devices of ours.
    #[command(subcommand, visible_alias = "devices")]
    Device(DeviceCommand),
    /// Verify users and devices: emoji, numbers, codes, or keys that their owners gave.
    #[command(subcommand, after_help = verify::EXAMPLES)]
    Verify(verify::VerifyCommand),
    /// See and publish this device's keys; carry room keys from device to device.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make this account's identity, recover it here, see how it stands.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Say in a file who is who, and refuse to send while anything differs from it.
    #[command(subcommand)]
    TrustManifest(ManifestCommand),
    /// Keep room keys on the homeserver, encrypted, and get them back.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Go on with a device that another client held.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Let one token speak for many users, as for a fleet of bots: what the homeserver is given for that.
    #[command(subcommand)]
    Appservice(AppServiceCommand),
    /// Print what completes commands in a shell.
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    #[command(after_help = MANUAL)]
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// How many events.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The homeserver: its address (`https://matrix.example.org`), or the name of a server (example.org), which is asked where
    /// its homeserver is. Left out: the server of the user id.
    #[arg(long, env = "MX_HOMESERVER", value_name = "URL|SERVER")]
    pub(crate) homeserver: Option<String>,

    /// The user name (mybot), the whole user id (@mybot:example.org), an email address, or a phone number (+49…).
    #[arg(long, env = "MX_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,

    #[command(flatten)]
    pub(crate) kind: LoginKind,

    /// Follow a redirect when a server is asked where its homeserver is. It decides where the password goes.
    #[arg(long)]
    pub(crate) follow_redirects: bool,

    /// How the device is called where people look at their devices.
    #[arg(long, default_value = "mx", value_name = "NAME")]
    pub(crate) device_name: String,
}

/// How to log in: by password, where none of these is given.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct LoginKind {
    /// Read the password from the first line of this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) password_file: Option<PathBuf>,

    /// Take over a login that exists: read its access token from the first line of this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,

    /// Log in with a token of single sign-on, or of another device: read it from the first line of this file.
    #[arg(long, value_name = "PATH")]
    pub(crate) login_token_file: Option<PathBuf>,

    /// Log in by single sign-on: open the page that is shown in a browser of this machine.
    #[arg(long)]
    pub(crate) sso: bool,

    /// Log in by OAuth 2.0: type the code that is shown in a browser of any machine.
    #[arg(long)]
    pub(crate) oauth: bool,

    /// Log a user of an application service in: read its registration (YAML or JSON), or only its token, from this file.
    #[arg(long, value_name = "PATH", requires = "user")]
    pub(crate) appservice: Option<PathBuf>,

    /// Only show which logins the homeserver offers.
    #[arg(long)]
    pub(crate) offered: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Destroy the key and the store, and what earlier logouts put aside.
    #[arg(long)]
    pub(crate) wipe: bool,

    /// Forget the login here without telling the homeserver, as when its key is lost. The device stays there.
    #[arg(long, conflicts_with = "wipe")]
    pub(crate) forget: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// clap takes the value of an argument for that of a global one of the same name, and says nothing.
    #[test]
    fn no_argument_has_the_name_of_a_global_one() {
        fn look(command: &clap::Command, global: &[&clap::Id]) {
            for own in command.get_arguments().filter(|own| !own.is_global_set()) {
                assert!(
                    !global.contains(&own.get_id()),
                    "{}: {}",
                    command.get_name(),
                    own.get_id()
                );
            }
            for below in command.get_subcommands() {
                look(below, global);
            }
        }
        let command = Cli::command();
        let global: Vec<_> = command
            .get_arguments()
            .filter(|own| own.is_global_set())
            .map(clap::Arg::get_id)
            .collect();
        assert!(global.len() > 4, "{global:?}");
        look(&command, &global);
        let parsed = Cli::try_parse_from(["mx", "import", "mx-client", "theirs"]).unwrap();
        assert_eq!(parsed.directory, None);
    }

    #[test]
    fn no_secret_is_an_argument() {
        for secret in ["--password", "--token", "--access-token"] {
            let parsed = Cli::try_parse_from(["mx", "login", "--homeserver", "x", "--user", "u", secret, "s"]);
            assert!(parsed.is_err(), "{secret}");
        }
    }
}
