//! What can be typed about sending and receiving.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use jiff::{Span, Timestamp, tz::TimeZone};

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Room id (!…), alias (#…), or name.
    pub(crate) room: String,

    /// The text. Left out, or `-`: read it from stdin.
    #[arg(conflicts_with_all = ["content", "file"])]
    pub(crate) text: Option<String>,

    /// Send as a notice, which other bots do not answer.
    #[arg(long, conflicts_with_all = ["content", "file"])]
    pub(crate) notice: bool,

    /// The text is Markdown.
    #[arg(long, conflicts_with_all = ["content", "file"])]
    pub(crate) markdown: bool,

    /// Answer this event, and tell its sender so.
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["content", "file"])]
    pub(crate) reply_to: Option<String>,

    /// Say it in the thread that began with this event.
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["content", "file"])]
    pub(crate) thread: Option<String>,

    /// Say it in place of this earlier message of ours.
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["content", "file", "reply_to", "thread"])]
    pub(crate) edit: Option<String>,

    /// Whom it is for: their clients tell them. May be given several times.
    #[arg(long, value_name = "USER", conflicts_with_all = ["content", "file"])]
    pub(crate) mention: Vec<String>,

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

#[derive(Debug, Args)]
pub(crate) struct React {
    /// Room id (!…), alias (#…), or name.
    pub(crate) room: String,

    /// The event to react to ($…).
    pub(crate) event: String,

    /// With what: an emoji, as a rule.
    pub(crate) key: String,

    #[command(flatten)]
    pub(crate) care: Care,

    /// How long to wait for another mx that uses this profile.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Redact {
    /// Room id (!…), alias (#…), or name.
    pub(crate) room: String,

    /// The event ($…).
    pub(crate) event: String,

    /// Why, in plain words. The reason is not encrypted.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,

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

/// From when on, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) u64);

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let utc = TimeZone::UTC;
        let ago = |ago: Span| utc.to_timestamp(utc.to_datetime(Timestamp::now()).checked_sub(ago.abs())?);
        let at = given
            .parse::<Timestamp>()
            .or_else(|_| given.parse().and_then(ago))
            .map_err(|_| "give a time ago (2h, 3 days) or a moment (2026-11-28T07:00:00Z)")?;
        u64::try_from(at.as_millisecond())
            .map(Self)
            .map_err(|_| "this is before 1970")
    }
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Stop after this many events.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// Print what is there, without waiting for more.
    #[arg(long)]
    pub(crate) once: bool,

    /// Run this command for each event instead of printing it, one after the other: the event is on its stdin as a JSON line,
    /// and MX_EVENT_KIND, MX_EVENT_ID, MX_EVENT_TYPE, MX_ROOM_ID and MX_SENDER are in its environment, as they came from the
    /// network. Where it ends with anything but 0, mx ends with 14, and the event comes again. It cannot use this profile,
    /// which is in use: answer from another one, or from a program on mx-e2ee. Asked to end, mx waits five seconds for it.
    #[arg(long, value_name = "COMMAND", conflicts_with = "ack")]
    pub(crate) exec: Option<String>,

    /// Wait after each event until a line on stdin says that it was handled: the number in its `ack`. Needs --json. Where stdin
    /// ends, so does mx, and the event comes again.
    #[arg(long)]
    pub(crate) ack: bool,

    /// Pass over what was sent before: a time ago (`2h`, `3 days`), or a moment (`2026-11-28T07:00:00Z`). By the clock of the
    /// senders' homeservers. What is passed over does not come again.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<Since>,

    /// Join the rooms that these invite us to: a user (@…:server), a server, or `everybody`. May be given several times,
    /// for users or for servers. Invitations are printed all the same.
    #[arg(long, value_name = "WHO")]
    pub(crate) accept_invites: Vec<String>,

    /// Tell who comes to rooms and who goes, too. What another command took meanwhile is not told.
    #[arg(long)]
    pub(crate) memberships: bool,

    /// Print messages of verified devices only; what others say waits.
    #[arg(long, conflicts_with = "only_cross_signed")]
    pub(crate) only_verified: bool,

    /// Print messages of devices only that their owner's identity has signed; what others say waits.
    #[arg(long)]
    pub(crate) only_cross_signed: bool,

    /// Keep the files that arrive in this directory, which is made where it is missing. Names are made harmless, and nothing
    /// is replaced.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) save: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_ago() {
        let since = |given: &str| given.parse::<Since>().map(|since| since.0);
        assert_eq!(since("1970-01-01T00:00:01.5Z"), Ok(1_500));
        assert_eq!(since("2026-11-28T09:00:00+02:00"), since("2026-11-28T07:00:00Z"));
        let now = || u64::try_from(Timestamp::now().as_millisecond()).unwrap();
        for (given, minutes) in [
            ("2h", 120),
            ("90 minutes", 90),
            ("3 days", 72 * 60),
            ("1 week", 168 * 60),
            ("-2h", 120),
        ] {
            let (before, since, after) = (now(), since(given).unwrap(), now());
            assert!(
                (before..=after).contains(&(since + minutes * 60_000)),
                "{given}: {since}"
            );
        }
        for wrong in ["", "yesterday", "2", "1969-01-01T00:00:00Z", "99999 years"] {
            assert!(since(wrong).is_err(), "{wrong:?}");
        }
    }
}
