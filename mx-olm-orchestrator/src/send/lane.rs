//! The way of one room's events: what waits to be encrypted, and behind it what is on its way, in order.
//!
//! # Why
//! Order is a matter of one room, and rooms do not wait for each other: each has a lane, and whoever holds its turn takes
//! the next step for all in it, until its own is done. What waits together is encrypted together, in one unit of work.
//! Nothing is kept in the future of a call: when it is dropped at any point, the next call goes on from what the lane and
//! the disk say.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ruma::{OwnedRoomId, OwnedTransactionId};
use tokio::{
    sync::{Mutex as Turn, oneshot},
    time::Instant,
};

use super::{
    SendReceipt,
    content::Checked,
    outbox::Parcel,
    policy::Care,
    steady::{Ready, Stamp},
};
use crate::Result;

/// At most this many are encrypted in one unit of work,
const BATCH: usize = 64;
/// and no more than this many bytes, unless one alone has more.
const BATCH_BYTES: usize = 1 << 20;

/// An event is encrypted again at most this often because its readers changed before it was put.
const MOST_WITHDRAWALS: u32 = 8;

/// The lane of one room.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) room: OwnedRoomId,
    /// Held by whoever takes the next step. What is known about the room's readers.
    pub(super) turn: Turn<Option<Arc<Ready>>>,
    queue: Mutex<Queue>,
    /// Which sync ended last when the room was looked at for what a copy of this device has sent.
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The oldest first.
    events: VecDeque<Slot>,
    next: u64,
    /// No attempt before this, unless somebody sends.
    pause: Option<Instant>,
}

/// Where to tell how a send ended.
pub(super) type Done = oneshot::Sender<Result<SendReceipt>>;

struct Slot {
    number: u64,
    /// `None`: nobody waits for it any more, or ever did in this process.
    done: Option<Done>,
    /// What is to be sent, as long as this process knows it.
    what: Option<(Arc<Checked>, Care)>,
    state: State,
    /// How often it was encrypted for nothing.
    withdrawn: u32,
}

/// Contents stay out of logs.
impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("number", &self.number)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum State {
    Waiting,
    /// A unit of work may be encrypting it.
    Taken,
    OnItsWay(OnItsWay),
}

/// An event that is encrypted.
#[derive(Clone, Debug)]
pub(super) struct OnItsWay {
    pub(super) position: u64,
    pub(super) transaction: OwnedTransactionId,
    /// `None`: it is read from the disk, where it may not be yet.
    pub(super) parcel: Option<Parcel>,
    /// It may have been on the wire.
    attempted: bool,
    /// For whom it is, and what was so when it was encrypted.
    pub(super) sealed: Option<Sealed>,
}

/// For whom an event was encrypted, and when.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) ready: Arc<Ready>,
    pub(super) stamp: Stamp,
}

/// What is encrypted together.
pub(super) struct Batch {
    pub(super) care: Care,
    pub(super) events: Vec<(u64, Arc<Checked>)>,
}

/// What is next in a lane.
pub(super) enum Next {
    /// Put this one.
    Put(u64, OnItsWay),
    /// Nothing is on its way.
    Encrypt,
}

impl Queue {
    fn push(&mut self, done: Option<Done>, what: Option<(Arc<Checked>, Care)>, state: State) {
        let number = self.next;
        self.next += 1;
        self.events.push_back(Slot {
            number,
            done,
            what,
            state,
            withdrawn: 0,
        });
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.events.iter_mut().find(|slot| slot.number == number)
    }

    /// Who went away before anything was encrypted for them wants nothing.
    fn drop_abandoned(&mut self) {
        self.events.retain(|slot| {
            let abandoned = slot.done.as_ref().is_none_or(oneshot::Sender::is_closed);
            !(abandoned && matches!(slot.state, State::Waiting))
        });
    }
}

impl Lane {
    pub(super) fn new(room: OwnedRoomId) -> Self {
        Self {
            room,
            turn: Turn::default(),
            queue: Mutex::default(),
            looked: Mutex::default(),
        }
    }

    /// Whether the room was looked at since the sync that ended then.
    pub(super) fn was_looked_at(&self, synced: Option<Instant>) -> bool {
        let looked = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.is_some() && looked == synced
    }

    pub(super) fn looked_at(&self, synced: Option<Instant>) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = synced;
    }

    /// An earlier process left this one, and may have put it.
    pub(super) fn was_left(&self, position: u64, transaction: OwnedTransactionId) {
        let event = OnItsWay {
            position,
            transaction,
            parcel: None,
            attempted: true,
            sealed: None,
        };
        self.queue().push(None, None, State::OnItsWay(event));
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The lock is held for assignments only, which cannot panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue().events.is_empty()
    }

    /// Put something behind all that waits.
    pub(super) fn wait_in_line(&self, what: Checked, care: Care) -> oneshot::Receiver<Result<SendReceipt>> {
        let (done, ended) = oneshot::channel();
        self.queue()
            .push(Some(done), Some((Arc::new(what), care)), State::Waiting);
        ended
    }

    pub(super) fn next(&self) -> Option<Next> {
        let mut queue = self.queue();
        queue.drop_abandoned();
        let slot = queue.events.front()?;
        Some(match &slot.state {
            State::Waiting | State::Taken => Next::Encrypt,
            State::OnItsWay(event) => Next::Put(slot.number, event.clone()),
        })
    }

    /// The first of those that wait, as far as they are sent with the same care.
    pub(super) fn batch(&self) -> Option<Batch> {
        let mut queue = self.queue();
        queue.drop_abandoned();
        let mut batch: Option<Batch> = None;
        let mut bytes = 0;
        let waiting = queue
            .events
            .iter_mut()
            .filter(|slot| matches!(slot.state, State::Waiting));
        for slot in waiting.take(BATCH) {
            let Some((what, care)) = &slot.what else { break };
            bytes += what.bytes;
            let batch = batch.get_or_insert_with(|| Batch {
                care: *care,
                events: Vec::new(),
            });
            if batch.care != *care || (bytes > BATCH_BYTES && !batch.events.is_empty()) {
                break;
            }
            batch.events.push((slot.number, Arc::clone(what)));
            slot.state = State::Taken;
        }
        batch
    }

    /// No unit of work is encrypting any more: what none has encrypted waits again.
    pub(super) fn put_back(&self) {
        let mut queue = self.queue();
        let taken = queue
            .events
            .iter_mut()
            .filter(|slot| matches!(slot.state, State::Taken));
        taken.for_each(|slot| slot.state = State::Waiting);
    }

    /// The first of those that could not be encrypted is taken out, or all of them. Where to tell so.
    pub(super) fn fail_taken(&self, all: bool) -> Vec<Done> {
        let mut queue = self.queue();
        let mut failed = Vec::new();
        let most = if all { usize::MAX } else { 1 };
        queue.events.retain_mut(|slot| {
            let fails = matches!(slot.state, State::Taken) && failed.len() < most;
            if fails {
                failed.push(slot.done.take());
            }
            !fails
        });
        failed.into_iter().flatten().collect()
    }

    /// Whether a unit of work may be encrypting, for a caller who went away.
    pub(super) fn is_taken(&self) -> bool {
        self.queue()
            .events
            .iter()
            .any(|slot| matches!(slot.state, State::Taken))
    }

    /// These are encrypted, in the unit of work that is about to be committed: nobody encrypts them again, even when
    /// nobody learns of it.
    pub(super) fn encrypted(&self, parcels: &[(u64, Parcel)], sealed: &Sealed) {
        let mut queue = self.queue();
        for (number, parcel) in parcels {
            let event = OnItsWay {
                position: parcel.position,
                transaction: parcel.transaction.clone(),
                parcel: None,
                attempted: false,
                sealed: Some(sealed.clone()),
            };
            if let Some(slot) = queue.slot(*number) {
                slot.state = State::OnItsWay(event);
            }
        }
    }

    /// The unit of work is on the disk.
    pub(super) fn durable(&self, parcels: Vec<(u64, Parcel)>) {
        let mut queue = self.queue();
        for (number, parcel) in parcels {
            if let Some(State::OnItsWay(event)) = queue.slot(number).map(|slot| &mut slot.state) {
                event.parcel = Some(parcel);
            }
        }
    }

    /// Those that were never on the wire, from `number` on, for which somebody waits: they are taken out of the outbox.
    pub(super) fn not_attempted(&self, number: u64) -> Vec<(u64, u64)> {
        let queue = self.queue();
        let from = queue.events.iter().filter(|slot| slot.number >= number);
        from.filter_map(|slot| match (&slot.state, &slot.done) {
            (State::OnItsWay(event), Some(done)) if !(event.attempted || done.is_closed()) && slot.what.is_some() => {
                Some((slot.number, event.position))
            }
            _ => None,
        })
        .collect()
    }

    /// Whether it may be encrypted once more because its readers changed. Where they never come to rest it goes to those whom
    /// it was encrypted for.
    pub(super) fn may_be_withdrawn(&self, number: u64) -> bool {
        self.queue()
            .slot(number)
            .is_some_and(|slot| slot.withdrawn < MOST_WITHDRAWALS)
    }

    /// Those of these events that are still on their way and were still never on the wire are encrypted once more: their
    /// parcels are to be taken out, by the unit of work that is about to be committed. Which parcels.
    pub(super) fn wait_again(&self, events: &[(u64, u64)]) -> Vec<u64> {
        let mut queue = self.queue();
        let mut withdrawn = Vec::new();
        for (number, position) in events {
            let Some(slot) = queue.slot(*number) else { continue };
            let is_so = |event: &OnItsWay| event.position == *position && !event.attempted;
            if matches!(&slot.state, State::OnItsWay(event) if is_so(event)) {
                slot.state = State::Waiting;
                slot.withdrawn += 1;
                withdrawn.push(*position);
            }
        }
        withdrawn
    }

    /// From now on it may have been on the wire.
    pub(super) fn attempt(&self, number: u64) {
        if let Some(State::OnItsWay(event)) = self.queue().slot(number).map(|slot| &mut slot.state) {
            event.attempted = true;
        }
    }

    /// Take it out. Where to tell how it ended.
    pub(super) fn take(&self, number: u64) -> Option<Done> {
        let mut queue = self.queue();
        queue.pause = None;
        let place = queue.events.iter().position(|slot| slot.number == number)?;
        queue.events.remove(place)?.done
    }

    /// It stays, and nobody waits for it any more. Where to tell so.
    pub(super) fn leave(&self, number: u64, pause: Instant) -> Option<Done> {
        let mut queue = self.queue();
        queue.pause = Some(pause);
        queue.slot(number)?.done.take()
    }

    /// Whether somebody waits for it.
    pub(super) fn is_awaited(&self, number: u64) -> bool {
        let mut queue = self.queue();
        let done = queue.slot(number).and_then(|slot| slot.done.as_ref());
        done.is_some_and(|done| !done.is_closed())
    }

    /// All that wait to be encrypted are sent away.
    pub(super) fn dismiss(&self) -> Vec<Done> {
        let mut queue = self.queue();
        let (waiting, others) = std::mem::take(&mut queue.events)
            .into_iter()
            .partition(|slot: &Slot| matches!(slot.state, State::Waiting));
        queue.events = others;
        let waiting: VecDeque<Slot> = waiting;
        waiting.into_iter().filter_map(|slot| slot.done).collect()
    }

    /// The last attempt was a moment ago.
    pub(super) fn pauses(&self) -> bool {
        self.queue().pause.is_some_and(|until| Instant::now() < until)
    }
}
