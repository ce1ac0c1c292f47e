//! I10 and I14: who was given which key, and when it may be used.
//!
//! # How far this can see
//! What a to-device message carries is encrypted. It is taken for the key of a room's session when it was sent between
//! the last use of the room's session before and the use of this one, to somebody who is in the room. That is never too strict
//! for an honest client, and it may overlook something where one device sends into several rooms at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Call, Found, Invariant, Owner, ratchets::megolm_index, views::Views};
use crate::state::{Room, State};

/// A to-device request with Olm messages.
#[derive(Clone, Debug)]
struct KeyPut {
    at: u64,
    transaction: String,
    targets: BTreeSet<Owner>,
    taken: bool,
}

/// A Megolm session in use.
#[derive(Clone, Debug)]
struct InUse {
    /// Keys that were put before this are not of this session.
    since: u64,
    /// The last index that was seen.
    index: u32,
    readers: BTreeSet<Owner>,
}

/// What one device sent.
#[derive(Clone, Debug, Default)]
struct Sender {
    puts: Vec<KeyPut>,
    sessions: HashMap<String, InUse>,
    /// When a session of each room was last used.
    last_use: BTreeMap<String, u64>,
    late: usize,
}

/// What each device sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Recipients {
    senders: HashMap<Owner, Sender>,
    clock: u64,
}

impl Recipients {
    pub(super) fn expect_late_event(&mut self, owner: Owner) {
        self.senders.entry(owner).or_default().late += 1;
    }

    pub(super) fn retain(&mut self, lives: impl Fn(&Owner) -> bool) {
        self.senders.retain(|owner, _| lives(owner));
    }

    /// A request that was not seen before.
    pub(super) fn request(&mut self, call: &Call<'_>, views: &Views) -> Found {
        self.clock += 1;
        match (call.event_put(), call.to_device_put()) {
            (Some((room, "m.room.encrypted", _)), _) => self.event(call, room, views),
            (_, Some((_, transaction))) => self.keys(call, transaction, views),
            _ => Found::new(),
        }
    }

    /// The homeserver said yes, and its sender heard it.
    pub(super) fn answered(&mut self, call: &Call<'_>) {
        let Some((_, transaction)) = call.to_device_put() else {
            return;
        };
        let sender = self.senders.entry(call.owner.clone()).or_default();
        for put in sender.puts.iter_mut().filter(|put| put.transaction == transaction) {
            put.taken = true;
        }
    }

    fn keys(&mut self, call: &Call<'_>, transaction: &str, views: &Views) -> Found {
        let targets: BTreeSet<Owner> = call.olm_messages().into_iter().map(|(target, _)| target).collect();
        if targets.is_empty() {
            return Found::new();
        }
        let mut found = Found::new();
        for (user, device) in &targets {
            let answered = views.was_written_to_by(&call.owner, user);
            if !answered && !may_be_written_to(call.state, &call.owner, user, views) {
                let words =
                    format!("{user} {device} is sent something encrypted, and is in no encrypted room with the sender");
                found.push((Invariant::I14, words));
            }
        }
        let put = KeyPut {
            at: self.clock,
            transaction: transaction.to_owned(),
            targets,
            taken: false,
        };
        self.senders.entry(call.owner.clone()).or_default().puts.push(put);
        found
    }

    fn event(&mut self, call: &Call<'_>, room: &str, views: &Views) -> Found {
        let content = &call.parts.body;
        let (Some(session), Some(index)) = (content["session_id"].as_str(), megolm_index(content)) else {
            return Found::new();
        };
        let now = self.clock;
        let sender = self.senders.entry(call.owner.clone()).or_default();
        let used_before = sender.sessions.contains_key(session);
        let since = sender.last_use.insert(room.to_owned(), now).unwrap_or(0);
        if !used_before {
            let in_use = InUse {
                since,
                index,
                readers: BTreeSet::new(),
            };
            sender.sessions.insert(session.to_owned(), in_use);
        }
        let Some(in_use) = sender.sessions.get_mut(session) else {
            return Found::new();
        };
        let present = |user: &str| {
            let on_server = call.state.rooms.get(room).is_some_and(|room| in_room(room, user));
            views.present(&call.owner, room, user).unwrap_or(on_server)
        };
        let mut found = Found::new();
        let waiting = not_taken(&sender.puts, in_use.since, |target| {
            present(&target.0) && exists(call.state, target)
        });
        for (user, device) in waiting {
            let words =
                format!("an event of session {session} goes out, and the key for {user} {device} was not taken yet");
            found.push((Invariant::I10, words));
        }
        if used_before {
            let left = |(user, _): &Owner| views.present(&call.owner, room, user) == Some(false);
            for reader in in_use
                .readers
                .iter()
                .filter(|reader| left(reader) || views.gone(&call.owner, reader))
            {
                let words = format!(
                    "session {session} is used, and {} {} has gone who holds its key",
                    reader.0, reader.1
                );
                found.push((Invariant::I14, words));
            }
        }
        let new = sender
            .puts
            .iter()
            .filter(|put| put.at > in_use.since)
            .flat_map(|put| &put.targets);
        in_use.readers.extend(new.filter(|(user, _)| present(user)).cloned());
        let next = !used_before || index == in_use.index.saturating_add(1);
        in_use.index = in_use.index.max(index);
        if !found.is_empty() && sender.late > 0 && next {
            sender.late -= 1;
            found.clear();
        }
        found
    }
}

/// Who was to be given a key after `since`, and was given none.
fn not_taken(puts: &[KeyPut], since: u64, counts: impl Fn(&Owner) -> bool) -> BTreeSet<Owner> {
    let of = |taken: bool| {
        let puts = puts.iter().filter(move |put| put.at > since && put.taken == taken);
        puts.flat_map(|put| &put.targets).cloned().collect::<BTreeSet<Owner>>()
    };
    of(false)
        .difference(&of(true))
        .filter(|target| counts(target))
        .cloned()
        .collect()
}

fn in_room(room: &Room, user: &str) -> bool {
    matches!(room.membership(user), "join" | "invite")
}

fn exists(state: &State, (user, device): &Owner) -> bool {
    let user = state.users.get(user);
    user.is_some_and(|user| user.devices.contains_key(device))
}

/// Our own devices, and who is in an encrypted room with us: as it is, or as we were shown it.
fn may_be_written_to(state: &State, owner: &Owner, user: &str, views: &Views) -> bool {
    if user == owner.0 || state.shares_rooms_with(&owner.0).contains(user) {
        return true;
    }
    let encrypted = |room: &str| {
        let room = state.rooms.get(room);
        room.is_some_and(|room| room.content("m.room.encryption", "").is_some())
    };
    views.rooms_with(owner, user).into_iter().any(encrypted)
}
