//! What is said of who can read: a room, its users, their devices.

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use serde::Serialize;

use crate::{Error, Recipients, RotationReason, UnusableReason};

/// Who can read a room's next message.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// let readership = device.readership(room).await?;
/// for user in &readership.users {
///     println!("{} ({})", user.user_id, user.identity.describe());
///     for device in &user.devices {
///         println!("  {}: {}, {}", device.device_id, device.trust.describe(), device.outlook.describe());
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Readership {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its events are encrypted. Where they are not, everybody can read them, the homeserver too.
    pub encrypted: bool,
    /// How careful a send would be.
    pub recipients: Recipients,
    /// Why a send would be refused, the most important first. Empty: it would be sent.
    pub refused: Vec<Refusal>,
    /// What somebody should look at although a send would not be refused.
    pub warnings: Vec<Refusal>,
    /// The key that the room uses. `None`: it has none.
    pub key: Option<RoomKeyStatus>,
    /// Why the next message would have a new key. `None`: it would have the one that there is.
    pub renewal: Option<RotationReason>,
    /// Everybody who may read, ourselves first.
    pub users: Vec<Reader>,
}

/// Something that a send would refuse, or warn of.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// let readership = device.readership(room).await?;
/// match readership.refused.first() {
///     Some(refusal) => println!("a send would fail with the code {}: {}", refusal.code, refusal.advice),
///     None => println!("a send would go through, with {} warnings", readership.warnings.len()),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// A stable name: the code of the error of the send, or of the receipt's warning.
    pub code: &'static str,
    /// What is wrong and what to do, in one sentence.
    pub advice: String,
}

impl Refusal {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            code: error.code(),
            advice: error.to_string(),
        }
    }
}

/// How much of a room's key is used up.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// if let Some(key) = device.readership(room).await?.key {
///     println!("{} messages until the next key, or {} ms after {:?}", key.most_messages - key.messages, key.period_ms, key.since_ms);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomKeyStatus {
    /// The id of its Megolm session.
    pub session_id: String,
    /// Since when, by our clock, in milliseconds since the Unix epoch, where it is known.
    pub since_ms: Option<u64>,
    /// How many milliseconds it may be used.
    pub period_ms: u64,
    /// How many messages it has encrypted.
    pub messages: u64,
    /// How many it may encrypt.
    pub most_messages: u64,
}

/// How far a user's identity is known.
///
/// ```
/// use mx_olm_orchestrator::ReaderIdentity;
///
/// fn mark(identity: ReaderIdentity) -> &'static str {
///     match identity {
///         ReaderIdentity::Verified => "verified",
///         ReaderIdentity::Unverified => "not verified",
///         ReaderIdentity::Replaced => "SOMEBODY ELSE?",
///         _ => "no identity",
///     }
/// }
/// assert_eq!(mark(ReaderIdentity::Replaced), "SOMEBODY ELSE?");
/// ```
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReaderIdentity {
    /// The user has none that is known here.
    None,
    /// The user has one, and we have not verified it.
    Unverified,
    /// We verified it.
    Verified,
    /// We verified one, and the user shows another one now.
    Replaced,
}

impl ReaderIdentity {
    /// The identity in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::None => "no identity",
            Self::Unverified => "identity not verified",
            Self::Verified => "identity verified",
            Self::Replaced => "IDENTITY REPLACED",
        }
    }
}

/// Somebody who may read.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// for reader in device.readership(room).await?.users {
///     let devices = reader.devices.iter().filter(|device| device.outlook.can_read()).count();
///     println!("{} reads on {devices} of {} devices", reader.user_id, reader.devices.len());
///     if reader.unknown {
///         println!("… and may have more: their server did not answer");
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Reader {
    /// Who.
    pub user_id: OwnedUserId,
    /// It is ourselves.
    pub own: bool,
    /// The room's policy, or the client's, lets them read.
    pub allowed: bool,
    /// Their devices are not known: their server did not answer.
    pub unknown: bool,
    /// Their identity.
    pub identity: ReaderIdentity,
    /// Their devices.
    pub devices: Vec<ReaderDevice>,
}

impl Reader {
    /// One of their devices can read the next message.
    #[must_use]
    pub fn can_read(&self) -> bool {
        self.devices.iter().any(|device| device.outlook.can_read())
    }
}

/// How far a device is trusted.
///
/// ```
/// use mx_olm_orchestrator::ReaderTrust;
///
/// // What `Recipients::OnlyTrusted` gives the key to.
/// let is_trusted = |trust| matches!(trust, ReaderTrust::Trusted | ReaderTrust::Verified);
/// assert!(!is_trusted(ReaderTrust::Signed), "{}", ReaderTrust::Signed.describe());
/// ```
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReaderTrust {
    /// Our own user blocked it.
    Blocked,
    /// Our own user trusted it by its fingerprint.
    Trusted,
    /// An identity has signed it that we verified.
    Verified,
    /// Its owner's identity has signed it, which we have not verified.
    Signed,
    /// Nobody has signed it.
    Unsigned,
    /// Its keys are not used, so that there is nothing to trust.
    Unusable,
}

impl ReaderTrust {
    /// The trust in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Trusted => "trusted by its fingerprint",
            Self::Verified => "verified",
            Self::Signed => "signed by its owner, who is not verified",
            Self::Unsigned => "not signed by its owner",
            Self::Unusable => "not usable",
        }
    }
}

/// Whether a device can read the next message.
///
/// ```
/// use mx_olm_orchestrator::Outlook;
///
/// let blocked = Outlook::Withheld { because: "m.blacklisted" };
/// assert!(!blocked.can_read() && blocked.is_decided(), "{}", blocked.describe());
/// assert!(Outlook::NeedsSession.can_read(), "as far as anybody can know");
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "outlook", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outlook {
    /// It is this very device.
    ThisDevice,
    /// It has the key already.
    HasKey,
    /// It is given the key.
    GetsKey,
    /// There is no Olm session with it yet: one is opened with a one-time key, if the homeserver has one.
    NeedsSession,
    /// There is no Olm session with it, and the last attempt to open one failed.
    NoSession {
        /// Why.
        reason: UnusableReason,
    },
    /// It is told that it gets no key.
    Withheld {
        /// The code that it is told.
        because: &'static str,
    },
    /// Its keys are not used.
    Unusable {
        /// Why.
        reason: UnusableReason,
    },
}

impl Outlook {
    /// The device can read the next message, as far as that can be known before.
    #[must_use]
    pub const fn can_read(&self) -> bool {
        matches!(
            self,
            Self::ThisDevice | Self::HasKey | Self::GetsKey | Self::NeedsSession
        )
    }

    /// It was decided here that it gets no key: it is blocked, or only trusted devices get it.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        matches!(self, Self::Withheld { .. })
    }

    /// The outlook as the end of a sentence that begins with the device.
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::ThisDevice => "this device",
            Self::HasKey => "has the key",
            Self::GetsKey => "gets the key with the next message",
            Self::NeedsSession => "gets the key with the next message, if it has a one-time key",
            Self::NoSession { reason } | Self::Unusable { reason } => reason.describe(),
            Self::Withheld { because } => match because.as_bytes() {
                b"m.blacklisted" => "gets no key: it is blocked",
                _ => "gets no key: only trusted devices do",
            },
        }
    }
}

/// A device of somebody who may read.
///
/// ```no_run
/// # fn example(reader: mx_olm_orchestrator::Reader) {
/// use mx_olm_orchestrator::{Outlook, ReaderDevice};
///
/// for ReaderDevice { device_id, outlook, .. } in &reader.devices {
///     match outlook {
///         Outlook::NoSession { reason } | Outlook::Unusable { reason } => println!("{device_id}: {}", reason.describe()),
///         other => println!("{device_id} {}", other.describe()),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ReaderDevice {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// What its owner calls it. It is not signed: the homeserver can say anything.
    pub name: Option<String>,
    /// Its fingerprint.
    pub ed25519: Option<String>,
    /// How far it is trusted.
    pub trust: ReaderTrust,
    /// Whether it can read the next message.
    #[serde(flatten)]
    pub outlook: Outlook,
}
