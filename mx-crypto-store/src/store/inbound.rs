//! Megolm sessions that came, found by room and id.

use std::time::{SystemTime, UNIX_EPOCH};

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, PickledInboundGroupSession, SenderDataType},
    vodozemac::Curve25519PublicKey,
};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use super::{
    PickleStore,
    by_sender::{BySender, is_indexed, sender_row},
    damaged,
    decoded::KnownInbound,
    rows::{Encoded, Rows},
    unpickle,
};
use crate::{
    Result,
    layers::View,
    layout::{self, Row, Table},
    seal::Sealer,
};

/// A session as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Inbound {
    pickle: PickledInboundGroupSession,
    backed_up_to: Option<String>,
    /// When it was first saved, in milliseconds since 1970. 0: before this was noted.
    #[serde(default)]
    saved_at_ms: u64,
}

impl Inbound {
    pub(super) fn open(self) -> Result<KnownInbound> {
        let sender_data_type = self.pickle.sender_data.to_type();
        let sender_key = self.pickle.sender_key;
        Ok(KnownInbound {
            session: InboundGroupSession::from_pickle(self.pickle).map_err(|_| damaged())?,
            backed_up_to: self.backed_up_to,
            saved_at_ms: self.saved_at_ms,
            sender_key,
            sender_data_type,
        })
    }
}

/// A session that is about to be saved.
struct ToSave {
    row: Row,
    session: String,
    /// Where the index by sender has it, if it has this kind.
    indexed_as: Option<(Curve25519PublicKey, SenderDataType)>,
    record: Inbound,
}

impl ToSave {
    fn encode(&self, sealer: &Sealer, encoded: &mut Encoded) -> Result<()> {
        let pickle = &self.record.pickle;
        let index = (pickle.sender_key, pickle.sender_data.to_type());
        if self.indexed_as != Some(index) {
            let row_of = |(sender_key, kind)| sender_row(sealer, sender_key, kind, &pickle.room_id, &self.session);
            if let Some(before) = self.indexed_as {
                encoded.delete(row_of(before));
            }
            if is_indexed(index.1) {
                encoded.json(row_of(index), &BySender::new(&pickle.room_id, &self.session))?;
            }
        }
        encoded.pickle(self.row.clone(), &self.record)
    }
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl PickleStore {
    pub(super) fn inbound_row(&self, room: &RoomId, session: &str) -> Row {
        self.row(Table::InboundGroupSession, &[room.as_str()], session)
    }

    /// What is known of a session, from memory if it can be.
    pub(super) async fn known_inbound(&self, row: &Row) -> Result<Option<KnownInbound>> {
        if let Some(known) = self.kept().inbound.get(row) {
            return Ok(Some(known.clone()));
        }
        let stamp = self.stamp();
        let Some(value) = self.plain(row).await? else {
            return Ok(None);
        };
        let known = self.taint(unpickle::<Inbound>(&value).and_then(Inbound::open))?;
        self.keep(stamp, |kept| kept.inbound.insert(row.clone(), known.clone()));
        Ok(Some(known))
    }

    pub(super) async fn inbound(&self, room: &RoomId, session: &str) -> Result<Option<InboundGroupSession>> {
        let known = self.known_inbound(&self.inbound_row(room, session)).await?;
        Ok(known.map(|known| known.session))
    }

    /// What a save of a session writes. `backed_up_to`: the backup that has it; `None` keeps what is known.
    async fn to_save(
        &self,
        rows: &mut Rows,
        session: &InboundGroupSession,
        backed_up_to: Option<&str>,
    ) -> Result<ToSave> {
        let row = self.inbound_row(session.room_id(), session.session_id());
        let before = match rows.inbound.get(&row) {
            Some(before) => Some(before.clone()),
            None => self.known_inbound(&row).await?,
        };
        let pickle = session.pickle().await;
        let known = KnownInbound {
            session: session.clone(),
            backed_up_to: match (backed_up_to, &before) {
                (Some(version), _) => Some(version.to_owned()),
                (None, Some(before)) => before.backed_up_to.clone(),
                (None, None) => None,
            },
            saved_at_ms: before.as_ref().map_or_else(now_ms, |before| before.saved_at_ms),
            sender_key: pickle.sender_key,
            sender_data_type: pickle.sender_data.to_type(),
        };
        let saved = ToSave {
            row: row.clone(),
            session: session.session_id().to_owned(),
            indexed_as: before.map(|before| (before.sender_key, before.sender_data_type)),
            record: Inbound {
                pickle,
                backed_up_to: known.backed_up_to.clone(),
                saved_at_ms: known.saved_at_ms,
            },
        };
        rows.inbound.insert(row, known);
        Ok(saved)
    }

    /// Save sessions. `backed_up_to`: the backup that has them; `None` keeps what is known.
    pub(super) async fn put_inbounds(
        &self,
        rows: &mut Rows,
        sessions: &[InboundGroupSession],
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let mut to_save = Vec::with_capacity(sessions.len());
        for session in sessions {
            to_save.push(self.to_save(rows, session, backed_up_to).await?);
        }
        let sealer = &self.sealed.core.sealer;
        rows.of_many(sealer.spread(), &to_save, |session, encoded| {
            session.encode(sealer, encoded)
        })
    }

    pub(super) async fn save_inbounds(
        &self,
        sessions: &[InboundGroupSession],
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        self.put_inbounds(&mut rows, sessions, backed_up_to).await?;
        self.write_in(turn, rows).await
    }

    /// The rows under a prefix, decoded, with their rows.
    pub(super) async fn inbounds_under(&self, prefix: &[u8]) -> Result<Vec<(Row, KnownInbound)>> {
        let rows = self.sealed.core.rows(prefix, None, usize::MAX, View::Unit).await?;
        let open = |value: &[u8]| unpickle::<Inbound>(value).and_then(Inbound::open);
        let all = rows.into_iter().map(|(row, value)| Ok((row, open(&value)?)));
        self.taint(all.collect())
    }

    pub(super) async fn inbounds(&self) -> Result<Vec<InboundGroupSession>> {
        let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
        Ok(all.into_iter().map(|(_, known)| known.session).collect())
    }

    pub(super) async fn inbounds_in(&self, room: &RoomId) -> Result<Vec<InboundGroupSession>> {
        let prefix = self.group(Table::InboundGroupSession, &[room.as_str()]);
        let all = self.inbounds_under(&prefix).await?;
        Ok(all.into_iter().map(|(_, known)| known.session).collect())
    }

    /// Whether a room key was here before the open unit, whatever that does with it.
    ///
    /// ```no_run
    /// # use ruma::RoomId;
    /// # async fn example(store: mx_crypto_store::PickleStore, room: &RoomId, session: &str) -> mx_crypto_store::Result<()> {
    /// let unit = store.begin().await?;
    /// // … the engine takes room keys out of a file.
    /// if store.was_held_before_unit(room, session).await? {
    ///     println!("this one is not new here, though the file may have a better one");
    /// }
    /// unit.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    pub async fn was_held_before_unit(&self, room: &RoomId, session: &str) -> Result<bool> {
        let row = self.inbound_row(room, session);
        Ok(self.sealed.core.read(&row, View::Beneath).await?.is_some())
    }

    /// Note of sessions that no backup has them as they are: they came again, and may reach further back than what was put
    /// into one. The engine's trait has no word for that.
    ///
    /// ```no_run
    /// # use ruma::owned_room_id;
    /// # async fn example(store: mx_crypto_store::PickleStore, session: String) -> mx_crypto_store::Result<()> {
    /// // In the unit that takes the better key: it goes into the backup once more.
    /// let unit = store.begin().await?;
    /// store.needs_backup(&[(owned_room_id!("!alerts:example.org"), session)]).await?;
    /// unit.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As every write.
    pub async fn needs_backup(&self, sessions: &[(OwnedRoomId, String)]) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        let mut to_save = Vec::new();
        for (room, session) in sessions {
            let row = self.inbound_row(room, session);
            let known = self.known_inbound(&row).await?;
            let Some(known) = known.filter(|known| known.backed_up_to.is_some()) else {
                continue;
            };
            // A copy: the one that is kept would have changed when this is not written.
            let pickle = known.session.pickle().await;
            let session = self.taint(InboundGroupSession::from_pickle(pickle).map_err(|_| damaged()))?;
            session.reset_backup_state();
            let mut saved = self.to_save(&mut rows, &session, None).await?;
            saved.record.backed_up_to = None;
            if let Some(known) = rows.inbound.get_mut(&row) {
                known.backed_up_to = None;
            }
            to_save.push(saved);
        }
        let sealer = &self.sealed.core.sealer;
        rows.of_many(sealer.spread(), &to_save, |session, encoded| {
            session.encode(sealer, encoded)
        })?;
        self.write_in(turn, rows).await
    }
}
