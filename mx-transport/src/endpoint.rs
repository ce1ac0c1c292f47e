//! What a request is about: its endpoint without ids, and the family of endpoints that share a budget.

use std::borrow::Cow;

use crate::Endpoint;

/// Endpoints that a homeserver counts together, more or less, when it says that it is too much.
///
/// ```
/// use mx_transport::Family;
///
/// assert_eq!(Family::of("/_matrix/client/v3/rooms/!r:example.org/send/m.room.encrypted/1"), Family::Send);
/// assert_eq!(Family::of("/_matrix/client/v3/sync").name(), "sync");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Family {
    /// `/sync`: the long poll.
    Sync,
    /// `/keys/…` and `/room_keys/…`: device keys, one-time keys, backups.
    Keys,
    /// `/sendToDevice/…`.
    ToDevice,
    /// Events into rooms: `/rooms/…/send`, `/state`, `/redact`.
    Send,
    /// Everything else about rooms: members, messages, joining and leaving.
    Rooms,
    /// Files, and what is said of them.
    Media,
    /// Logins, tokens and devices.
    Account,
    /// All the rest.
    Other,
}

impl Family {
    /// All of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mx_transport::{Family, Transport, Timeouts};
    ///
    /// /// Half a minute for everything but files and the long poll.
    /// fn bounded<T: Transport>(inner: T) -> Timeouts<T> {
    ///     let short = Family::ALL.iter().filter(|family| !matches!(family, Family::Sync | Family::Media));
    ///     short.fold(Timeouts::new(inner), |all, family| all.of_family(*family, Duration::from_secs(30)))
    /// }
    /// # let _ = bounded::<mx_transport::Replay>;
    /// ```
    pub const ALL: &'static [Self] = &[
        Self::Sync,
        Self::Keys,
        Self::ToDevice,
        Self::Send,
        Self::Rooms,
        Self::Media,
        Self::Account,
        Self::Other,
    ];

    /// The family of a path, whatever the homeserver's own prefix is.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let mut words = words(path);
        match (words.next(), words.next()) {
            (Some("media"), _) | (Some("client"), Some("media")) => Self::Media,
            (Some("client"), Some(word)) => Self::of_client(word, words.nth(1)),
            _ => Self::Other,
        }
    }

    /// The word after `client`, and the one after a room's id.
    fn of_client(word: &str, in_room: Option<&str>) -> Self {
        match word {
            "sync" | "org.matrix.simplified_msc3575" | "org.matrix.msc4186" => Self::Sync,
            "keys" | "room_keys" => Self::Keys,
            "sendToDevice" => Self::ToDevice,
            "rooms" => match in_room {
                Some("send" | "state" | "redact") => Self::Send,
                _ => Self::Rooms,
            },
            "join" | "knock" | "createRoom" | "joined_rooms" | "directory" | "publicRooms" => Self::Rooms,
            "login" | "logout" | "refresh" | "register" | "account" | "devices" | "delete_devices" => Self::Account,
            _ => Self::Other,
        }
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Keys => "keys",
            Self::ToDevice => "to_device",
            Self::Send => "send",
            Self::Rooms => "rooms",
            Self::Media => "media",
            Self::Account => "account",
            Self::Other => "other",
        }
    }
}

/// Whether a path makes a login or an account: homeservers count these more strictly than the rest of their family, and
/// by who asks, since there is no token yet.
pub(crate) fn enters(path: &str) -> bool {
    let mut words = words(path);
    matches!(
        (words.next(), words.next()),
        (Some("client"), Some("login" | "register"))
    )
}

/// The words of a path after the homeserver's own prefix, without versions.
fn words(path: &str) -> impl Iterator<Item = &str> {
    path.split_once("/_matrix/")
        .map_or(path, |(_, path)| path)
        .split('/')
        .filter(|word| !word.is_empty() && !is_version(word))
}

/// A part of a path that says which version of an endpoint it is.
fn is_version(word: &str) -> bool {
    word == "unstable"
        || matches!(word.as_bytes(), [b'v' | b'r', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

/// The words of Matrix's paths. What is none of them may be an id or a secret, and is not shown.
const WORDS: &[&str] = &[
    ".well-known",
    "_matrix",
    "account",
    "account_data",
    "aliases",
    "auth_metadata",
    "ban",
    "capabilities",
    "claim",
    "changes",
    "client",
    "config",
    "context",
    "create",
    "createRoom",
    "cross_signing",
    "deactivate",
    "delete_devices",
    "device_signing",
    "devices",
    "directory",
    "download",
    "event",
    "filter",
    "forget",
    "invite",
    "join",
    "joined_members",
    "joined_rooms",
    "keys",
    "kick",
    "knock",
    "leave",
    "login",
    "logout",
    "all",
    "matrix",
    "media",
    "members",
    "messages",
    "password",
    "presence",
    "profile",
    "query",
    "read_markers",
    "receipt",
    "redact",
    "refresh",
    "register",
    "relations",
    "room",
    "room_keys",
    "rooms",
    "search",
    "send",
    "sendToDevice",
    "signatures",
    "sso",
    "state",
    "status",
    "sync",
    "thumbnail",
    "token",
    "typing",
    "unban",
    "upgrade",
    "upload",
    "user",
    "version",
    "versions",
    "voip",
    "whoami",
];

/// What a log or a metric shows of a request's path: the endpoint where it is known, else the words that are Matrix's
/// own, with `_` for everything else.
pub(crate) fn shown(endpoint: Option<&Endpoint>, path: &str) -> Cow<'static, str> {
    if let Some(Endpoint(endpoint)) = endpoint {
        return Cow::Borrowed(endpoint);
    }
    let mut before = "";
    let words = path.split('/').map(|word| {
        // What looks like a version may be an id where none belongs.
        let may_be_version = matches!(before, "client" | "media" | "federation" | "key" | "identity");
        before = word;
        if word.is_empty() || WORDS.contains(&word) || (may_be_version && is_version(word)) {
            word
        } else {
            "_"
        }
    });
    Cow::Owned(words.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_families() {
        for (path, family) in [
            ("/_matrix/client/v3/sync", Family::Sync),
            ("/prefix/_matrix/client/r0/sync", Family::Sync),
            (
                "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
                Family::Sync,
            ),
            ("/_matrix/client/v3/keys/query", Family::Keys),
            ("/_matrix/client/v3/room_keys/version", Family::Keys),
            ("/_matrix/client/v3/sendToDevice/m.room.encrypted/1", Family::ToDevice),
            ("/_matrix/client/v3/rooms/!a:b/send/m.room.encrypted/1", Family::Send),
            ("/_matrix/client/v3/rooms/!a:b/state/m.room.name/", Family::Send),
            ("/_matrix/client/v3/rooms/!a:b/members", Family::Rooms),
            ("/_matrix/client/v3/rooms/!a:b", Family::Rooms),
            ("/_matrix/client/v3/join/!a:b", Family::Rooms),
            ("/_matrix/media/v3/upload", Family::Media),
            ("/_matrix/client/v1/media/download/a/b", Family::Media),
            ("/_matrix/client/v3/login", Family::Account),
            ("/_matrix/client/versions", Family::Other),
            ("/", Family::Other),
            ("/sync", Family::Other),
            // An id that is called as an endpoint is none.
            ("/_matrix/client/v3/rooms/sync/members", Family::Rooms),
        ] {
            assert_eq!(Family::of(path), family, "{path}");
        }
        let mut names: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
        names.dedup();
        assert_eq!(names.len(), Family::ALL.len());
    }

    #[test]
    fn what_makes_a_login_is_told_from_what_uses_one() {
        for (path, makes) in [
            ("/_matrix/client/v3/login", true),
            ("/prefix/_matrix/client/r0/register", true),
            ("/_matrix/client/v1/register/m.login.registration_token/validity", true),
            ("/_matrix/client/v3/refresh", false),
            ("/_matrix/client/v3/logout", false),
            ("/_matrix/client/v3/rooms/login/send", false),
        ] {
            assert_eq!(enters(path), makes, "{path}");
        }
    }

    #[test]
    fn a_path_is_shown_without_what_may_be_an_id() {
        let path = "/_matrix/client/v3/rooms/!secret:hs.test/send/m.room.encrypted/txn7";
        assert_eq!(shown(None, path), "/_matrix/client/v3/rooms/_/send/_/_");
        assert_eq!(shown(Some(&Endpoint("/x/{id}")), path), "/x/{id}");
        assert_eq!(shown(None, "/"), "/");
        let path = "/_matrix/client/v3/devices/v123";
        assert_eq!(shown(None, path), "/_matrix/client/v3/devices/_");
        let path = "/_matrix/client/unstable/org.x/r0/v3";
        assert_eq!(shown(None, path), "/_matrix/client/unstable/_/_/_");
    }
}
