//! Why a room got a new key: found by comparing the key before with the key after, and never guessed.
//!
//! # Why
//! The engine renews a key for reasons of its own and does not say which. Each of them is looked for here in what it
//! looked at: the key's age and count, whom it was shared with, and who may read now. Where none of them holds, the receipt
//! says so.

use std::{collections::BTreeSet, time::Duration};

use matrix_sdk_crypto::{
    OlmMachine,
    olm::{PickledOutboundGroupSession, ShareInfo},
};
use mx_crypto_store::Unit;
use ruma::{OwnedUserId, RoomId, events::room::history_visibility::HistoryVisibility};
use serde::{Deserialize, Serialize};

use super::{
    Recipients,
    share::{Held, shares},
};
use crate::{
    Orchestrator, Result,
    keys::conflict::is_outdated,
    machine::Ending,
    rooms::{RoomEncryption, RoomRecord},
};

/// So many of those who left since the last send are remembered by name.
const MOST_NAMED: usize = 1_000;

/// Why a room got a new key.
///
/// ```no_run
/// # fn example(receipt: mx_olm_orchestrator::SendReceipt) {
/// if let Some(reason) = receipt.rotation {
///     println!("{} has a new key, for {}", receipt.room_id, reason.describe());
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RotationReason {
    /// The room had none.
    FirstKey,
    /// The room had one, and it is not in the store any more.
    SessionLost,
    /// It encrypted as many messages as the room allows.
    Messages,
    /// It is as old as the room allows, or the clock was set.
    Time,
    /// Somebody who may have it is not in the room any more.
    MemberLeft,
    /// Somebody left and came back: what was said meanwhile is not theirs to read.
    Rejoined,
    /// A sync left events out for good: somebody may have left meanwhile.
    EventsMissed,
    /// We left the room, or were put out, and are back.
    OwnRejoined,
    /// A device that has it does not exist any more.
    DeviceRemoved,
    /// A device that has it was blocked.
    DeviceBlocked,
    /// A device that has it is not among those that the policy allows.
    Policy,
    /// A device that has it shows another Curve25519 key.
    DeviceKeysChanged,
    /// The room's history is visible to others than before.
    VisibilityChanged,
    /// The caller asked for it.
    ByHand,
    /// A conflict or a rollback of the store was acknowledged.
    StoreConflict,
    /// The engine made a new one and none of the reasons above holds.
    Unknown,
}

impl RotationReason {
    /// The reason as the end of a sentence that begins with the room key.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::FirstKey => "it is the first one of this room",
            Self::SessionLost => "the store does not hold the earlier one",
            Self::Messages => "the earlier one encrypted as many messages as the room allows",
            Self::Time => "the earlier one was as old as the room allows, or the clock was set",
            Self::MemberLeft => "somebody left the room",
            Self::Rejoined => "somebody left the room and came back",
            Self::EventsMissed => "events were missed, and somebody may have left",
            Self::OwnRejoined => "we had left the room",
            Self::DeviceRemoved => "a device was removed",
            Self::DeviceBlocked => "a device was blocked",
            Self::Policy => "the policy leaves out a device that had the earlier one",
            Self::DeviceKeysChanged => "a device has other keys",
            Self::VisibilityChanged => "the visibility of the room's history was changed",
            Self::ByHand => "it was asked for",
            Self::StoreConflict => "the store had been set back or copied",
            Self::Unknown => "the encryption engine renewed it",
        }
    }
}

/// Why the room's key is not used any more, known before the next send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub(crate) enum Due {
    ByHand,
    Left { users: BTreeSet<OwnedUserId> },
    EventsMissed,
    OwnLeft,
}

impl Due {
    fn reason(&self, readers: &BTreeSet<OwnedUserId>) -> RotationReason {
        match self {
            Self::ByHand => RotationReason::ByHand,
            Self::Left { users } if users.is_disjoint(readers) => RotationReason::MemberLeft,
            Self::Left { .. } => RotationReason::Rejoined,
            Self::EventsMissed => RotationReason::EventsMissed,
            Self::OwnLeft => RotationReason::OwnRejoined,
        }
    }
}

/// The key that a room uses, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) session_id: String,
    /// By our clock, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    pub(crate) reason: RotationReason,
}

/// A room's key as the store has it.
pub(super) struct RoomKey {
    pub(super) id: String,
    pub(super) pickled: PickledOutboundGroupSession,
    /// In the engine's eyes.
    expired: bool,
}

impl RoomKey {
    pub(super) async fn load(machine: &OlmMachine, room: &RoomId) -> Result<Option<Self>> {
        match machine.store().get_outbound_group_session(room).await? {
            Some(session) => Ok(Some(Self {
                id: session.session_id().to_owned(),
                expired: session.expired(),
                pickled: session.pickle().await,
            })),
            None => Ok(None),
        }
    }
}

/// What a key may be used for now.
pub(super) struct Now<'a> {
    pub(super) encryption: &'a RoomEncryption,
    pub(super) visibility: &'a HistoryVisibility,
    pub(super) readers: &'a BTreeSet<OwnedUserId>,
    pub(super) held: &'a Held,
    pub(super) now_ms: u64,
}

/// Why the room's key must not be used any more although the engine might: what a sync or the caller said, what the
/// room allows by now, an acknowledged conflict, or a device with another Curve25519 key, which would not be given the key
/// again (reference: engine, gaps B9, B10 and B11).
pub(super) async fn must_renew(
    unit: &Unit,
    room: &RoomId,
    record: &RoomRecord,
    before: Option<&RoomKey>,
    now: &Now<'_>,
) -> Result<Option<RotationReason>> {
    let outdated = is_outdated(unit, room).await?;
    let Some(before) = before else {
        return Ok(None);
    };
    if outdated {
        return Ok(Some(RotationReason::StoreConflict));
    }
    if let Some(due) = &record.due {
        return Ok(Some(due.reason(now.readers)));
    }
    let spent = spent(
        record,
        now.encryption,
        &before.id,
        before.pickled.message_count,
        now.now_ms,
    );
    if spent.is_some() {
        return Ok(spent);
    }
    let changed = shares(&before.pickled).into_iter().any(|((user, device), share)| {
        let held = now.held.get(&user).and_then(|devices| devices.get(&device));
        match share {
            ShareInfo::Shared(given) => held.is_some_and(|held| held.curve25519_key() != Some(given.sender_key)),
            ShareInfo::Withheld(_) => false,
        }
    });
    Ok(changed.then_some(RotationReason::DeviceKeysChanged))
}

/// Why a key that has encrypted so many messages must not encrypt another one, by what the room allows now and by our
/// clock. The engine knows what the room allowed when the key was made.
pub(super) fn spent(
    record: &RoomRecord,
    encryption: &RoomEncryption,
    session_id: &str,
    messages: u64,
    now_ms: u64,
) -> Option<RotationReason> {
    if messages >= encryption.rotation_messages() {
        return Some(RotationReason::Messages);
    }
    let key = record.key.as_ref().filter(|key| key.session_id == session_id);
    // A clock that was put far back is as wrong as an old key.
    let period = encryption.rotation_period();
    let is_old = key.is_some_and(|key| Duration::from_millis(now_ms.abs_diff(key.since_ms)) >= period);
    is_old.then_some(RotationReason::Time)
}

/// Why the engine made a new key where [`must_renew`] asked for none.
pub(super) fn why(record: &RoomRecord, before: Option<&RoomKey>, after: &RoomKey, now: &Now<'_>) -> RotationReason {
    let Some(before) = before else {
        return if record.key.is_some() {
            RotationReason::SessionLost
        } else {
            RotationReason::FirstKey
        };
    };
    let after = shares(&after.pickled);
    let mut found = None;
    for ((user, device), share) in shares(&before.pickled) {
        if !matches!(share, ShareInfo::Shared(_)) {
            continue;
        }
        if !now.readers.contains(&user) {
            return RotationReason::MemberLeft;
        }
        match now.held.get(&user).and_then(|devices| devices.get(&device)) {
            None => found = Some(RotationReason::DeviceRemoved),
            Some(held) if held.is_blacklisted() => found = found.or(Some(RotationReason::DeviceBlocked)),
            Some(_) if matches!(after.get(&(user, device)), Some(ShareInfo::Withheld(_))) => {
                found = found.or(Some(RotationReason::Policy));
            }
            Some(_) => {}
        }
    }
    let settings = &before.pickled.settings;
    if before.pickled.invalidated {
        RotationReason::Unknown
    } else if before.expired && before.pickled.message_count >= settings.rotation_period_msgs {
        RotationReason::Messages
    } else if before.expired {
        RotationReason::Time
    } else if settings.history_visibility != *now.visibility {
        RotationReason::VisibilityChanged
    } else {
        found.unwrap_or(RotationReason::Unknown)
    }
}

/// Why the engine will make a new key where [`must_renew`] asks for none, as far as that can be seen before.
pub(super) fn foreseen(
    record: &RoomRecord,
    before: Option<&RoomKey>,
    now: &Now<'_>,
    recipients: Recipients,
) -> Option<RotationReason> {
    let Some(before) = before else {
        return Some(match (&record.due, &record.key) {
            (Some(due), _) => due.reason(now.readers),
            (None, Some(_)) => RotationReason::SessionLost,
            (None, None) => RotationReason::FirstKey,
        });
    };
    let mut found = None;
    for ((user, device), share) in shares(&before.pickled) {
        if !matches!(share, ShareInfo::Shared(_)) {
            continue;
        }
        if !now.readers.contains(&user) {
            return Some(RotationReason::MemberLeft);
        }
        found = match now.held.get(&user).and_then(|devices| devices.get(&device)) {
            None => Some(RotationReason::DeviceRemoved),
            Some(held) if held.is_blacklisted() => found.or(Some(RotationReason::DeviceBlocked)),
            Some(held) if recipients == Recipients::OnlyTrusted && !held.is_verified() => {
                found.or(Some(RotationReason::Policy))
            }
            Some(_) => found,
        };
    }
    if before.pickled.invalidated {
        Some(RotationReason::Unknown)
    } else if before.expired {
        Some(RotationReason::Time)
    } else if before.pickled.settings.history_visibility != *now.visibility {
        Some(RotationReason::VisibilityChanged)
    } else {
        found
    }
}

impl Orchestrator {
    /// Give the room a new key with the next send. Returns whether there was one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// // Nothing was sent to this room yet: the first message makes a key anyway.
    /// assert!(!device.rotate_room_key(ruma::room_id!("!alerts:example.org")).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store: nothing is changed then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn rotate_room_key(&self, room: &RoomId) -> Result<bool> {
        let room = room.to_owned();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move { Ok(Ending::Commit(end_key(machine, unit, &room, Due::ByHand).await?)) })
            })
            .await
    }
}

/// End the room's key, and remember why. The first reason stays. Returns whether there was a key.
pub(crate) async fn end_key(machine: &OlmMachine, unit: &Unit, room: &RoomId, due: Due) -> Result<bool> {
    if !machine.discard_room_key(room).await? {
        return Ok(false);
    }
    let mut record = RoomRecord::load(unit, room).await?;
    match (&mut record.due, due) {
        (Some(Due::Left { users }), Due::Left { users: more }) => {
            let room_for = MOST_NAMED.saturating_sub(users.len());
            users.extend(more.into_iter().take(room_for));
        }
        (Some(_), _) => return Ok(true),
        (none, due) => *none = Some(due),
    }
    record.save(unit, room)?;
    Ok(true)
}
