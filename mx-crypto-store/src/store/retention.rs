//! Room keys that are not needed any more. The engine keeps every one for ever; here a policy may let them go.
//!
//! # Why
//! A room key that is kept opens everything that was sent with it, for whoever gets the store and its key. A bot that
//! has done what a message asked for needs it no longer. Off unless it is called.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use matrix_sdk_crypto::olm::{SenderData, Session};
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use super::{PickleStore, Rows, decoded::KnownInbound, inbound::now_ms};
use crate::{
    Family, RecordId, Result,
    layout::{self, Row, Table},
};

/// Which room keys are let go. Everything is off by default; a key goes when one of the limits says so.
///
/// ```no_run
/// # async fn example(store: mx_crypto_store::PickleStore) -> Result<(), mx_crypto_store::StoreError> {
/// use std::{collections::BTreeSet, time::Duration};
/// use mx_crypto_store::Retention;
///
/// let mut policy = Retention::default();
/// policy.older_than = Some(Duration::from_secs(30 * 24 * 60 * 60));
/// policy.of_deleted_devices = true;
/// let retired = store.retire_room_keys(&policy, &BTreeSet::new()).await?;
/// println!("{} room keys are gone, {} are left", retired.removed, retired.left);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Retention {
    /// Keys that were first saved longer ago than this. Of a key from before this was noted, the age is not known, and it
    /// stays.
    pub older_than: Option<Duration>,
    /// In each room, all but the newest this many.
    pub newest_in_room: Option<usize>,
    /// Keys whose sending device is not known any more: it was deleted.
    pub of_deleted_devices: bool,
    /// Keep a key that this backup does not have.
    pub unless_backed_up_to: Option<String>,
}

/// What a policy let go.
///
/// ```no_run
/// # async fn example(store: mx_crypto_store::PickleStore) -> mx_crypto_store::Result<()> {
/// use mx_crypto_store::{Retention, Retired};
///
/// let mut policy = Retention::default();
/// policy.newest_in_room = Some(100);
/// let retired = store.retire_room_keys(&policy, &Default::default()).await?;
/// println!("{} gone, {} kept since they are needed, {} in all", retired.removed, retired.needed, retired.left);
/// // Why a message of before cannot be read any more.
/// println!("keys were let go last at {:?} ms", store.record::<u64>(&Retired::noted()).await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retired {
    /// Room keys that are gone.
    pub removed: usize,
    /// Room keys that the policy would let go, and that stay because they are needed: for what waits to be decrypted, to
    /// read what we send ourselves, or because no backup has them.
    pub needed: usize,
    /// Room keys that are left in the store, the needed ones included.
    pub left: usize,
}

impl Retired {
    /// The record that says when room keys were let go last, a `u64` in milliseconds since the Unix epoch: a key that is not here
    /// may have been, for what is from before that.
    #[must_use]
    pub fn noted() -> RecordId {
        RecordId::named(Family::new("room_keys_retired"), &[], "")
    }
}

impl PickleStore {
    /// Let go of the room keys that `policy` names, in the open unit or durably on its own. `queued`: the sessions of
    /// what still waits to be decrypted, which stay, by room and session id. So does the key of each session that we
    /// send with.
    ///
    /// Reads every room key: a task for quiet hours.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    ///
    /// # Cancel safety
    /// Safe: everything goes, or nothing.
    pub async fn retire_room_keys(
        &self,
        policy: &Retention,
        queued: &BTreeSet<(OwnedRoomId, String)>,
    ) -> Result<Retired> {
        let turn = self.turn().await?;
        let mut rooms: BTreeMap<OwnedRoomId, Vec<(Row, KnownInbound)>> = BTreeMap::new();
        for (row, known) in self.inbounds_under(&layout::table(Table::InboundGroupSession)).await? {
            rooms
                .entry(known.session.room_id().to_owned())
                .or_default()
                .push((row, known));
        }
        let tracked = self.tracked_users().await?.into_iter();
        let up_to_date: BTreeSet<OwnedUserId> = tracked.filter(|user| !user.dirty).map(|user| user.user_id).collect();
        let now = now_ms();
        let mut retired = Retired::default();
        let mut rows = Rows::default();
        let mut gone = Vec::new();
        for (room, mut keys) in rooms {
            keys.sort_by_key(|(_, known)| std::cmp::Reverse(known.saved_at_ms));
            let sending = self.outbound(&room).await?.map(|ours| ours.session_id().to_owned());
            for (place, (row, known)) in keys.into_iter().enumerate() {
                let id = known.session.session_id().to_owned();
                let over = is_over(policy, &known, place, now)
                    || policy.of_deleted_devices && self.sender_is_gone(&known, &up_to_date).await?;
                if !over {
                    retired.left += 1;
                } else if sending.as_ref() == Some(&id)
                    || queued.contains(&(room.clone(), id))
                    || policy.unless_backed_up_to.is_some() && policy.unless_backed_up_to != known.backed_up_to
                {
                    retired.needed += 1;
                    retired.left += 1;
                } else {
                    retired.removed += 1;
                    rows.delete(self.sender_row_of(&known));
                    rows.delete(row.clone());
                    gone.push(row);
                }
            }
        }
        if retired.removed > 0 {
            rows.json(Retired::noted().row(&self.sealed.core.sealer), &now)?;
        }
        rows.keep(move |kept| {
            for row in &gone {
                kept.forget_inbound(row);
            }
        });
        let written = self.write_in(turn, rows).await;
        self.taint(written)?;
        Ok(retired)
    }

    /// Let go of these room keys, in the open unit or durably on its own. One that is absent is `Ok`; that of a session that we
    /// send with stays.
    ///
    /// ```no_run
    /// # async fn example(store: mx_crypto_store::PickleStore, session: String) -> mx_crypto_store::Result<()> {
    /// // What was said in this session is not to be read again, here.
    /// store.forget_room_keys(&[(ruma::owned_room_id!("!alerts:example.org"), session)]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    ///
    /// # Cancel safety
    /// Safe: all of them go, or none.
    pub async fn forget_room_keys(&self, keys: &[(OwnedRoomId, String)]) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        let mut gone = Vec::new();
        for (room, session) in keys {
            let sending = self.outbound(room).await?;
            if sending.is_some_and(|ours| ours.session_id() == session) {
                continue;
            }
            let row = self.inbound_row(room, session);
            if let Some(known) = self.known_inbound(&row).await? {
                rows.delete(self.sender_row_of(&known));
                rows.delete(row.clone());
                gone.push(row);
            }
        }
        rows.keep(move |kept| {
            for row in &gone {
                kept.forget_inbound(row);
            }
        });
        let written = self.write_in(turn, rows).await;
        self.taint(written)
    }

    /// Of the Olm sessions with a device, keep `most`: first those that `newest` names, the newest last, then the
    /// youngest. Returns how many went. The engine holds sessions in memory: build it again when any did.
    ///
    /// ```no_run
    /// # async fn example(store: mx_crypto_store::PickleStore, sender_key: &str) -> mx_crypto_store::Result<()> {
    /// // A device that opens a session with every message: the last ten are enough to read what is under way.
    /// let gone = store.keep_newest_sessions(sender_key, &[], 10).await?;
    /// if gone > 0 {
    ///     println!("{gone} went: the engine is to be built again over this store");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    ///
    /// # Cancel safety
    /// Safe: all of them go, or none.
    pub async fn keep_newest_sessions(&self, sender_key: &str, newest: &[String], most: usize) -> Result<usize> {
        let turn = self.turn().await?;
        let mut sessions = self.olm_sessions(sender_key).await?.unwrap_or_default();
        if sessions.len() <= most {
            return Ok(0);
        }
        let age = |session: &Session| {
            let named = newest.iter().position(|id| id == session.session_id());
            (named, session.creation_time, session.last_use_time)
        };
        sessions.sort_by_key(|session| std::cmp::Reverse(age(session)));
        let mut rows = Rows::default();
        let gone = sessions.split_off(most);
        for session in &gone {
            rows.delete(self.row(Table::OlmSession, &[sender_key], session.session_id()));
        }
        let written = self.write_in(turn, rows).await;
        self.taint(written)?;
        Ok(gone.len())
    }

    /// The sender's devices are kept up to date, and none of them made this key.
    async fn sender_is_gone(&self, known: &KnownInbound, up_to_date: &BTreeSet<OwnedUserId>) -> Result<bool> {
        let Some(user) = sender(&known.session.sender_data) else {
            return Ok(false);
        };
        if !up_to_date.contains(user) {
            return Ok(false);
        }
        let devices = self.devices_of(user).await?;
        Ok(!devices
            .values()
            .any(|device| device.curve25519_key() == Some(known.sender_key)))
    }
}

/// Who made a key, as far as it is known.
fn sender(data: &SenderData) -> Option<&UserId> {
    match data {
        SenderData::UnknownDevice { .. } => None,
        SenderData::DeviceInfo { device_keys, .. } => Some(&device_keys.user_id),
        SenderData::VerificationViolation(sender)
        | SenderData::SenderUnverified(sender)
        | SenderData::SenderVerified(sender) => Some(&sender.user_id),
    }
}

/// Whether a key, the `place`-th newest of its room, is too old or one too many.
fn is_over(policy: &Retention, known: &KnownInbound, place: usize, now_ms: u64) -> bool {
    let age = Duration::from_millis(now_ms.saturating_sub(known.saved_at_ms));
    let too_old = known.saved_at_ms > 0 && policy.older_than.is_some_and(|limit| age > limit);
    too_old || policy.newest_in_room.is_some_and(|newest| place >= newest)
}
