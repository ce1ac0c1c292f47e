//! Verification of users and devices: emoji, decimals and QR codes, in both directions, to-device and in a room.
//!
//! # Why
//! The engine holds verifications in memory only, leaves out what it was not asked for, and forgets what it ended. Here
//! every verification under way has a record ([`ledger`]): when the engine loses it, with the process or with a unit of work
//! that did not commit, it is cancelled and told, at the other side too, and it never counts as confirmed. What a stranger
//! sends is let in only as far as it can mean something ([`guard`]). Messages leave in order and outside of units
//! ([`mail`]), those of a room by the way of all events: encrypted, and with the room's own policy.

mod act;
mod error;
mod event;
mod flow;
mod glare;
mod guard;
mod keys;
mod ledger;
mod mail;
mod qr;
mod request;
mod room;
mod signing;
mod state;
mod tend;
mod verifiers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Mutex, watch};

pub use self::{
    error::VerificationError,
    event::{VerificationEnded, VerificationRequested},
    keys::VerificationKeys,
    qr::VerificationQr,
    state::{SasEmoji, VerificationId, VerificationOutcome, VerificationShown, VerificationState},
    verifiers::VerifiedBy,
};
pub(crate) use self::{
    guard::{LeftOut, admitted, unmet},
    ledger::{Heard, Looked, Scene, look},
    room::{Attention, Hearing, RoomEvent, is_heard},
    verifiers::of as verified_by,
};
use self::{mail::Outbound, room::Early};
use crate::Orchestrator;

/// As many verifications that have ended are remembered for whoever still looks at them.
const ENDED_KEPT: usize = 100;

/// What is remembered of verifications while the process lives.
#[derive(Debug)]
pub(crate) struct Verifications {
    /// As they were after the last unit of work that looked at them.
    shown: watch::Sender<BTreeMap<VerificationId, VerificationShown>>,
    outbound: StdMutex<Outbound>,
    /// Held by whoever sends what is outbound.
    posting: Mutex<()>,
    early: StdMutex<Early>,
    /// What was heard where nobody looks: when keys came by an import, a backup, or another device.
    overheard: StdMutex<Heard>,
    /// There may be one under way.
    busy: AtomicBool,
    /// There may be signatures to upload.
    unsigned: AtomicBool,
}

impl Default for Verifications {
    fn default() -> Self {
        Self {
            shown: watch::Sender::default(),
            outbound: StdMutex::default(),
            posting: Mutex::default(),
            early: StdMutex::default(),
            overheard: StdMutex::default(),
            // An earlier process may have left some.
            busy: AtomicBool::new(true),
            unsigned: AtomicBool::new(true),
        }
    }
}

impl Verifications {
    fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn early(&self) -> MutexGuard<'_, Early> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next sync looks at these, too.
    pub(crate) fn overhear(&self, heard: Heard) {
        self.overheard.lock().unwrap_or_else(PoisonError::into_inner).add(heard);
    }

    fn take_overheard(&self) -> Heard {
        std::mem::take(&mut *self.overheard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Send these, too, with what waits to be said.
    pub(crate) fn forward(&self, keys: Vec<matrix_sdk_crypto::types::requests::ToDeviceRequest>) {
        self.outbound().add(keys.into_iter().map(mail::Mail::of_device));
    }

    /// Whether there may be one under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Show what a unit that committed saw, and take what it wants sent.
    pub(crate) fn show(&self, looked: Looked) {
        self.busy.store(looked.live > 0, Ordering::SeqCst);
        if looked.to_sign {
            self.unsigned.store(true, Ordering::SeqCst);
        }
        self.outbound().add(looked.mail);
        if looked.seen.is_empty() {
            return;
        }
        self.shown.send_if_modified(|shown| {
            let mut news = false;
            for seen in looked.seen {
                news |= shown.get(&seen.id) != Some(&seen);
                shown.insert(seen.id.clone(), seen);
            }
            forget_oldest(shown);
            news
        });
    }
}

/// Let go of the oldest of those that have ended.
fn forget_oldest(shown: &mut BTreeMap<VerificationId, VerificationShown>) {
    let mut ended: Vec<(u64, VerificationId)> = shown
        .values()
        .filter(|one| one.state.is_ended())
        .map(|one| (one.began_ms, one.id.clone()))
        .collect();
    if ended.len() <= ENDED_KEPT {
        return;
    }
    ended.sort();
    let gone: BTreeSet<VerificationId> = ended.iter().rev().skip(ENDED_KEPT).map(|(_, id)| id.clone()).collect();
    shown.retain(|id, _| !gone.contains(id));
}

impl Orchestrator {
    /// The verifications that are under way, and the last that have ended, as the last sync or call left them. The receiver
    /// is told of every change.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) {
    /// use mx_olm_orchestrator::VerificationState;
    ///
    /// let mut all = device.verifications();
    /// while all.changed().await.is_ok() {
    ///     for one in all.borrow_and_update().values() {
    ///         if let VerificationState::Compare { decimals, .. } = one.state {
    ///             println!("{} shows {decimals:?}", one.id);
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn verifications(&self) -> watch::Receiver<BTreeMap<VerificationId, VerificationShown>> {
        self.verification().shown.subscribe()
    }
}
