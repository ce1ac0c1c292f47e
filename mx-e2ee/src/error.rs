//! What can go wrong, in one type with a stable code and a sentence that says what to do.

use std::{path::PathBuf, time::Duration};

use mx_crypto_store::{StoreError, backend::BackendError};
use mx_transport::{DiscoveryError, OAuthError, RequestError, TransportError};
use ruma::{OwnedDeviceId, OwnedRoomId};

use crate::{AttachmentError, ImportError};

/// Shorthand of this crate.
///
/// ```no_run
/// use mx_e2ee::{Client, SendReceipt, ruma::RoomId};
///
/// async fn report(client: &Client, room: &RoomId) -> mx_e2ee::Result<SendReceipt> {
///     client.room(room).send_text("all is well").await
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
///
/// ```no_run
/// # use mx_e2ee::Room;
/// # async fn example(room: Room) -> mx_e2ee::Result<()> {
/// use mx_e2ee::Error;
///
/// match room.send_text("all is well").await {
///     Ok(sent) => println!("{}", sent.event_id),
///     // By its code, which stays the same from version to version; most are listed with each method.
///     Err(error) if error.code() == "recipients_unknown" => println!("nothing was sent: {error}"),
///     // Or by its kind, where what is in it is needed.
///     Err(Error::DeviceDeleted { device }) => println!("{device} is gone: log in again"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sending or receiving failed; most errors are of this kind.
    #[error(transparent)]
    Orchestrator(mx_olm_orchestrator::Error),

    /// A device of another client is not taken over.
    #[error(transparent)]
    Import(#[from] ImportError),

    /// A file could not be sent or received.
    #[error(transparent)]
    Attachment(#[from] AttachmentError),

    /// User name or password are wrong.
    #[error(
        "the homeserver does not accept this user name and password: check both, and that the account is on this homeserver"
    )]
    WrongPassword,

    /// The homeserver offers no login by password.
    #[error("this homeserver offers no login by password: log in elsewhere and bring the access token")]
    NoPasswordLogin,

    /// The homeserver does not offer this kind of login.
    #[error("this homeserver offers no login by {wanted}: it offers {}", kinds_named(offered))]
    LoginNotOffered {
        /// What was tried.
        wanted: &'static str,
        /// What it offers instead.
        offered: Vec<String>,
    },

    /// A token of single sign-on is not valid.
    #[error("the homeserver does not accept this login token: it is valid once and for a short time, get another one")]
    WrongLoginToken,

    /// No homeserver was found.
    #[error(transparent)]
    Discovery(DiscoveryError),

    /// A login by OAuth 2.0 was not done.
    #[error(transparent)]
    OAuth(OAuthError),

    /// Nobody came back from single sign-on in time.
    #[error("nobody came back from the page of single sign-on: open it again, or paste the login token")]
    NobodyCameBack,

    /// There is no login in this directory.
    #[error("there is no login in {directory:?}: log in first")]
    NotLoggedIn {
        /// Where a login is looked for.
        directory: PathBuf,
    },

    /// There is a login in this directory.
    #[error("{directory:?} already holds a login of {user}: use it, log out first, or choose another directory")]
    AlreadyLoggedIn {
        /// Where the login is.
        directory: PathBuf,
        /// Whose it is.
        user: String,
    },

    /// Our device is not on the homeserver any more, or without its keys.
    #[error(
        "device {device} was deleted on the homeserver, and its keys with it: log out, which puts the old store aside, \
         and log in again for a new device"
    )]
    DeviceDeleted {
        /// The device.
        device: OwnedDeviceId,
    },

    /// There is a login and its store is gone: the device's keys are lost.
    #[error(
        "{directory:?} holds a login and its store is empty or gone, so that the keys of this device are lost: put the \
         store back, or log out and log in again for a new device"
    )]
    StoreLost {
        /// Where the store is looked for.
        directory: PathBuf,
    },

    /// The device of this directory was moved to another place.
    #[error(
        "device {device} was moved away from {directory:?} to {to:?} and goes on where that arrived: use it there. Two copies \
         of one device lose messages of both, so this one does not run"
    )]
    Moved {
        /// The directory that it left.
        directory: PathBuf,
        /// The device.
        device: OwnedDeviceId,
        /// The file or the directory that it left for.
        to: String,
    },

    /// The device of this directory was on its way to another place, and that was interrupted.
    #[error(
        "device {device} was on its way from {directory:?} to {to:?} when that was interrupted, and does not run here: move it \
         there once more, and say `again` if {to:?} is not there and never arrived anywhere"
    )]
    MoveUnfinished {
        /// The directory that it leaves.
        directory: PathBuf,
        /// The device.
        device: OwnedDeviceId,
        /// The file or the directory that it leaves for.
        to: String,
    },

    /// Another call or a stream of this client receives.
    #[error("this device already receives elsewhere in this program: receive in one place, and hand out from there")]
    Busy,

    /// The access token belongs to no device.
    #[error("this access token belongs to no device, and encryption needs one: log in with a password instead")]
    TokenWithoutDevice,

    /// This is not a Matrix id, or not of the kind that is needed.
    #[error("{given:?} is not {wanted}")]
    InvalidId {
        /// What was given.
        given: String,
        /// What is needed.
        wanted: &'static str,
    },

    /// No room that we are in has this name.
    #[error("no room that we are in is named {name:?}: give its id (!…) or its alias (#…:server)")]
    NoSuchRoom {
        /// The name.
        name: String,
    },

    /// Several rooms that we are in have this name.
    #[error(
        "several rooms are named {name:?}: give the id of the right one, of {}",
        listed(rooms)
    )]
    RoomNameAmbiguous {
        /// The name.
        name: String,
        /// The rooms.
        rooms: Vec<OwnedRoomId>,
    },

    /// A piece of the configuration is missing or wrong.
    #[error("{what}")]
    Configuration {
        /// What to do about it.
        what: String,
    },

    /// The file of the login cannot be read or written.
    #[error("the file {path:?} of the login cannot be read or written")]
    SessionFile {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },

    /// A file cannot be read.
    #[error("the file {path:?} cannot be read: check its path, its permissions and what is in it")]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },

    /// A file or a directory cannot be written.
    #[error("the file {path:?} cannot be written: check its path, its permissions and the disk's space")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },

    /// There is a file of this name, which is not replaced unless that is asked for.
    #[error("{path:?} exists and is not replaced: choose another name, or say that it is to be replaced")]
    FileExists {
        /// The file.
        path: PathBuf,
    },

    /// Others may read the file of the login, which holds the access token.
    #[error("others may read the file {path:?} of the login: run chmod 600 on it, and consider the token as seen")]
    SessionFilePermissions {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Orchestrator(error) => error.code(),
            Self::Attachment(error) => error.code(),
            Self::Import(error) => error.code(),
            Self::WrongPassword => "wrong_password",
            Self::NoPasswordLogin => "no_password_login",
            Self::LoginNotOffered { .. } => "login_not_offered",
            Self::WrongLoginToken => "wrong_login_token",
            Self::Discovery(error) => error.code(),
            Self::OAuth(error) => error.code(),
            Self::NobodyCameBack => "login_expired",
            Self::NotLoggedIn { .. } => "not_logged_in",
            Self::AlreadyLoggedIn { .. } => "already_logged_in",
            Self::DeviceDeleted { .. } => "device_deleted",
            Self::StoreLost { .. } => "store_lost",
            Self::Moved { .. } => "device_moved",
            Self::MoveUnfinished { .. } => "move_unfinished",
            Self::Busy => "busy",
            Self::TokenWithoutDevice => "token_without_device",
            Self::InvalidId { .. } => "invalid_id",
            Self::NoSuchRoom { .. } => "no_such_room",
            Self::RoomNameAmbiguous { .. } => "room_name_ambiguous",
            Self::Configuration { .. } => "configuration",
            Self::SessionFile { .. } => "session_file",
            Self::FileUnreadable { .. } => "file_unreadable",
            Self::File { .. } => "file_not_writable",
            Self::FileExists { .. } => "file_exists",
            Self::SessionFilePermissions { .. } => "session_file_permissions",
        }
    }

    /// The pause that the homeserver asked for before the next attempt.
    ///
    /// ```
    /// use mx_e2ee::Error;
    ///
    /// // Only a homeserver that is asked too much names one; whoever waits otherwise chooses the pause.
    /// assert_eq!(Error::Busy.retry_after(), None);
    /// ```
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Orchestrator(mx_olm_orchestrator::Error::Request(RequestError::Api { retry_after, .. })) => {
                *retry_after
            }
            _ => None,
        }
    }
    /// It may work a little later without anybody doing anything.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// while let Err(error) = client.sync().await {
    ///     if !error.is_transient() {
    ///         return Err(error);
    ///     }
    ///     tokio::time::sleep(error.retry_after().unwrap_or(Duration::from_secs(5))).await;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let error = match self {
            Self::Orchestrator(error) => error,
            Self::Discovery(DiscoveryError::Unreachable { source, .. }) => return source.is_transient(),
            _ => return false,
        };
        match error {
            mx_olm_orchestrator::Error::Request(RequestError::Transport(error)) => error.is_transient(),
            mx_olm_orchestrator::Error::Request(error @ RequestError::Api { status, .. }) => {
                // An account that was locked is to keep its login, and may be unlocked.
                status.is_server_error() || status.as_u16() == 429 || error.code() == "user_locked"
            }
            mx_olm_orchestrator::Error::MalformedSync { .. }
            | mx_olm_orchestrator::Error::MembersIncomplete { .. }
            | mx_olm_orchestrator::Error::ClaimFailed { .. }
            | mx_olm_orchestrator::Error::KeyShareIncomplete { .. }
            | mx_olm_orchestrator::Error::SendPending { .. }
            | mx_olm_orchestrator::Error::EarlierSendPending { .. } => true,
            _ => false,
        }
    }
}

fn listed(rooms: &[OwnedRoomId]) -> String {
    rooms.iter().map(|room| room.as_str()).collect::<Vec<_>>().join(", ")
}

impl From<mx_olm_orchestrator::Error> for Error {
    fn from(error: mx_olm_orchestrator::Error) -> Self {
        Self::Orchestrator(error)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Orchestrator(error.into())
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Self::Orchestrator(error.into())
    }
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        RequestError::from(error).into()
    }
}

impl From<DiscoveryError> for Error {
    fn from(error: DiscoveryError) -> Self {
        match error {
            DiscoveryError::Address(error) => error.into(),
            error => Self::Discovery(error),
        }
    }
}

impl From<OAuthError> for Error {
    fn from(error: OAuthError) -> Self {
        match error {
            OAuthError::Request(error) => error.into(),
            error => Self::OAuth(error),
        }
    }
}

fn kinds_named(kinds: &[String]) -> String {
    if kinds.is_empty() {
        "none that is known here".to_owned()
    } else {
        kinds.join(", ")
    }
}

impl From<mx_transport::UrlError> for Error {
    fn from(error: mx_transport::UrlError) -> Self {
        Self::Configuration {
            what: error.to_string(),
        }
    }
}
