//! Megolm sessions that came: found by room and id, and by the device that made them.

use std::time::{SystemTime, UNIX_EPOCH};

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, PickledInboundGroupSession, SenderDataType},
    store::types::RoomKeyCounts,
    vodozemac::Curve25519PublicKey,
};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use super::{PickleStore, Rows, damaged, decoded::KnownInbound, unpickle};
use crate::{
    Result, StoreError,
    layers::View,
    layout::{self, Row, Table},
    record,
    seal::Sealer,
};

/// A session as it is kept.
#[derive(Serialize, Deserialize)]
struct Inbound {
    pickle: PickledInboundGroupSession,
    backed_up_to: Option<String>,
    /// When it was first saved, in milliseconds since 1970. 0: before this was noted.
    #[serde(default)]
    saved_at_ms: u64,
}

impl Inbound {
    fn open(self) -> Result<KnownInbound> {
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

/// What finds the sessions of a sending device.
#[derive(Serialize, Deserialize)]
struct BySender {
    room: OwnedRoomId,
    session: String,
}

/// Sessions are found by who sent them and by what is known of the sender: the engine asks for those it knows little
/// of, again and again, and these are few.
fn sender_group(sender_key: Curve25519PublicKey, kind: SenderDataType) -> [String; 2] {
    [sender_key.to_base64(), (kind as u8).to_string()]
}

fn sender_row(
    sealer: &Sealer,
    sender_key: Curve25519PublicKey,
    kind: SenderDataType,
    room: &RoomId,
    session: &str,
) -> Row {
    let group = sender_group(sender_key, kind);
    let group: Vec<&str> = group.iter().map(String::as_str).collect();
    layout::named(
        sealer,
        Table::InboundGroupSessionBySenderData,
        &group,
        &format!("{room}|{session}"),
    )
}

/// The row of the index by sender that belongs to the record of a session.
pub(crate) fn sender_index(sealer: &Sealer, record: &[u8]) -> Result<(Row, Vec<u8>)> {
    let known = unpickle::<Inbound>(record)?.open()?;
    let entry = BySender {
        room: known.session.room_id().to_owned(),
        session: known.session.session_id().to_owned(),
    };
    let row = sender_row(
        sealer,
        known.sender_key,
        known.sender_data_type,
        &entry.room,
        &entry.session,
    );
    Ok((row, record::encode(&entry)?))
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

    /// Save a session. `backed_up_to`: the backup that has it; `None` keeps what is known.
    pub(super) async fn put_inbound(
        &self,
        rows: &mut Rows,
        session: &InboundGroupSession,
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let pickle = session.pickle().await;
        let (room, id) = (session.room_id(), session.session_id());
        let row = self.inbound_row(room, id);
        let before = match rows.inbound.get(&row) {
            Some(before) => Some(before.clone()),
            None => self.known_inbound(&row).await?,
        };
        let sender_key = pickle.sender_key;
        let sender_data_type = pickle.sender_data.to_type();
        let sealer = &self.sealed.core.sealer;
        let indexed_as = before
            .as_ref()
            .map(|before| (before.sender_key, before.sender_data_type));
        if indexed_as != Some((sender_key, sender_data_type)) {
            if let Some((sender_key, sender_data_type)) = indexed_as {
                rows.delete(sender_row(sealer, sender_key, sender_data_type, room, id));
            }
            let entry = BySender {
                room: room.to_owned(),
                session: id.to_owned(),
            };
            rows.json(sender_row(sealer, sender_key, sender_data_type, room, id), &entry)?;
        }
        let known = KnownInbound {
            session: session.clone(),
            backed_up_to: match (backed_up_to, &before) {
                (Some(version), _) => Some(version.to_owned()),
                (None, Some(before)) => before.backed_up_to.clone(),
                (None, None) => None,
            },
            saved_at_ms: before.map_or_else(now_ms, |before| before.saved_at_ms),
            sender_key,
            sender_data_type,
        };
        let inbound = Inbound {
            pickle,
            backed_up_to: known.backed_up_to.clone(),
            saved_at_ms: known.saved_at_ms,
        };
        rows.pickle(row.clone(), &inbound)?;
        rows.inbound.insert(row.clone(), known.clone());
        rows.keep(|kept| kept.inbound.insert(row, known));
        Ok(())
    }

    pub(super) async fn put_inbounds(
        &self,
        sessions: &[InboundGroupSession],
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        for session in sessions {
            self.put_inbound(&mut rows, session, backed_up_to).await?;
        }
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

    pub(super) async fn inbounds_of_device(
        &self,
        sender_key: Curve25519PublicKey,
        kind: SenderDataType,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        let group = sender_group(sender_key, kind);
        let group: Vec<&str> = group.iter().map(String::as_str).collect();
        let prefix = self.group(Table::InboundGroupSessionBySenderData, &group);
        let mut found: Vec<BySender> = self.all_json(&prefix).await?;
        found.retain(|entry| after.is_none_or(|after| entry.session.as_str() > after));
        found.sort_by(|one, other| one.session.cmp(&other.session));
        let mut sessions = Vec::new();
        for entry in found.into_iter().take(limit) {
            match self.inbound(&entry.room, &entry.session).await? {
                Some(session) => sessions.push(session),
                None => {
                    return self.taint(Err(StoreError::Corrupt {
                        what: "a session that its index names",
                    }));
                }
            }
        }
        Ok(sessions)
    }

    /// The row that finds a session by its sender.
    pub(super) fn sender_row_of(&self, known: &KnownInbound) -> Row {
        let (room, id) = (known.session.room_id(), known.session.session_id());
        sender_row(
            &self.sealed.core.sealer,
            known.sender_key,
            known.sender_data_type,
            room,
            id,
        )
    }

    pub(super) async fn inbound_counts(&self, version: Option<&str>) -> Result<RoomKeyCounts> {
        let Some(version) = version else {
            return Ok(RoomKeyCounts {
                total: self.count(Table::InboundGroupSession).await?,
                backed_up: 0,
            });
        };
        let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
        let backed_up = |(_, known): &&(Row, KnownInbound)| known.backed_up_to.as_deref() == Some(version);
        Ok(RoomKeyCounts {
            total: all.len(),
            backed_up: all.iter().filter(backed_up).count(),
        })
    }

    pub(super) async fn inbounds_to_back_up(&self, version: &str, limit: usize) -> Result<Vec<InboundGroupSession>> {
        let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
        let missing = all
            .into_iter()
            .map(|(_, known)| known)
            .filter(|known| known.backed_up_to.as_deref() != Some(version));
        Ok(missing.take(limit).map(|known| known.session).collect())
    }

    pub(super) async fn mark_backed_up(&self, version: &str, sessions: &[(&RoomId, &str)]) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        for (room, session) in sessions {
            if let Some(session) = self.inbound(room, session).await? {
                // A copy: the mark of the one that is kept would stand when this is not written.
                let pickle = session.pickle().await;
                let session = self.taint(InboundGroupSession::from_pickle(pickle).map_err(|_| damaged()))?;
                session.mark_as_backed_up();
                self.put_inbound(&mut rows, &session, Some(version)).await?;
            }
        }
        self.write_in(turn, rows).await
    }
}
