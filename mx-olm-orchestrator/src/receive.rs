//! One sync, one unit of work: keys, decryption, replay index, inbox and `next_batch` are on the disk together or not
//! at all.

mod gaps;
pub(crate) mod inbox;
mod replay;
mod timeline;
mod undecryptable;

use std::collections::BTreeSet;

use matrix_sdk_crypto::store::types::RoomKeyInfo;
use matrix_sdk_crypto::{DecryptionSettings, EncryptionSyncChanges, OlmMachine, TrustRequirement};
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::inbox::Delivery;
use crate::{
    Event, Gap, Invite, Result,
    members::MemberChange,
    rooms::RoomRecord,
    sync_response::{JoinedRoom, SyncResponse},
};

/// Synapse gives at most this many to-device events in one sync: as many mean that there may be more.
const TO_DEVICE_PAGE: usize = 100;

/// What a sync brought. The events themselves are in the inbox.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SyncSummary {
    /// Events that were put into the inbox.
    pub events: usize,
    /// Room keys that came.
    pub room_keys: usize,
    /// To-device events that could not be decrypted.
    pub to_device_undecryptable: usize,
    /// Events that wait for their key since this sync.
    pub waiting: usize,
    /// Encrypted events from before this device existed, which nobody could have encrypted for it.
    pub before_this_device: usize,
    /// Parts of the answer that could not be read, by name.
    pub unreadable: Vec<String>,
    /// The homeserver holds more to-device events: sync again at once.
    pub more_waiting: bool,
}

/// What the work of one sync is told about its device.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) user: OwnedUserId,
    pub(crate) device: OwnedDeviceId,
    pub(crate) now_ms: u64,
    /// There was no `since`: rooms come with history from before.
    pub(crate) first_sync: bool,
    pub(crate) report_after_ms: u64,
    pub(crate) deliver_own: bool,
    /// Events that were missed for good.
    pub(crate) gaps: Vec<Gap>,
}

/// What a sync changes outside of the store, once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) summary: SyncSummary,
    pub(crate) members: Vec<(OwnedRoomId, MemberChange)>,
}

/// Events are decrypted whoever sent them; what they are worth is said with each.
pub(crate) fn decryption_settings() -> DecryptionSettings {
    DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    }
}

/// Take one answer to `/sync` into `unit`.
pub(crate) async fn take(machine: &OlmMachine, unit: &Unit, sync: SyncResponse, context: Context) -> Result<Taken> {
    let mut taken = Taken::default();
    taken.summary.unreadable = sync.unreadable;
    taken.summary.more_waiting = sync.to_device.len() >= TO_DEVICE_PAGE;
    for (room, joined) in &sync.joined {
        remember(unit, room, joined, &mut taken).await?;
    }
    taken
        .members
        .extend(sync.left.into_iter().map(|room| (room, MemberChange::Forget)));

    let changes = EncryptionSyncChanges {
        to_device_events: sync.to_device,
        changed_devices: &sync.device_lists,
        one_time_keys_counts: &sync.one_time_keys,
        unused_fallback_keys: sync.unused_fallback_keys.as_deref(),
        next_batch_token: Some(sync.next_batch),
    };
    let (processed, room_keys) = Box::pin(machine.receive_sync_changes(changes, &decryption_settings())).await?;
    taken.summary.room_keys = room_keys.len();
    taken.summary.to_device_undecryptable = processed
        .iter()
        .filter(|event| {
            matches!(
                event,
                matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent::UnableToDecrypt { .. }
            )
        })
        .count();

    let mut events: Vec<Event> = context.gaps.iter().cloned().map(Event::Gap).collect();
    let mut timelines = timeline::Timelines::new(machine, unit, &context, &mut taken.summary, &mut events);
    for key in unique(&room_keys) {
        timelines.retry(&key.room_id, &key.session_id).await?;
    }
    for (room, joined) in sync.joined {
        timelines.room(&room, joined.timeline).await?;
    }
    let senders = timelines.into_senders();
    Box::pin(machine.update_tracked_users(senders.iter().map(AsRef::as_ref))).await?;
    for (room, state) in sync.invited {
        events.push(Event::Invite(invite(room, &state, &context.user)));
    }
    events.extend(
        undecryptable::due(unit, context.now_ms)
            .await?
            .into_iter()
            .map(Event::Undecryptable),
    );
    inbox::append(unit, &events).await?;
    taken.summary.events = events.len();
    Ok(taken)
}

/// Each session once, in the order in which its key came.
fn unique(keys: &[RoomKeyInfo]) -> Vec<&RoomKeyInfo> {
    let mut seen = BTreeSet::new();
    keys.iter()
        .filter(|key| seen.insert((key.room_id.as_str(), key.session_id.as_str())))
        .collect()
}

/// A state event, as far as it concerns us.
#[derive(Deserialize)]
pub(crate) struct StateEvent {
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) state_key: String,
    #[serde(default)]
    pub(crate) sender: Option<OwnedUserId>,
    #[serde(default)]
    pub(crate) content: serde_json::Value,
}

/// Latch what the room's state says, and note who came and went.
async fn remember(unit: &Unit, room: &OwnedRoomId, joined: &JoinedRoom, taken: &mut Taken) -> Result<()> {
    let before = RoomRecord::load(unit, room).await?;
    let mut after = before.clone();
    if joined.limited {
        taken.members.push((room.clone(), MemberChange::Forget));
    }
    for raw in joined.state.iter().chain(&joined.timeline) {
        let Ok(state) = serde_json::from_str::<StateEvent>(raw.get()) else {
            continue;
        };
        if state.event_type == "m.room.member" {
            let membership = state
                .content
                .get("membership")
                .and_then(|value| value.as_str())
                .unwrap_or_default();
            if let Ok(user) = OwnedUserId::try_from(state.state_key) {
                taken.members.push((
                    room.clone(),
                    MemberChange::Now {
                        user,
                        membership: membership.into(),
                    },
                ));
            }
        } else if state.state_key.is_empty() {
            after.apply(&state.event_type, &state.content);
        }
    }
    if after != before {
        after.save(unit, room)?;
    }
    Ok(())
}

fn invite(room_id: OwnedRoomId, state: &[Box<RawValue>], own: &OwnedUserId) -> Invite {
    let mut invite = Invite {
        room_id,
        inviter: None,
        name: None,
    };
    for raw in state {
        let Ok(state) = serde_json::from_str::<StateEvent>(raw.get()) else {
            continue;
        };
        match state.event_type.as_str() {
            "m.room.member" if state.state_key == own.as_str() => invite.inviter = state.sender,
            "m.room.name" => {
                invite.name = state
                    .content
                    .get("name")
                    .and_then(|name| name.as_str())
                    .map(str::to_owned)
            }
            _ => {}
        }
    }
    invite
}
