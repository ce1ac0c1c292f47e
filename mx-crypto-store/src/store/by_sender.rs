//! The index that finds Megolm sessions by the device that made them.
//!
//! # Why not all of them
//! At each change of a device the engine asks for its sessions of whose sender it knows little, to learn more of them;
//! the rest, which in the long run are nearly all, it never asks for. An entry for each would be half of the rows that a
//! room key costs, for ever. Who asks for them all the same waits for every room key to be read. Older stores have entries
//! for them too, which go with their sessions.

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, SenderDataType},
    vodozemac::Curve25519PublicKey,
};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use super::{PickleStore, decoded::KnownInbound, inbound::Inbound, unpickle};
use crate::{
    Result,
    layout::{self, Row, Table},
    record,
    seal::Sealer,
};

/// What finds a session of a sending device.
#[derive(Serialize, Deserialize)]
pub(super) struct BySender {
    room: OwnedRoomId,
    session: String,
}

impl BySender {
    pub(super) fn new(room: &RoomId, session: &str) -> Self {
        Self {
            room: room.to_owned(),
            session: session.to_owned(),
        }
    }
}

/// Whether sessions of whose sender so much is known are in the index: those of which the engine wants to know more.
pub(super) const fn is_indexed(kind: SenderDataType) -> bool {
    match kind {
        SenderDataType::UnknownDevice | SenderDataType::DeviceInfo => true,
        SenderDataType::VerificationViolation | SenderDataType::SenderUnverified | SenderDataType::SenderVerified => {
            false
        }
    }
}

/// Sessions are found by who sent them and by what is known of the sender: those of which the engine wants to know more
/// are few.
fn sender_group(sender_key: Curve25519PublicKey, kind: SenderDataType) -> [String; 2] {
    [sender_key.to_base64(), (kind as u8).to_string()]
}

pub(super) fn sender_row(
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

/// The row of the index that belongs to the record of a session, if one does.
pub(crate) fn sender_index(sealer: &Sealer, record: &[u8]) -> Result<Option<(Row, Vec<u8>)>> {
    let known = unpickle::<Inbound>(record)?.open()?;
    if !is_indexed(known.sender_data_type) {
        return Ok(None);
    }
    let entry = BySender::new(known.session.room_id(), known.session.session_id());
    Ok(Some((row_of(sealer, &known), record::encode(&entry)?)))
}

fn row_of(sealer: &Sealer, known: &KnownInbound) -> Row {
    let (room, id) = (known.session.room_id(), known.session.session_id());
    sender_row(sealer, known.sender_key, known.sender_data_type, room, id)
}

impl PickleStore {
    /// Sessions of a sending device by their ids, strictly after `after`, at most `limit`.
    pub(super) async fn inbounds_of_device(
        &self,
        sender_key: Curve25519PublicKey,
        kind: SenderDataType,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        if !is_indexed(kind) {
            let all = self.inbounds_under(&layout::table(Table::InboundGroupSession)).await?;
            let mut found: Vec<_> = all
                .into_iter()
                .filter(|(_, known)| known.sender_key == sender_key && known.sender_data_type == kind)
                .map(|(_, known)| known.session)
                .filter(|session| after.is_none_or(|after| session.session_id() > after))
                .collect();
            found.sort_by(|one, other| one.session_id().cmp(other.session_id()));
            found.truncate(limit);
            return Ok(found);
        }
        let group = sender_group(sender_key, kind);
        let group: Vec<&str> = group.iter().map(String::as_str).collect();
        let prefix = self.group(Table::InboundGroupSessionBySenderData, &group);
        let mut found: Vec<BySender> = self.all_json(&prefix).await?;
        found.retain(|entry| after.is_none_or(|after| entry.session.as_str() > after));
        found.sort_by(|one, other| one.session.cmp(&other.session));
        let mut sessions = Vec::new();
        for entry in found {
            if sessions.len() >= limit {
                break;
            }
            // The sessions themselves are not guarded: one that is gone is missed when a message needs it.
            sessions.extend(self.inbound(&entry.room, &entry.session).await?);
        }
        Ok(sessions)
    }

    /// The row that finds a session by its sender, where the store has one.
    pub(super) fn sender_row_of(&self, known: &KnownInbound) -> Row {
        row_of(&self.sealed.core.sealer, known)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use matrix_sdk_crypto::{
        olm::SenderData,
        store::CryptoStore,
        types::EventEncryptionAlgorithm,
        vodozemac::{
            Curve25519SecretKey, Ed25519SecretKey,
            megolm::{GroupSession, SessionConfig},
        },
    };
    use ruma::{room_id, user_id};

    use super::*;
    use crate::{KeySource, StoreKey, backend::Memory};

    fn session(sender_key: Curve25519PublicKey, data: &SenderData) -> InboundGroupSession {
        InboundGroupSession::new(
            sender_key,
            Ed25519SecretKey::new().public_key(),
            room_id!("!room:example.org"),
            &GroupSession::new(SessionConfig::version_1()).session_key(),
            data.clone(),
            None,
            EventEncryptionAlgorithm::MegolmV1AesSha2,
            None,
            false,
        )
        .unwrap()
    }

    async fn ids(
        store: &PickleStore,
        key: Curve25519PublicKey,
        kind: SenderDataType,
        after: Option<&String>,
        limit: usize,
    ) -> Vec<String> {
        let after = after.cloned();
        let found = store.get_inbound_group_sessions_for_device_batch(key, kind, after, limit);
        let found = found.await.unwrap().into_iter();
        found.map(|session| session.session_id().to_owned()).collect()
    }

    #[tokio::test]
    async fn what_is_not_in_the_index_is_found_all_the_same() {
        use SenderDataType as Kind;
        let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
        let store = PickleStore::open(Arc::new(Memory::new()), key).await.unwrap();
        let [key, other] = [(); 2].map(|()| Curve25519PublicKey::from(&Curve25519SecretKey::new()));
        let user = user_id!("@sender:example.org");
        let verified = SenderData::sender_verified(user, "SENDER".into(), Ed25519SecretKey::new().public_key());
        let known: Vec<_> = (0..5).map(|_| session(key, &verified)).collect();
        let mut expected: Vec<_> = known.iter().map(|session| session.session_id().to_owned()).collect();
        expected.sort();
        store.save_inbound_group_sessions(known, None).await.unwrap();
        let strangers = vec![session(other, &verified), session(other, &SenderData::unknown())];
        store.save_inbound_group_sessions(strangers, None).await.unwrap();

        assert_eq!(ids(&store, key, Kind::SenderVerified, None, 9).await, expected);
        assert_eq!(ids(&store, key, Kind::SenderVerified, None, 3).await, expected[..3]);
        let after = Some(&expected[2]);
        assert_eq!(ids(&store, key, Kind::SenderVerified, after, 9).await, expected[3..]);
        assert!(ids(&store, key, Kind::SenderUnverified, None, 9).await.is_empty());
        assert!(ids(&store, key, Kind::UnknownDevice, None, 9).await.is_empty());
        assert_eq!(ids(&store, other, Kind::SenderVerified, None, 9).await.len(), 1);
        assert_eq!(ids(&store, other, Kind::UnknownDevice, None, 9).await.len(), 1);
        let index = Table::InboundGroupSessionBySenderData;
        assert_eq!(store.count(index).await.unwrap(), 1, "the one of a stranger");
    }

    #[tokio::test]
    async fn a_session_leaves_the_index_when_its_sender_is_known() {
        use SenderDataType as Kind;
        let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
        let store = PickleStore::open(Arc::new(Memory::new()), key).await.unwrap();
        let key = Curve25519PublicKey::from(&Curve25519SecretKey::new());
        let mut one = session(key, &SenderData::unknown());
        let expected = [one.session_id().to_owned()];
        let index = Table::InboundGroupSessionBySenderData;
        store
            .save_inbound_group_sessions(vec![one.clone()], None)
            .await
            .unwrap();
        assert_eq!(ids(&store, key, Kind::UnknownDevice, None, 9).await, expected);
        assert_eq!(store.count(index).await.unwrap(), 1);

        let user = user_id!("@sender:example.org");
        let master = Ed25519SecretKey::new().public_key();
        one.sender_data = SenderData::sender_unverified(user, "SENDER".into(), master);
        // Twice in one call: the second finds what the first one left.
        let twice = vec![one.clone(), one];
        store.save_inbound_group_sessions(twice, None).await.unwrap();
        assert!(ids(&store, key, Kind::UnknownDevice, None, 9).await.is_empty());
        assert_eq!(ids(&store, key, Kind::SenderUnverified, None, 9).await, expected);
        assert_eq!(store.count(index).await.unwrap(), 0);
    }
}
