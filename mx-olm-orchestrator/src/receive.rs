//! One sync, one unit of work: keys, decryption, replay index, inbox and `next_batch` are on the disk together or not
//! at all.

mod backlog;
mod before;
mod catch_up;
mod copies;
mod decrypt;
mod explain;
mod filters;
mod gaps;
mod hand_out;
mod histories;
pub(crate) mod inbox;
mod inside;
mod key_requests;
mod letters;
mod pace;
mod quota;
mod replay;
mod retry;
mod rooms;
mod seen;
mod sliding;
mod source;
mod standing;
mod sync;
mod timeline;
mod to_device;
mod undecryptable;
mod unwedge;
pub(crate) mod waiting;
mod walk;
mod withheld;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matrix_sdk_crypto::{DecryptionSettings, OlmMachine, TrustRequirement, types::requests::ToDeviceRequest};
use mx_crypto_store::{PickleStore, Unit};
use ruma::{OwnedRoomId, OwnedUserId, api::client::sync::sync_events::DeviceLists};

use self::{backlog::Backlog, filters::Messages, letters::Letters};
pub use self::{
    explain::{Explanation, WaitingCounts},
    inbox::Delivery,
    key_requests::KeyRequests,
    source::SyncSource,
    standing::Accept,
    to_device::{ToDeviceRejected, ToDeviceRejectedReason},
};
pub(crate) use self::{pace::Pace, rooms::StateEvent, sliding::Positions, sync::Synced};
use crate::{
    EncryptionTampered, Event, Gap, Result, TrustManifest,
    backup::is_active,
    members::MemberChange,
    send::rotation::{Due, end_key},
    sync_response::SyncResponse,
    verification::{Heard, Looked, Scene, Verifications, look},
};

/// Synapse gives at most this many to-device events in one sync: as many mean that there may be more.
const TO_DEVICE_PAGE: usize = 100;

/// What a sync brought. The events themselves are in the inbox.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let summary = device.sync(std::time::Duration::from_secs(30)).await?;
/// println!("{} events, {} room keys, {} wait for theirs", summary.events, summary.room_keys, summary.waiting);
/// for rejected in summary.rejected {
///     println!("{} of {:?} was not taken: {}", rejected.event_type, rejected.sender, rejected.reason.code());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SyncSummary {
    /// Events that were put into the inbox.
    pub events: usize,
    /// Room keys that came.
    pub room_keys: usize,
    /// To-device events that had no effect.
    pub to_device_rejected: usize,
    /// The first hundred of them, by sender and reason.
    pub rejected: Vec<ToDeviceRejected>,
    /// To-device events that were decrypted and that neither the engine nor this crate knows.
    pub to_device_custom: usize,
    /// Events that wait for their key since this sync.
    pub waiting: usize,
    /// Encrypted events from before this device existed, which nobody could have encrypted for it.
    pub before_this_device: usize,
    /// Parts of the answer that could not be read, by name.
    pub unreadable: Vec<String>,
    /// The homeserver holds more to-device events: sync again at once.
    pub more_waiting: bool,
    /// Nothing came of it: no event that had not come before, and no to-device event with an effect.
    pub nothing_new: bool,
}

/// What the work of one sync is told about its device.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) user: OwnedUserId,
    pub(crate) now_ms: u64,
    /// There was no `since`: rooms come with history from before.
    pub(crate) first_sync: bool,
    /// So many events of each room are looked at then.
    pub(crate) first_timeline: usize,
    pub(crate) scope: Scope,
    pub(crate) report_after_ms: u64,
    pub(crate) deliver_own: bool,
    pub(crate) memberships: bool,
    /// Events that were missed for good.
    pub(crate) gaps: Vec<Gap>,
    /// To-device events go through the engine one after the other.
    pub(crate) one_by_one: bool,
    /// How many events are kept that wait for their keys.
    pub(crate) most_waiting: usize,
    pub(crate) accept: Accept,
    pub(crate) manifest: Option<Arc<TrustManifest>>,
    /// Whose devices changed. `None`: anybody's may have.
    pub(crate) device_lists: Option<DeviceLists>,
    pub(crate) verifications: Arc<Verifications>,
    pub(crate) key_requests: KeyRequests,
    /// Whether room keys of the time before we came are taken of who invited us.
    pub(crate) accept_history: bool,
}

/// Which part of what is new an answer is.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    Everything,
    /// State, to-device events and device lists since this token. Messages stay where they are.
    WithoutMessages {
        since: String,
    },
    /// Everything since before syncs that left messages where they are: what those took is in it once more.
    Again {
        taken: Backlog,
    },
}

impl Scope {
    const fn messages(&self) -> Messages {
        match self {
            Self::WithoutMessages { .. } => Messages::Left,
            Self::Everything | Self::Again { .. } => Messages::Wanted,
        }
    }
}

/// What a sync changes outside of the store, once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) summary: SyncSummary,
    pub(crate) members: Vec<(OwnedRoomId, MemberChange)>,
    /// What the engine holds in memory is not what the store has: build it again.
    pub(crate) rebuild: bool,
    /// Room keys for other devices of ours.
    pub(crate) forwarded: Vec<ToDeviceRequest>,
    /// What there is to say of verifications.
    pub(crate) looked: Option<Looked>,
}

impl Taken {
    /// Look at the verifications of which there may be news.
    async fn look(&mut self, scene: Scene<'_>, heard: &Heard, events: &mut Vec<Event>) -> Result<()> {
        if !scene.verifications.is_busy() && heard.is_empty() {
            return Ok(());
        }
        let looked = Box::pin(look(scene, heard, events)).await?;
        self.rebuild |= looked.rebuild;
        self.looked = Some(looked);
        Ok(())
    }
}

/// Events are decrypted whoever sent them; what they are worth is said with each.
pub(crate) fn decryption_settings() -> DecryptionSettings {
    DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    }
}

/// Take one answer to `/sync` into `unit`. `None`: it has to be taken with its to-device events one by one, and what is in
/// the unit has to be undone.
///
/// # Errors
/// Of the store, from wherever it comes: nothing is taken then, and the same answer is asked for again.
pub(crate) async fn take(
    machine: &OlmMachine,
    unit: &Unit,
    store: &PickleStore,
    mut sync: SyncResponse,
    context: &Context,
) -> Result<Option<Taken>> {
    let mut taken = Taken::default();
    taken.summary.unreadable = std::mem::take(&mut sync.unreadable);
    let to_device = sync.to_device.len();
    taken.summary.more_waiting = to_device >= TO_DEVICE_PAGE;
    let mut events = Vec::<Event>::new();
    let ended = take_state(unit, &sync, context, &mut taken, &mut events).await?;
    let letters = Letters::new(machine, unit, store, context, &mut taken);
    let Some(mut post) = letters.take(&mut sync).await? else {
        return Ok(None);
    };
    if !post.news.is_empty() && is_active(machine, unit).await? {
        store.needs_backup(&post.news).await?;
    }
    for (room, due) in ended {
        // Somebody left, or may have: they must not read on, even when they are back before we send.
        end_key(machine, unit, &room, due).await?;
    }

    let messages = context.scope.messages() == Messages::Wanted;
    events.extend(context.gaps.iter().filter(|_| messages).cloned().map(Event::Gap));
    let mut timelines = timeline::Timelines::new(machine, unit, context, &mut taken.summary, &mut events);
    for (room, session) in post.news.iter().chain(&post.withheld) {
        timelines.retry(room, session).await?;
    }
    let mut any_new = false;
    for (room, shown) in sync.joined.into_iter().filter(|_| messages) {
        any_new |= timelines.shown(&room, shown.timeline).await?;
    }
    for (room, shown) in sync.left {
        if messages {
            any_new |= timelines.shown(&room, shown.timeline).await?;
            // What is passed by until messages are wanted begins after what was seen.
            seen::forget(unit, &room)?;
        }
        timelines.left(&room).await?;
        rooms::forget_room(unit, &room).await?;
    }
    let (senders, heard) = timelines.into_heard();
    Box::pin(machine.update_tracked_users(senders.iter().map(AsRef::as_ref))).await?;
    post.heard.add(heard);
    taken
        .look(Scene::of(machine, unit, context), &post.heard, &mut events)
        .await?;
    if messages {
        let slides = sync.positions.is_some();
        events.extend(rooms::invitations(unit, sync.invited, slides, context).await?);
    }
    // Gaps are what was not given.
    let any_event = events.iter().any(|event| !matches!(event, Event::Gap(_)));
    taken.summary.nothing_new = !any_new && !any_event && to_device <= taken.summary.to_device_rejected;
    histories::clear(unit).await?;
    events.extend(
        undecryptable::due(unit, context.report_after_ms, context.now_ms)
            .await?
            .into_iter()
            .map(Event::Undecryptable),
    );
    inbox::append(unit, &events).await?;
    taken.summary.events = events.len();
    Ok(Some(taken))
}

/// The state of rooms, who came and went, and which rooms' keys end with it.
async fn take_state(
    unit: &Unit,
    sync: &SyncResponse,
    context: &Context,
    taken: &mut Taken,
    events: &mut Vec<Event>,
) -> Result<BTreeMap<OwnedRoomId, Due>> {
    let mut ended: BTreeMap<OwnedRoomId, Due> = BTreeMap::new();
    let mut departures = BTreeSet::new();
    for (room, joined) in &sync.joined {
        let noted = rooms::remember(unit, room, joined, context, &mut taken.members).await?;
        events.extend(noted.tampered.into_iter().map(|change| {
            let room_id = room.clone();
            Event::EncryptionTampered(EncryptionTampered { room_id, change })
        }));
        departures.extend(noted.departures);
        if !noted.left.is_empty() {
            ended.insert(room.clone(), Due::Left { users: noted.left });
        } else if joined.missed {
            ended.insert(room.clone(), Due::EventsMissed);
        }
    }
    for gap in &context.gaps {
        ended.entry(gap.room_id.clone()).or_insert(Due::EventsMissed);
    }
    for (room, _) in &sync.left {
        taken.members.push((room.clone(), MemberChange::Left));
        ended.insert(room.clone(), Due::OwnLeft);
    }
    match &context.scope {
        Scope::Everything => {}
        Scope::WithoutMessages { since } => backlog::extend(unit, since, departures).await?,
        Scope::Again { .. } => {
            backlog::clear(unit)?;
            sliding::clear(unit)?;
        }
    }
    if let Some(positions) = &sync.positions {
        positions.save(unit)?;
    }
    Ok(ended)
}
