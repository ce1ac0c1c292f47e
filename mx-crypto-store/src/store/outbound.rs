//! Megolm sessions that we send with.
//!
//! # Why
//! A session's pickle holds everyone whom it was shared with, and every message saves the session. So that a message
//! costs the same in a large room as in a small one, a session is kept in three records: the whole of it without its
//! shares, its shares, and how many messages it has come since (a few bytes). A message writes the last one only; the
//! session is wound forward by that many messages when it is read, which takes it to exactly where it was. Every
//! [`REWRITE_AFTER`] messages, and whenever the engine saves it without having encrypted (it was shared, it was
//! discarded), the whole of it is written.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{
    olm::{OutboundGroupSession, PickledOutboundGroupSession, ShareInfo},
    types::requests::ToDeviceRequest,
    vodozemac::megolm::GroupSession,
};
use ruma::{OwnedDeviceId, OwnedTransactionId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::{PickleStore, Rows, damaged, decoded::KnownOutbound};
use crate::{Result, layout::Table, record};

/// How many messages a session may be ahead of the whole of it on the disk. Winding forward by one takes about as long
/// as encrypting a message: some tens of microseconds.
const REWRITE_AFTER: u32 = 64;

type Shares = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, ShareInfo>>;

/// Who was given an outbound session, and what is on its way to them.
#[derive(Default, Serialize, Deserialize)]
struct OutboundShares {
    session: String,
    shared_with: Shares,
    requests: BTreeMap<OwnedTransactionId, (std::sync::Arc<ToDeviceRequest>, Shares)>,
}

/// How far a session has come since the whole of it was written.
#[derive(Serialize, Deserialize)]
struct Progress {
    session: String,
    index: u32,
}

impl PickleStore {
    pub(super) async fn put_outbound(&self, rows: &mut Rows, session: &OutboundGroupSession) -> Result<()> {
        let room = session.room_id();
        let index = session.message_index().await;
        let first = rows.outbound.insert(room.to_owned());
        if first && self.only_encrypted(session, index) {
            let (moved, place) = (session.clone(), room.to_owned());
            rows.keep(move |kept| {
                let known = kept.outbound.get_mut(&place);
                if let Some(mut known) = known.filter(|known| known.session.session_id() == moved.session_id()) {
                    known.index = known.index.max(index);
                }
            });
            let progress = Progress {
                session: session.session_id().to_owned(),
                index,
            };
            let row = self.row(Table::OutboundGroupSessionProgress, &[], room.as_str());
            return rows.json(row, &progress);
        }
        let mut pickle = session.pickle().await;
        let shares = OutboundShares {
            session: session.session_id().to_owned(),
            shared_with: std::mem::take(&mut pickle.shared_with_set),
            requests: std::mem::take(&mut pickle.requests),
        };
        rows.json(self.row(Table::OutboundGroupSession, &[], room.as_str()), &pickle)?;
        let row = self.row(Table::OutboundGroupSessionShares, &[], room.as_str());
        let encoded = record::encode(&shares)?;
        // The second time in one call, what the first one writes is not there to be read yet.
        if !first || self.plain(&row).await?.is_none_or(|before| **before != encoded) {
            rows.bytes(row, encoded);
        }
        let known = KnownOutbound {
            session: session.clone(),
            shared: session.shared(),
            invalidated: session.invalidated(),
            base: index,
            index,
        };
        let room = room.to_owned();
        rows.keep(|kept| kept.outbound.insert(room, known));
        Ok(())
    }

    /// Nothing has become of this session since it was last saved but messages: it is the very one that was saved (and
    /// not another one of the same id), and its index has moved. The engine saves a session at once when it has changed
    /// in another way, before it encrypts with it again.
    fn only_encrypted(&self, session: &OutboundGroupSession, index: u32) -> bool {
        self.kept().outbound.get(session.room_id()).is_some_and(|known| {
            std::ptr::eq(known.session.session_id(), session.session_id())
                && (known.shared, known.invalidated) == (session.shared(), session.invalidated())
                && index > known.index
                && index - known.base <= REWRITE_AFTER
        })
    }

    pub(super) async fn outbound(&self, room: &RoomId) -> Result<Option<OutboundGroupSession>> {
        if let Some(known) = self.kept().outbound.get(room) {
            return Ok(Some(known.session.clone()));
        }
        let stamp = self.stamp();
        let pickle: Option<PickledOutboundGroupSession> =
            self.json(Table::OutboundGroupSession, &[], room.as_str()).await?;
        let Some(pickle) = pickle else { return Ok(None) };
        let shares: Option<OutboundShares> = self.json(Table::OutboundGroupSessionShares, &[], room.as_str()).await?;
        let progress: Option<Progress> = self
            .json(Table::OutboundGroupSessionProgress, &[], room.as_str())
            .await?;
        let account = self.static_account().await?;
        let opened = shares.ok_or_else(damaged).and_then(|shares| {
            let (pickle, known) = wind_forward(pickle, shares, progress)?;
            let session = OutboundGroupSession::from_pickle(account.device_id, account.identity_keys, pickle)
                .map_err(|_| damaged())?;
            Ok(KnownOutbound {
                shared: session.shared(),
                invalidated: session.invalidated(),
                session,
                base: known.0,
                index: known.1,
            })
        });
        let known = self.taint(opened)?;
        self.keep(stamp, |kept| kept.outbound.insert(room.to_owned(), known.clone()));
        Ok(Some(known.session))
    }
}

/// A session of its three records, and the message indices of the first and of the last of them.
fn wind_forward(
    mut pickle: PickledOutboundGroupSession,
    shares: OutboundShares,
    progress: Option<Progress>,
) -> Result<(PickledOutboundGroupSession, (u32, u32))> {
    let mut session = GroupSession::from_pickle(pickle.pickle);
    // Halves of two sessions would tell that somebody has a key whom it was never given.
    let id = session.session_id();
    if id != shares.session {
        return Err(damaged());
    }
    let base = session.message_index();
    // What is left of the session before, or of this one before the whole of it was written, says nothing.
    let ahead = progress
        .filter(|progress| progress.session == id)
        .map_or(0, |progress| progress.index.saturating_sub(base));
    if ahead > REWRITE_AFTER {
        return Err(damaged());
    }
    for _ in 0..ahead {
        let _never_sent = session.encrypt("");
    }
    pickle.pickle = session.pickle();
    pickle.message_count = pickle.message_count.saturating_add(u64::from(ahead));
    pickle.shared_with_set = shares.shared_with;
    pickle.requests = shares.requests;
    Ok((pickle, (base, base + ahead)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use matrix_sdk_crypto::{
        Account, EncryptionSettings,
        olm::ShareInfo,
        store::{
            CryptoStore,
            types::{Changes, PendingChanges},
        },
    };
    use ruma::{device_id, room_id, user_id};

    use super::*;
    use crate::{KeySource, StoreKey, backend::Memory};

    #[tokio::test]
    async fn of_two_saves_in_one_call_the_last_one_counts_whole() {
        let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
        let store = PickleStore::open(Arc::new(Memory::new()), key).await.unwrap();
        let account = Account::with_device_id(user_id!("@a:example.org"), device_id!("D"));
        let (room, keys) = (room_id!("!room:example.org"), Arc::new(account.identity_keys()));
        let opened = |pickle: &serde_json::Value| {
            let pickle = serde_json::from_value(pickle.clone()).unwrap();
            OutboundGroupSession::from_pickle(device_id!("D").to_owned(), Arc::clone(&keys), pickle).unwrap()
        };
        let new = OutboundGroupSession::new(
            device_id!("D").to_owned(),
            Arc::clone(&keys),
            room,
            EncryptionSettings::default(),
        );
        let mut pickle = new.unwrap().pickle().await;
        let unshared = serde_json::to_value(&pickle).unwrap();
        let given = ShareInfo::new_shared(keys.curve25519, 0, Default::default());
        let devices = BTreeMap::from([(device_id!("B").to_owned(), given)]);
        pickle
            .shared_with_set
            .insert(user_id!("@b:example.org").to_owned(), devices);
        let shared = serde_json::to_value(&pickle).unwrap();
        let pending = PendingChanges { account: Some(account) };
        store.save_pending_changes(pending).await.unwrap();

        for pickles in [vec![&unshared], vec![&shared, &unshared], vec![&unshared, &shared]] {
            let changes = Changes {
                outbound_group_sessions: pickles.iter().map(|pickle| opened(pickle)).collect(),
                ..Changes::default()
            };
            store.save_changes(changes).await.unwrap();
            // What is on the disk, and not what is kept in memory.
            let anew = PickleStore::over(store.sealed.clone());
            let found = anew.get_outbound_group_session(room).await.unwrap().unwrap();
            let found = serde_json::to_value(found.pickle().await).unwrap();
            assert_eq!(Some(&&found), pickles.last());
        }
    }
}
