//! To-device events on their way to the engine and out of it: what is too much is left out, what is rejected is named.
//!
//! # Why
//! The engine looks at the first entry of a message's `ciphertext` only, takes sessions and room keys of anybody without
//! a limit, and tells of most rejections in its log alone (reference: engine, gaps B12, B19, B22).

use std::collections::BTreeMap;

use matrix_sdk_common::deserialized_responses::{AlgorithmInfo, ProcessedToDeviceEvent};
use matrix_sdk_crypto::vodozemac::olm::{OlmMessage, PreKeyMessage};
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::AnyToDeviceEvent, serde::Raw};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{key_requests::Asked, withheld};
use crate::verification::LeftOut;

/// More than a room key, a secret or a verification ever needs, in bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// As many rejections of one sync are named; all are counted.
pub(super) const MAX_NAMED: usize = 100;

const OLM: &str = "m.olm.v1.curve25519-aes-sha2";

/// A to-device event that had no effect.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let told = device.sync(std::time::Duration::from_secs(30)).await?;
/// for rejected in &told.rejected {
///     println!("{} of {:?} [{}]", rejected.event_type, rejected.sender, rejected.reason.code());
/// }
/// // All are counted, the first hundred are named.
/// println!("{} to-device events had no effect", told.to_device_rejected);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToDeviceRejected {
    /// Who sent it, as the homeserver says, where it does.
    pub sender: Option<OwnedUserId>,
    /// Its type, at most 64 characters of it. Of one that could be decrypted, the type inside.
    pub event_type: String,
    /// Why.
    pub reason: ToDeviceRejectedReason,
}

/// Why a to-device event had no effect.
///
/// ```
/// use mx_olm_orchestrator::ToDeviceRejectedReason as Reason;
///
/// /// Whether a server or a user tries something, and it is not a key that got lost.
/// fn is_suspicious(reason: Reason) -> bool {
///     matches!(reason, Reason::Replay | Reason::Plaintext | Reason::Unsolicited | Reason::TooManyRoomKeys)
/// }
/// assert!(!is_suspicious(Reason::Undecryptable), "{}", Reason::Undecryptable.code());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToDeviceRejectedReason {
    /// It is larger than anything that is sent to a device.
    TooLarge,
    /// It is not an event: it has no type, no sender, or no content that is an object.
    Invalid,
    /// It is encrypted, and not for this device.
    NotForThisDevice,
    /// It is encrypted with an algorithm that to-device events may not have.
    UnsupportedAlgorithm,
    /// It could not be decrypted, or what was inside did not belong to its sender or to us.
    Undecryptable,
    /// It was handled before.
    Replay,
    /// It has to be encrypted, and is not.
    Plaintext,
    /// Room keys of others are not taken from anybody who offers them.
    Unsolicited,
    /// Its sender has given us as many room keys as one user may in a day.
    TooManyRoomKeys,
    /// Its sender has said of as many room keys as one user may in a day that we are not given them.
    TooManyWithheld,
    /// It asks for a room key or a secret, and nothing is given: the store was set back, or runs twice.
    NotAnswered,
    /// It belongs to no verification that is under way.
    UnknownVerification,
    /// More verifications are asked for than anybody needs.
    TooManyVerifications,
}

impl ToDeviceRejectedReason {
    /// A stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::NotForThisDevice => "not_for_this_device",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::Undecryptable => "undecryptable",
            Self::Replay => "replay",
            Self::Plaintext => "plaintext",
            Self::Unsolicited => "unsolicited",
            Self::TooManyRoomKeys => "too_many_room_keys",
            Self::TooManyWithheld => "too_many_withheld",
            Self::NotAnswered => "not_answered",
            Self::UnknownVerification => "unknown_verification",
            Self::TooManyVerifications => "too_many_verifications",
        }
    }
}

impl From<LeftOut> for ToDeviceRejectedReason {
    fn from(why: LeftOut) -> Self {
        match why {
            LeftOut::TooLarge => Self::TooLarge,
            LeftOut::Unknown => Self::UnknownVerification,
            LeftOut::TooMany => Self::TooManyVerifications,
        }
    }
}

/// What was rejected in one sync.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejections {
    pub(super) named: Vec<ToDeviceRejected>,
    pub(super) count: usize,
}

impl Rejections {
    pub(super) fn add(&mut self, sender: Option<OwnedUserId>, event_type: &str, reason: ToDeviceRejectedReason) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(ToDeviceRejected {
                sender,
                event_type: event_type.chars().take(64).collect(),
                reason,
            });
        }
    }
}

/// What every to-device event has.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(rename = "type")]
    pub(super) event_type: String,
    pub(super) sender: OwnedUserId,
    pub(super) content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Encrypted {
    algorithm: String,
    #[serde(default)]
    sender_key: String,
    #[serde(default)]
    ciphertext: Option<Box<RawValue>>,
}

/// An Olm message for us, before anything was done with it.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) sender: OwnedUserId,
    /// The Curve25519 key of the device that says to have sent it.
    pub(super) sender_key: String,
    pub(super) message: OlmMessage,
}

impl Letter {
    /// Read an encrypted to-device event that has been through [`checked`].
    pub(super) fn read(event: &Raw<AnyToDeviceEvent>) -> Option<Self> {
        let header: Header = serde_json::from_str(event.json().get()).ok()?;
        let content: Encrypted = serde_json::from_str(header.content.get()).ok()?;
        let entries: BTreeMap<String, OlmMessage> = serde_json::from_str(content.ciphertext?.get()).ok()?;
        Some(Self {
            sender: header.sender,
            sender_key: content.sender_key,
            message: entries.into_values().next()?,
        })
    }

    /// The session that a message which opens sessions is for.
    fn new_session(&self) -> Option<String> {
        if let OlmMessage::PreKey(message) = &self.message {
            Some(PreKeyMessage::session_id(message))
        } else {
            None
        }
    }
}

/// Sessions that the messages of a sync may open, by the device that opens them, the newest last.
pub(super) type Opening = BTreeMap<String, Vec<String>>;

/// Leave out what is too much or not for us; of the rest, keep the one entry of each ciphertext that is ours.
pub(super) fn checked(
    events: Vec<Raw<AnyToDeviceEvent>>,
    our_key: &str,
    rejections: &mut Rejections,
    opening: &mut Opening,
) -> Vec<Raw<AnyToDeviceEvent>> {
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        if event.json().get().len() > MAX_EVENT_BYTES {
            rejections.add(None, "", ToDeviceRejectedReason::TooLarge);
            continue;
        }
        let Ok(header) = serde_json::from_str::<Header>(event.json().get()) else {
            rejections.add(None, "", ToDeviceRejectedReason::Invalid);
            continue;
        };
        if header.event_type != "m.room.encrypted" {
            kept.push(event);
            continue;
        }
        match ours(&event, &header, our_key) {
            Ok(event) => {
                if let Some(letter) = Letter::read(&event)
                    && let Some(session) = letter.new_session()
                {
                    let sessions = opening.entry(letter.sender_key).or_default();
                    sessions.retain(|known| *known != session);
                    sessions.push(session);
                }
                kept.push(event);
            }
            Err(reason) => rejections.add(Some(header.sender), &header.event_type, reason),
        }
    }
    kept
}

/// An encrypted event with the one entry of its ciphertext that is for us.
fn ours(
    event: &Raw<AnyToDeviceEvent>,
    header: &Header,
    our_key: &str,
) -> Result<Raw<AnyToDeviceEvent>, ToDeviceRejectedReason> {
    let Ok(content) = serde_json::from_str::<Encrypted>(header.content.get()) else {
        return Err(ToDeviceRejectedReason::Invalid);
    };
    if content.algorithm != OLM {
        return Err(ToDeviceRejectedReason::UnsupportedAlgorithm);
    }
    let entries: BTreeMap<String, Box<RawValue>> = content
        .ciphertext
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .ok_or(ToDeviceRejectedReason::Invalid)?;
    let Some(entry) = entries.get(our_key) else {
        return Err(ToDeviceRejectedReason::NotForThisDevice);
    };
    if entries.len() == 1 {
        return Ok(event.clone());
    }
    let mut whole: serde_json::Value =
        serde_json::from_str(event.json().get()).map_err(|_| ToDeviceRejectedReason::Invalid)?;
    let content = whole
        .get_mut("content")
        .and_then(serde_json::Value::as_object_mut)
        .ok_or(ToDeviceRejectedReason::Invalid)?;
    content.insert("ciphertext".to_owned(), serde_json::json!({our_key: entry}));
    let raw = serde_json::value::to_raw_value(&whole).map_err(|_| ToDeviceRejectedReason::Invalid)?;
    Ok(Raw::from_json(raw))
}

/// What the engine made of one to-device event, as far as it concerns us.
pub(super) enum Took {
    /// A room key came, or something else that was decrypted.
    Decrypted { sender_key: Option<String>, inside: Inside },
    /// It was for us and could not be decrypted.
    Closed(Option<Letter>),
    /// Somebody says to be another device of ours, and asks for a room key.
    KeyRequest(Asked),
    /// A sender told us that it withholds a room key.
    Withheld { room: OwnedRoomId, session: String },
    /// A sender told us that it could not open a session with us.
    NoSession { sender: OwnedUserId, sender_key: String },
    /// Nothing that concerns us.
    Nothing,
}

/// What was inside of a decrypted to-device event, as far as it concerns us.
#[derive(Deserialize)]
pub(super) struct Inside {
    #[serde(rename = "type", default)]
    pub(super) event_type: String,
    #[serde(default)]
    pub(super) sender: Option<OwnedUserId>,
    #[serde(default)]
    content: Named,
}

/// Which session a room key is for. The key itself is not read.
#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    room_id: serde_json::Value,
    #[serde(default)]
    session_id: serde_json::Value,
}

impl Inside {
    /// The room that a bundle of room keys is for.
    pub(super) fn bundle(&self) -> Option<OwnedRoomId> {
        if !BUNDLES.contains(&self.event_type.as_str()) {
            return None;
        }
        OwnedRoomId::try_from(self.content.room_id.as_str()?).ok()
    }

    /// The session that a forwarded room key says to be for.
    pub(super) fn forwarded_key(&self) -> Option<(OwnedRoomId, String)> {
        if self.event_type != "m.forwarded_room_key" {
            return None;
        }
        Some((
            OwnedRoomId::try_from(self.content.room_id.as_str()?).ok()?,
            self.content.session_id.as_str()?.to_owned(),
        ))
    }
}

/// A bundle of room keys, by its name and by the one that it had before.
const BUNDLES: [&str; 2] = ["m.room_key_bundle", "io.element.msc4268.room_key_bundle"];

/// Events that carry secrets, and mean nothing as plaintext.
const ALWAYS_ENCRYPTED: [&str; 5] = [
    "m.room_key",
    "m.forwarded_room_key",
    "m.secret.send",
    "m.room_key_bundle",
    "io.element.msc4268.room_key_bundle",
];

/// Types that the engine or this crate handles: the others are for the app.
pub(super) fn is_known(event_type: &str) -> bool {
    [
        "m.dummy",
        "m.room_key",
        "m.forwarded_room_key",
        "m.secret.",
        "m.key.verification.",
        "io.element.msc4268.",
    ]
    .iter()
    .any(|known| event_type.starts_with(known))
}

/// The Curve25519 key of the device whose session opened a message.
pub(super) fn opened_with(info: &AlgorithmInfo) -> Option<String> {
    match info {
        AlgorithmInfo::OlmV1Curve25519AesSha2 {
            curve25519_public_key_base64,
        } => Some(curve25519_public_key_base64.clone()),
        AlgorithmInfo::MegolmV1AesSha2 { .. } => None,
    }
}

/// Look at what the engine made of an event.
pub(super) fn look(processed: &ProcessedToDeviceEvent, own: &UserId, rejections: &mut Rejections) -> Took {
    match processed {
        ProcessedToDeviceEvent::Decrypted { raw, encryption_info } => {
            let sender_key = opened_with(&encryption_info.algorithm_info);
            match serde_json::from_str::<Inside>(raw.json().get()) {
                Ok(inside) => Took::Decrypted { sender_key, inside },
                Err(_) => Took::Nothing,
            }
        }
        ProcessedToDeviceEvent::UnableToDecrypt { encrypted_event, .. } => Took::Closed(Letter::read(encrypted_event)),
        ProcessedToDeviceEvent::PlainText(raw) => {
            let Ok(header) = serde_json::from_str::<Header>(raw.json().get()) else {
                rejections.add(None, "", ToDeviceRejectedReason::Invalid);
                return Took::Nothing;
            };
            if ALWAYS_ENCRYPTED.contains(&header.event_type.as_str()) {
                rejections.add(
                    Some(header.sender),
                    &header.event_type,
                    ToDeviceRejectedReason::Plaintext,
                );
                return Took::Nothing;
            }
            if header.event_type == "m.room_key_request" && header.sender == own {
                return Asked::read(header.content.get()).map_or(Took::Nothing, Took::KeyRequest);
            }
            withheld::read(&header).unwrap_or(Took::Nothing)
        }
        ProcessedToDeviceEvent::Invalid(_) => {
            rejections.add(None, "", ToDeviceRejectedReason::Invalid);
            Took::Nothing
        }
    }
}
