//! What is decoded and kept in memory. One store has one writer, so that nobody else changes what is under it; a unit
//! that is undone takes everything with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, OutboundGroupSession, SenderDataType, StaticAccountData},
    types::DeviceKeys,
    vodozemac::Curve25519PublicKey,
};
use quick_cache::unsync::Cache;
use ruma::OwnedRoomId;

use super::backup::Missing;
use crate::layout::Row;

/// How many decoded Megolm sessions are kept: about a kilobyte each.
const INBOUND_SESSIONS: usize = 4096;
/// How many outbound sessions are kept. The engine keeps them as well, and they share their memory.
const OUTBOUND_SESSIONS: usize = 256;
/// How many users are kept of whom it is known that they have no identity.
const IDENTITIES: usize = 1024;

/// An inbound session as it was last read or written.
#[derive(Clone)]
pub(super) struct KnownInbound {
    pub(super) session: InboundGroupSession,
    pub(super) backed_up_to: Option<String>,
    pub(super) saved_at_ms: u64,
    pub(super) sender_key: Curve25519PublicKey,
    pub(super) sender_data_type: SenderDataType,
}

/// An outbound session, and how far what is on the disk has come.
#[derive(Clone)]
pub(super) struct KnownOutbound {
    pub(super) session: OutboundGroupSession,
    /// As they were when it was saved.
    pub(super) shared: bool,
    pub(super) invalidated: bool,
    /// The message index of the whole record on the disk.
    pub(super) base: u32,
    /// The newest message index that was written.
    pub(super) index: u32,
}

pub(super) struct Kept {
    /// How many units were undone when this was decoded.
    undone: u64,
    /// How often something was written since.
    writes: u64,
    pub(super) account: Option<StaticAccountData>,
    pub(super) device_keys: Option<DeviceKeys>,
    pub(super) inbound: Cache<Row, KnownInbound>,
    /// What the newest backup that was asked for does not have.
    pub(super) missing: Option<Missing>,
    pub(super) outbound: Cache<OwnedRoomId, KnownOutbound>,
    pub(super) no_identity: Cache<Row, ()>,
}

impl Kept {
    /// Something is written: what others are reading is out of date.
    pub(super) const fn count_write(&mut self) {
        self.writes += 1;
    }

    /// A session was written.
    pub(super) fn put_inbound(&mut self, row: Row, known: KnownInbound) {
        if let Some(missing) = &mut self.missing {
            missing.note(&row, &known);
        }
        self.inbound.insert(row, known);
    }

    /// A session was deleted.
    pub(super) fn forget_inbound(&mut self, row: &Row) {
        if let Some(missing) = &mut self.missing {
            missing.forget(row);
        }
        self.inbound.remove(row);
    }

    fn new(undone: u64) -> Self {
        Self {
            undone,
            writes: 0,
            account: None,
            device_keys: None,
            inbound: Cache::new(INBOUND_SESSIONS),
            missing: None,
            outbound: Cache::new(OUTBOUND_SESSIONS),
            no_identity: Cache::new(IDENTITIES),
        }
    }
}

/// When something was looked up: what was read before a unit was undone or something was written is not kept, for it may
/// be of that unit, or older than what was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    undone: u64,
    writes: u64,
}

pub(super) struct Decoded(Mutex<Kept>);

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded").finish_non_exhaustive()
    }
}

impl Decoded {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept::new(0)))
    }

    /// What is kept, emptied first if a unit was undone since.
    pub(super) fn kept(&self, undone: u64) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.undone != undone {
            *kept = Kept::new(undone);
        }
        kept
    }

    pub(super) fn stamp(&self, undone: u64) -> Stamp {
        let writes = self.kept(undone).writes;
        Stamp { undone, writes }
    }

    /// Keep what was read since `stamp`, unless it may be out of date.
    pub(super) fn keep(&self, stamp: Stamp, undone: u64, put: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept(undone);
        if stamp
            == (Stamp {
                undone,
                writes: kept.writes,
            })
        {
            put(&mut kept);
        }
    }
}
