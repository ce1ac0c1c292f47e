//! One encrypted room event through the engine: its plaintext and its place in its session, or why not.

use matrix_sdk_common::deserialized_responses::{
    DecryptedRoomEvent, DeviceLinkProblem, UnableToDecryptInfo, UnableToDecryptReason, VerificationLevel,
    VerificationState,
};
use matrix_sdk_crypto::{
    OlmMachine, RoomEventDecryptionResult,
    olm::SenderData,
    types::events::room::encrypted::{EncryptedEvent, RoomEventEncryptionScheme},
};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId, serde::Raw};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{decryption_settings, inside};
use crate::{RejectedReason, Result, Trust, UndecryptableReason, rooms::MEGOLM, verification::is_heard};

/// Where in a Megolm session a message says to be.
pub(super) struct MessagePlace {
    pub(super) session: String,
    pub(super) index: u32,
    pub(super) ciphertext: String,
    pub(super) claimed_device: Option<OwnedDeviceId>,
}

pub(super) struct Opened {
    pub(super) decrypted: DecryptedRoomEvent,
    pub(super) place: MessagePlace,
    /// What the event relates to, as its outside says, which is what counts.
    pub(super) relation: Option<serde_json::Value>,
    /// How far its device is known.
    pub(super) trust: Trust,
}

impl Opened {
    /// Whether it is an event of a verification with `own`, which no app is told.
    pub(super) fn is_of_a_verification_with(&self, own: &UserId) -> bool {
        let raw = self.decrypted.event.json();
        inside::read(raw, None).is_ok_and(|inside| is_heard(&inside.event_type, &inside.content, own))
    }
}

pub(super) struct Closed {
    pub(super) reason: UndecryptableReason,
    /// It is not only undecryptable: it must not be believed.
    pub(super) rejected: Option<RejectedReason>,
    pub(super) place: Option<MessagePlace>,
}

pub(super) enum Outcome {
    /// The plaintext.
    Open(Box<Opened>),
    /// Why not.
    Closed(Closed),
}

impl Outcome {
    const fn closed(reason: UndecryptableReason) -> Self {
        Self::Closed(Closed {
            reason,
            rejected: None,
            place: None,
        })
    }
}

pub(super) async fn decrypt(machine: &OlmMachine, room: &RoomId, raw: &RawValue) -> Result<Outcome> {
    let Some((event, parsed)) = parse(raw) else {
        return Ok(Outcome::closed(unreadable(raw)));
    };
    let RoomEventEncryptionScheme::MegolmV1AesSha2(content) = &parsed.content.scheme else {
        return Ok(Outcome::closed(unreadable(raw)));
    };
    let place = MessagePlace {
        session: content.session_id.clone(),
        index: content.ciphertext.message_index(),
        ciphertext: content.ciphertext.to_base64(),
        claimed_device: content.device_id.clone(),
    };
    if !is_canonical(raw, &place.ciphertext) {
        return Ok(Outcome::Closed(Closed {
            reason: UndecryptableReason::BadCiphertext,
            rejected: None,
            place: Some(place),
        }));
    }
    let settings = decryption_settings();
    Ok(
        match Box::pin(machine.try_decrypt_room_event(&event, room, &settings)).await? {
            RoomEventDecryptionResult::Decrypted(decrypted) => Outcome::Open(Box::new(Opened {
                trust: trust(&decrypted.encryption_info.verification_state),
                decrypted,
                place,
                relation: parsed.content.relates_to.clone(),
            })),
            RoomEventDecryptionResult::UnableToDecrypt(info) => Outcome::Closed(Closed {
                reason: reason_of(&info),
                // The key that signs the session is not the one of the device that gave it.
                rejected: matches!(info.reason, UnableToDecryptReason::MismatchedIdentityKeys)
                    .then_some(RejectedReason::SenderUnattributed),
                place: Some(place),
            }),
        },
    )
}

/// Why a message is not from whom the homeserver says.
pub(super) async fn not_the_senders(
    machine: &OlmMachine,
    room: &RoomId,
    sender: &UserId,
    opened: &Opened,
) -> Result<Option<RejectedReason>> {
    let state = &opened.decrypted.encryption_info.verification_state;
    if !matches!(
        state,
        VerificationState::Unverified(VerificationLevel::MismatchedSender | VerificationLevel::None(_))
    ) {
        return Ok(None);
    }
    let session = machine
        .store()
        .get_inbound_group_session(room, &opened.place.session)
        .await?;
    let Some(session) = session else { return Ok(None) };
    let owner = owner(&session.sender_data);
    if owner.as_ref().is_some_and(|owner| *owner != sender)
        || matches!(
            state,
            VerificationState::Unverified(VerificationLevel::MismatchedSender)
        )
    {
        return Ok(Some(RejectedReason::SenderMismatch { owner }));
    }
    let unattributed = matches!(
        session.sender_data,
        SenderData::UnknownDevice {
            owner_check_failed: true,
            ..
        }
    );
    Ok(unattributed.then_some(RejectedReason::SenderUnattributed))
}

/// An event for the engine, which wants a time that is one: where the homeserver's is none, it is zero.
fn parse(raw: &RawValue) -> Option<(Raw<EncryptedEvent>, EncryptedEvent)> {
    let event: Raw<EncryptedEvent> = Raw::from_json(raw.to_owned());
    if let Ok(parsed) = event.deserialize() {
        return Some((event, parsed));
    }
    let mut value: serde_json::Value = serde_json::from_str(raw.get()).ok()?;
    value.as_object_mut()?.insert("origin_server_ts".to_owned(), 0.into());
    let event: Raw<EncryptedEvent> = Raw::from_json(serde_json::value::to_raw_value(&value).ok()?);
    let parsed = event.deserialize().ok()?;
    Some((event, parsed))
}

#[derive(Deserialize)]
struct Ciphertext {
    content: CiphertextText,
}

#[derive(Deserialize)]
struct CiphertextText {
    ciphertext: String,
}

/// Whether a message is written as its sender wrote it. The MAC and the signature are over the message as the engine
/// writes it again, so that they prove nothing of a field that it skips or leaves out: such a message opens, and is not
/// what was sent.
fn is_canonical(raw: &RawValue, again: &str) -> bool {
    serde_json::from_str::<Ciphertext>(raw.get())
        .is_ok_and(|event| event.content.ciphertext.trim_end_matches('=') == again)
}

#[derive(Deserialize)]
struct Algorithm {
    content: AlgorithmName,
}

#[derive(Deserialize)]
struct AlgorithmName {
    algorithm: String,
}

/// Why an event that is not a Megolm message cannot be read.
fn unreadable(raw: &RawValue) -> UndecryptableReason {
    match serde_json::from_str::<Algorithm>(raw.get()) {
        Ok(event) if event.content.algorithm != MEGOLM => UndecryptableReason::UnsupportedAlgorithm {
            algorithm: event.content.algorithm.chars().take(64).collect(),
        },
        _ => UndecryptableReason::Malformed,
    }
}

fn reason_of(info: &UnableToDecryptInfo) -> UndecryptableReason {
    match &info.reason {
        UnableToDecryptReason::MissingMegolmSession {
            withheld_code: Some(code),
        } => UndecryptableReason::Withheld {
            withheld: code.as_str().to_owned(),
        },
        UnableToDecryptReason::MissingMegolmSession { withheld_code: None } => UndecryptableReason::MissingRoomKey,
        UnableToDecryptReason::UnknownMegolmMessageIndex => UndecryptableReason::KeyStartsLater,
        UnableToDecryptReason::MalformedEncryptedEvent => UndecryptableReason::Malformed,
        UnableToDecryptReason::PayloadDeserializationFailure => UndecryptableReason::BadPayload,
        _ => UndecryptableReason::BadCiphertext,
    }
}

/// Whose key it is, as far as that is proven.
fn owner(data: &SenderData) -> Option<OwnedUserId> {
    match data {
        SenderData::UnknownDevice { .. } => None,
        SenderData::DeviceInfo { device_keys, .. } => Some(device_keys.user_id.clone()),
        SenderData::VerificationViolation(known)
        | SenderData::SenderUnverified(known)
        | SenderData::SenderVerified(known) => Some(known.user_id.clone()),
    }
}

pub(super) fn trust(state: &VerificationState) -> Trust {
    match state {
        VerificationState::Verified => Trust::Verified,
        VerificationState::Unverified(VerificationLevel::UnverifiedIdentity) => Trust::CrossSigned,
        VerificationState::Unverified(VerificationLevel::VerificationViolation) => Trust::IdentityChanged,
        VerificationState::Unverified(VerificationLevel::UnsignedDevice) => Trust::Unsigned,
        VerificationState::Unverified(VerificationLevel::None(DeviceLinkProblem::InsecureSource)) => Trust::Imported,
        VerificationState::Unverified(_) => Trust::Unknown,
    }
}
