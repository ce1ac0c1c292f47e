//! Megolm sessions: those that came, those that we send with, and what is backed up.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{
    olm::{
        InboundGroupSession, OutboundGroupSession, PickledInboundGroupSession, PickledOutboundGroupSession,
        SenderDataType, ShareInfo,
    },
    store::types::RoomKeyCounts,
    types::requests::ToDeviceRequest,
    vodozemac::Curve25519PublicKey,
};
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::{PickleStore, Rows, damaged, unpickle};
use crate::{
    Result, StoreError,
    layout::{self, Row, Table},
    record,
    sealed::View,
};

/// A session as it is kept.
#[derive(Serialize, Deserialize)]
struct Inbound {
    pickle: PickledInboundGroupSession,
    backed_up_to: Option<String>,
}

/// What finds the sessions of a sending device.
#[derive(Serialize, Deserialize)]
struct BySender {
    room: OwnedRoomId,
    session: String,
    sender_data_type: SenderDataType,
}

type Shares = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, ShareInfo>>;

/// Who was given an outbound session, and what is on its way to them. Kept apart from the ratchet: the ratchet moves
/// with every message and is small, this is as large as the room and moves with its devices.
#[derive(Default, Serialize, Deserialize)]
struct OutboundShares {
    session: String,
    shared_with: Shares,
    requests: BTreeMap<OwnedTransactionId, (std::sync::Arc<ToDeviceRequest>, Shares)>,
}

impl PickleStore {
    fn inbound_row(&self, room: &RoomId, session: &str) -> Row {
        self.row(Table::InboundGroupSession, &[room.as_str()], session)
    }

    fn decode_inbound(value: &[u8]) -> Result<(InboundGroupSession, Option<String>)> {
        let inbound: Inbound = unpickle(value)?;
        let session = InboundGroupSession::from_pickle(inbound.pickle).map_err(|_| damaged())?;
        Ok((session, inbound.backed_up_to))
    }

    pub(super) async fn inbound(&self, room: &RoomId, session: &str) -> Result<Option<InboundGroupSession>> {
        let row = self.inbound_row(room, session);
        if let Some(known) = self.inbound_cache().get(&row) {
            return Ok(Some(known));
        }
        let Some(value) = self.plain(&row).await? else {
            return Ok(None);
        };
        let (session, _) = self.taint(Self::decode_inbound(&value))?;
        self.inbound_cache().insert(row, session.clone());
        Ok(Some(session))
    }

    /// Save a session. `backed_up_to`: the backup that has it; `None` keeps what is known.
    pub(super) async fn put_inbound(
        &self,
        rows: &mut Rows,
        session: &InboundGroupSession,
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let pickle = session.pickle().await;
        let row = self.inbound_row(session.room_id(), session.session_id());
        let backed_up_to = match backed_up_to {
            Some(version) => Some(version.to_owned()),
            None => self.backed_up_to(&row).await?,
        };
        let by_sender = BySender {
            room: session.room_id().to_owned(),
            session: session.session_id().to_owned(),
            sender_data_type: pickle.sender_data.to_type(),
        };
        let index = self.row(
            Table::InboundGroupSessionBySender,
            &[&pickle.sender_key.to_base64()],
            &format!("{}|{}", by_sender.room, by_sender.session),
        );
        rows.json(index, &by_sender)?;
        rows.pickle(row.clone(), &Inbound { pickle, backed_up_to })?;
        self.inbound_cache().insert(row, session.clone());
        Ok(())
    }

    async fn backed_up_to(&self, row: &[u8]) -> Result<Option<String>> {
        let Some(value) = self.plain(row).await? else {
            return Ok(None);
        };
        let inbound: Inbound = self.taint(unpickle(&value))?;
        Ok(inbound.backed_up_to)
    }

    pub(super) async fn put_inbounds(
        &self,
        sessions: &[InboundGroupSession],
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let mut rows = Rows::default();
        for session in sessions {
            self.put_inbound(&mut rows, session, backed_up_to).await?;
        }
        self.write(rows).await
    }

    async fn inbounds_under(&self, prefix: &[u8]) -> Result<Vec<(InboundGroupSession, Option<String>)>> {
        let rows = self.sealed.core.rows(prefix, None, usize::MAX, View::Unit).await?;
        self.taint(rows.iter().map(|(_, value)| Self::decode_inbound(value)).collect())
    }

    pub(super) async fn inbounds(&self) -> Result<Vec<InboundGroupSession>> {
        let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
        Ok(all.into_iter().map(|(session, _)| session).collect())
    }

    pub(super) async fn inbounds_in(&self, room: &RoomId) -> Result<Vec<InboundGroupSession>> {
        let all = self
            .inbounds_under(&self.group(Table::InboundGroupSession, &[room.as_str()]))
            .await?;
        Ok(all.into_iter().map(|(session, _)| session).collect())
    }

    pub(super) async fn inbounds_of_device(
        &self,
        sender_key: Curve25519PublicKey,
        kind: SenderDataType,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        let prefix = self.group(Table::InboundGroupSessionBySender, &[&sender_key.to_base64()]);
        let mut found: Vec<BySender> = self.all_json(&prefix).await?;
        found
            .retain(|entry| entry.sender_data_type == kind && after.is_none_or(|after| entry.session.as_str() > after));
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

    pub(super) async fn inbound_counts(&self, version: Option<&str>) -> Result<RoomKeyCounts> {
        let Some(version) = version else {
            return Ok(RoomKeyCounts {
                total: self.count(Table::InboundGroupSession).await?,
                backed_up: 0,
            });
        };
        let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
        let backed_up = all.iter().filter(|(_, to)| to.as_deref() == Some(version)).count();
        Ok(RoomKeyCounts {
            total: all.len(),
            backed_up,
        })
    }

    pub(super) async fn inbounds_to_back_up(&self, version: &str, limit: usize) -> Result<Vec<InboundGroupSession>> {
        let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
        let missing = all.into_iter().filter(|(_, to)| to.as_deref() != Some(version));
        Ok(missing.take(limit).map(|(session, _)| session).collect())
    }

    pub(super) async fn mark_backed_up(&self, version: &str, sessions: &[(&RoomId, &str)]) -> Result<()> {
        let mut rows = Rows::default();
        for (room, session) in sessions {
            if let Some(session) = self.inbound(room, session).await? {
                session.mark_as_backed_up();
                self.put_inbound(&mut rows, &session, Some(version)).await?;
            }
        }
        self.write(rows).await
    }

    pub(super) async fn put_outbound(&self, rows: &mut Rows, session: &OutboundGroupSession) -> Result<()> {
        let mut pickle = session.pickle().await;
        let shares = OutboundShares {
            session: session.session_id().to_owned(),
            shared_with: std::mem::take(&mut pickle.shared_with_set),
            requests: std::mem::take(&mut pickle.requests),
        };
        let room = session.room_id().as_str();
        rows.json(self.row(Table::OutboundGroupSession, &[], room), &pickle)?;
        let row = self.row(Table::OutboundGroupSessionShares, &[], room);
        let encoded = record::encode(&shares)?;
        // With most messages nothing has changed here.
        if self.plain(&row).await?.is_none_or(|before| *before != encoded) {
            rows.bytes(row, encoded);
        }
        Ok(())
    }

    pub(super) async fn outbound(&self, room: &RoomId) -> Result<Option<OutboundGroupSession>> {
        let pickle: Option<PickledOutboundGroupSession> =
            self.json(Table::OutboundGroupSession, &[], room.as_str()).await?;
        let Some(mut pickle) = pickle else { return Ok(None) };
        let shares: Option<OutboundShares> = self.json(Table::OutboundGroupSessionShares, &[], room.as_str()).await?;
        let account = self.static_account().await?;
        let opened = shares.ok_or_else(damaged).and_then(|shares| {
            pickle.shared_with_set = shares.shared_with;
            pickle.requests = shares.requests;
            let session = OutboundGroupSession::from_pickle(account.device_id, account.identity_keys, pickle)
                .map_err(|_| damaged())?;
            // Halves of two sessions would tell that somebody has a key whom it was never given.
            if session.session_id() == shares.session {
                Ok(Some(session))
            } else {
                Err(damaged())
            }
        });
        self.taint(opened)
    }
}
