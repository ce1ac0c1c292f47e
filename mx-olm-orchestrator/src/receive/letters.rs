//! The to-device part of a sync: to the engine and back, with its repairs noted in the same unit of work.
//!
//! # Why one by one
//! The engine holds a room key that came against what the store has, and not against another one in the same sync: of two
//! keys of one session the last stays, even when it opens less or comes from somebody else. A sync that brings two is
//! undone and taken again, one event after the other, each with the ones before it in the unit's store.

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;
use matrix_sdk_crypto::{
    EncryptionSyncChanges, OlmMachine,
    olm::OlmMessageHash,
    store::{CryptoStore, types::RoomKeyInfo},
};
use mx_crypto_store::{PickleStore, Unit};
use ruma::{
    OneTimeKeyAlgorithm, OwnedRoomId, RoomId, api::client::sync::sync_events::DeviceLists, events::AnyToDeviceEvent,
    serde::Raw,
};
use sha2::{Digest, Sha256};

use super::{
    Context, Scope, Taken, decryption_settings, explain,
    key_requests::{self, Asked},
    quota::{self, Givers},
    to_device::{self, Letter, Opening, Rejections, ToDeviceRejectedReason, Took},
    unwedge, withheld,
};
use crate::{
    Result, history, rollback,
    sync_response::SyncResponse,
    verification::{Heard, Scene, admitted, unmet},
};

/// As many Olm sessions are kept with one device. The specification asks for four; the newest stay.
const MAX_SESSIONS: usize = 50;

/// What came of the to-device events.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// Room keys that came and are kept, each once, in the order in which they came.
    pub(super) news: Vec<(OwnedRoomId, String)>,
    /// Megolm sessions of which somebody says that we are not given the key.
    pub(super) withheld: BTreeSet<(OwnedRoomId, String)>,
    /// Of whose verifications there is news.
    pub(super) heard: Heard,
}

/// Which part of a sync's to-device events goes through the engine.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    First,
    Middle,
    Last { first: bool },
}

impl Part {
    /// Device lists come before all events,
    const fn is_first(self) -> bool {
        matches!(self, Self::Whole | Self::First | Self::Last { first: true })
    }

    /// and counts and the token after all of them.
    const fn is_last(self) -> bool {
        matches!(self, Self::Whole | Self::Last { .. })
    }
}

impl Post {
    fn has(&self, room: &RoomId, session: &str) -> bool {
        self.news.iter().any(|(of, id)| *of == room && id == session)
    }
}

/// The work on the to-device events of one sync.
pub(super) struct Letters<'a> {
    machine: &'a OlmMachine,
    unit: &'a Unit,
    store: &'a PickleStore,
    context: &'a Context,
    taken: &'a mut Taken,
    rejections: Rejections,
    opening: Opening,
    /// Messages that were decrypted before, by the engine's name for them.
    replayed: BTreeSet<String>,
    /// Room keys that are asked for in the name of our own devices.
    asked: Vec<Asked>,
    post: Post,
}

impl<'a> Letters<'a> {
    pub(super) fn new(
        machine: &'a OlmMachine,
        unit: &'a Unit,
        store: &'a PickleStore,
        context: &'a Context,
        taken: &'a mut Taken,
    ) -> Self {
        Self {
            machine,
            unit,
            store,
            context,
            taken,
            rejections: Rejections::default(),
            opening: Opening::new(),
            replayed: BTreeSet::new(),
            asked: Vec::new(),
            post: Post::default(),
        }
    }

    /// Take the to-device events, device lists and key counts of a sync. `None`: two of them bring a key of one session, so
    /// that they have to be taken one by one.
    pub(super) async fn take(mut self, sync: &mut SyncResponse) -> Result<Option<Post>> {
        let our_key = self.machine.identity_keys().curve25519.to_base64();
        let events = std::mem::take(&mut sync.to_device);
        let events = to_device::checked(events, &our_key, &mut self.rejections, &mut self.opening);
        let events = match self.context.scope {
            Scope::Again { .. } => not_taken_before(self.store, events).await?,
            Scope::Everything | Scope::WithoutMessages { .. } => events,
        };
        let rejections = &mut self.rejections;
        let mut events = withheld::bounded(self.unit, events, rejections, self.context.now_ms).await?;
        if rollback::is_silent(self.unit).await? {
            events = key_requests::left_out(events, rejections);
        }
        events = key_requests::without_unlisted(self.machine, &self.context.manifest, events, rejections).await?;
        let events = admitted(self.machine, events, &mut self.post.heard, |sender, event_type, why| {
            rejections.add(sender, event_type, why.into());
        });
        let scene = Scene::of(self.machine, self.unit, self.context);
        let events = Box::pin(unmet(scene, events, &mut self.post.heard)).await?;
        self.replayed = replayed(self.store, &events).await?;
        let left = sync.one_time_keys.get(&OneTimeKeyAlgorithm::SignedCurve25519);
        if let Some(left) = left {
            let (first_sync, now_ms) = (self.context.first_sync, self.context.now_ms);
            explain::note_own_keys(self.unit, (*left).into(), first_sync, now_ms).await?;
        }
        let processed = if self.context.one_by_one {
            self.one_by_one(sync, events).await?
        } else {
            let (processed, twice) = self.process(sync, events, Part::Whole).await?;
            if twice {
                return Ok(None);
            }
            processed
        };
        if self.context.device_lists.is_none() {
            Box::pin(self.machine.mark_all_tracked_users_as_dirty()).await?;
        }
        for event in &processed {
            let took = to_device::look(event, &self.context.user, &mut self.rejections);
            self.settle(took).await?;
        }
        self.taken.forwarded = key_requests::answer(self.machine, self.context, &self.asked).await?;
        self.hold_limits().await?;
        self.taken.summary.to_device_rejected = self.rejections.count;
        self.taken.summary.rejected = self.rejections.named;
        Ok(Some(self.post))
    }

    /// One event after the other through the engine, all in the one unit of work.
    async fn one_by_one(
        &mut self,
        sync: &SyncResponse,
        events: Vec<Raw<AnyToDeviceEvent>>,
    ) -> Result<Vec<ProcessedToDeviceEvent>> {
        if events.is_empty() {
            return Ok(self.process(sync, events, Part::Whole).await?.0);
        }
        let mut all = Vec::with_capacity(events.len());
        let last = events.len().saturating_sub(1);
        for (place, event) in events.into_iter().enumerate() {
            let part = match place {
                _ if place == last => Part::Last { first: place == 0 },
                0 => Part::First,
                _ => Part::Middle,
            };
            all.extend(self.process(sync, vec![event], part).await?.0);
        }
        Ok(all)
    }

    /// The engine's turn. Returns what it made of the events, and whether two of them brought a key of one session.
    async fn process(
        &mut self,
        sync: &SyncResponse,
        events: Vec<Raw<AnyToDeviceEvent>>,
        part: Part,
    ) -> Result<(Vec<ProcessedToDeviceEvent>, bool)> {
        let (nobody, nothing) = (DeviceLists::new(), BTreeMap::new());
        let lists = self.context.device_lists.as_ref().filter(|_| part.is_first());
        let changes = EncryptionSyncChanges {
            to_device_events: events,
            changed_devices: lists.unwrap_or(&nobody),
            one_time_keys_counts: if part.is_last() { &sync.one_time_keys } else { &nothing },
            unused_fallback_keys: sync.unused_fallback_keys.as_deref().filter(|_| part.is_last()),
            // A position of a sliding sync is none of its tokens.
            next_batch_token: sync.end.clone().filter(|_| part.is_last()),
        };
        let settings = decryption_settings();
        let (processed, room_keys) = Box::pin(self.machine.receive_sync_changes(changes, &settings)).await?;
        self.taken.summary.room_keys += room_keys.len();
        let sessions: BTreeSet<_> = room_keys.iter().map(|key| (&key.room_id, &key.session_id)).collect();
        if sessions.len() < room_keys.len() {
            return Ok((processed, true));
        }
        self.keep(room_keys, &quota::givers(&processed)).await?;
        Ok((processed, false))
    }

    /// Keep the room keys that the engine took, and let go of what one user gave too much of. Only what the engine says counts,
    /// and only a key that was not here before goes: what is inside of a message is its sender's word.
    async fn keep(&mut self, came: Vec<RoomKeyInfo>, givers: &Givers) -> Result<()> {
        let mut gone = Vec::new();
        for key in came {
            let (room, session) = (key.room_id, key.session_id);
            if self.post.has(&room, &session) {
                continue;
            }
            if let Some(giver) = givers.get(&key.sender_key.to_base64())
                && !self.store.was_held_before_unit(&room, &session).await?
                && quota::ROOM_KEYS.is_over(self.unit, giver, self.context.now_ms).await?
            {
                let reason = ToDeviceRejectedReason::TooManyRoomKeys;
                self.rejections.add(Some(giver.clone()), "m.room_key", reason);
                gone.push((room, session));
            } else {
                self.post.news.push((room, session));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        Ok(self.store.forget_room_keys(&gone).await?)
    }

    /// Note what one event means for us.
    async fn settle(&mut self, took: Took) -> Result<()> {
        match took {
            Took::Decrypted { sender_key, inside } => {
                if let Some(sender_key) = sender_key {
                    unwedge::opened(self.unit, &sender_key).await?;
                }
                if let (Some((room, session)), Some(sender)) = (inside.forwarded_key(), &inside.sender) {
                    if !self.post.has(&room, &session) {
                        // Nobody asked for it, or not of whom it comes from.
                        let reason = ToDeviceRejectedReason::Unsolicited;
                        self.rejections.add(Some(sender.clone()), &inside.event_type, reason);
                    }
                } else if let (Some(room), Some(sender)) = (inside.bundle(), &inside.sender) {
                    if self.context.accept_history {
                        history::came(self.unit, self.store, &room, sender, self.context.now_ms).await?;
                    } else {
                        self.store.forget_key_bundle(&room, sender).await?;
                    }
                } else if !to_device::is_known(&inside.event_type) {
                    self.taken.summary.to_device_custom += 1;
                }
            }
            Took::Closed(letter) => self.closed(letter).await?,
            Took::Withheld { room, session } => {
                self.post.withheld.insert((room, session));
            }
            Took::NoSession { sender, sender_key } => {
                unwedge::note(self.machine, self.unit, sender, &sender_key, self.context.now_ms).await?;
            }
            Took::KeyRequest(asked) => self.asked.push(asked),
            Took::Nothing => {}
        }
        Ok(())
    }

    async fn closed(&mut self, letter: Option<Letter>) -> Result<()> {
        let sender = letter.as_ref().map(|letter| letter.sender.clone());
        let mut reason = ToDeviceRejectedReason::Undecryptable;
        if let Some(letter) = letter {
            if self.replayed.contains(&hash(&letter).hash) {
                reason = ToDeviceRejectedReason::Replay;
            } else {
                let now_ms = self.context.now_ms;
                unwedge::note(self.machine, self.unit, letter.sender, &letter.sender_key, now_ms).await?;
            }
        }
        self.rejections.add(sender, "m.room.encrypted", reason);
        Ok(())
    }

    /// Let go of the sessions that one device opened too many of.
    async fn hold_limits(&mut self) -> Result<()> {
        for (sender_key, newest) in &self.opening {
            let gone = self
                .store
                .keep_newest_sessions(sender_key, newest, MAX_SESSIONS)
                .await?;
            self.taken.rebuild |= gone > 0;
        }
        Ok(())
    }
}

/// The name that the engine gives to a message that it has decrypted (`OlmMessageHash`, of which it gives us the fields
/// and not the making).
fn hash(letter: &Letter) -> OlmMessageHash {
    let (kind, ciphertext) = letter.message.to_parts();
    let digest = Sha256::new()
        .chain_update(letter.sender_key.as_bytes())
        .chain_update([u8::try_from(kind).unwrap_or(u8::MAX)])
        .chain_update(ciphertext)
        .finalize();
    OlmMessageHash {
        sender_key: letter.sender_key.clone(),
        hash: matrix_sdk_crypto::vodozemac::base64_encode(digest),
    }
}

/// Without what an earlier sync has decrypted: the homeserver gives it as long as the token of that sync has not come back.
async fn not_taken_before(
    store: &PickleStore,
    events: Vec<Raw<AnyToDeviceEvent>>,
) -> Result<Vec<Raw<AnyToDeviceEvent>>> {
    let mut new = Vec::with_capacity(events.len());
    for event in events {
        let taken = match Letter::read(&event) {
            Some(letter) => store.is_message_known(&hash(&letter)).await?,
            None => false,
        };
        if !taken {
            new.push(event);
        }
    }
    Ok(new)
}

/// Those of the messages that were decrypted before this sync, or come twice in it: they cannot be opened again, and
/// nothing is wrong with that.
async fn replayed(store: &PickleStore, events: &[Raw<AnyToDeviceEvent>]) -> Result<BTreeSet<String>> {
    let (mut seen, mut replayed) = (BTreeSet::new(), BTreeSet::new());
    for letter in events.iter().filter_map(Letter::read) {
        let hash = hash(&letter);
        if !seen.insert(hash.hash.clone()) || store.is_message_known(&hash).await? {
            replayed.insert(hash.hash);
        }
    }
    Ok(replayed)
}
