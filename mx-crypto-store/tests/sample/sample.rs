//! A small store with something of everything in it, and what is in it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "not every test that uses this file asks for all of it")]

use std::sync::Arc;

use matrix_sdk_crypto::{
    Account, DeviceData, EncryptionSettings,
    olm::{
        InboundGroupSession, OlmMessageHash, OutboundGroupSession, PickledAccount, PickledSession, SenderData, Session,
    },
    store::{
        CryptoStore,
        types::{Changes, DeviceChanges, PendingChanges, RoomSettings},
    },
    types::EventEncryptionAlgorithm,
    vodozemac::olm::SessionConfig,
};
use mx_crypto_store::{Family, PickleStore, RecordId};
use ruma::{RoomId, SecondsSinceUnixEpoch, UserId, device_id, room_id, user_id};
use serde::{Deserialize, Serialize};

const NAMED: Family = Family::new("named");
pub(crate) const QUEUE: Family = Family::new("queue");

fn room() -> &'static RoomId {
    room_id!("!golden:example.org")
}

fn user() -> &'static UserId {
    user_id!("@golden:example.org")
}

fn hash() -> OlmMessageHash {
    OlmMessageHash {
        sender_key: "sender".to_owned(),
        hash: "hash".to_owned(),
    }
}

/// What is random in a golden store.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) curve25519: String,
    ed25519: String,
    pub(crate) peer_curve25519: String,
    olm_session: String,
    inbound: String,
    inbound_key: String,
    outbound: String,
    outbound_index: u32,
}

/// An Olm session with a peer, as the engine makes it, and the peer's key.
fn olm_session(account: &Account, device: &DeviceData) -> (Session, String) {
    let mut peer = matrix_sdk_crypto::vodozemac::olm::Account::new();
    peer.generate_one_time_keys(1);
    let one_time_key = *peer.one_time_keys().values().next().unwrap();
    let pickle: PickledAccount = account.pickle();
    let session = matrix_sdk_crypto::vodozemac::olm::Account::from_pickle(pickle.pickle)
        .create_outbound_session(SessionConfig::version_1(), peer.curve25519_key(), one_time_key)
        .unwrap();
    let pickle = PickledSession {
        pickle: session.pickle(),
        sender_key: peer.curve25519_key(),
        created_using_fallback_key: false,
        creation_time: SecondsSinceUnixEpoch::now(),
        last_use_time: SecondsSinceUnixEpoch::now(),
    };
    let session = Session::from_pickle(device.as_device_keys().clone(), pickle).unwrap();
    (session, peer.curve25519_key().to_base64())
}

/// A session to send with, and the one that reads it.
async fn megolm_sessions(account: &Account) -> (OutboundGroupSession, InboundGroupSession) {
    let keys = account.identity_keys();
    let settings = EncryptionSettings::default();
    let device = device_id!("GOLDEN").to_owned();
    let outbound = OutboundGroupSession::new(device, Arc::new(keys), room(), settings).unwrap();
    let inbound = InboundGroupSession::new(
        keys.curve25519,
        keys.ed25519,
        room(),
        &outbound.session_key().await,
        SenderData::unknown(),
        None,
        EventEncryptionAlgorithm::MegolmV1AesSha2,
        None,
        false,
    )
    .unwrap();
    (outbound, inbound)
}

/// Fill a store; returns the key of the peer with whom it has an Olm session.
pub(crate) async fn fill(store: &PickleStore) -> String {
    let account = Account::with_device_id(user(), device_id!("GOLDEN"));
    let device = DeviceData::from_account(&account);
    let (olm, peer) = olm_session(&account, &device);
    let (outbound, inbound) = megolm_sessions(&account).await;
    let unit = store.begin().await.unwrap();
    let pending = PendingChanges { account: Some(account) };
    store.save_pending_changes(pending).await.unwrap();
    let changes = Changes {
        devices: DeviceChanges {
            new: vec![device],
            ..DeviceChanges::default()
        },
        sessions: vec![olm],
        inbound_group_sessions: vec![inbound],
        outbound_group_sessions: vec![outbound],
        message_hashes: vec![hash()],
        next_batch_token: Some("s42".to_owned()),
        room_settings: [(room().to_owned(), RoomSettings::default())].into(),
        ..Changes::default()
    };
    store.save_changes(changes).await.unwrap();
    store.save_tracked_users(&[(user(), true)]).await.unwrap();
    store.set_custom_value("custom", b"value".to_vec()).await.unwrap();
    unit.put(&RecordId::named(NAMED, &["group"], "name"), "a record")
        .unwrap();
    for text in ["first", "second"] {
        let position = unit.next_sequence(QUEUE, &[]).await.unwrap();
        unit.put(&RecordId::sequence(QUEUE, &[], position), text).unwrap();
    }
    unit.put(&RecordId::named(NAMED, &["group"], "peer"), &peer).unwrap();
    unit.commit().await.unwrap();
    peer
}

/// The key of the peer, as [`fill`] returned it.
pub(crate) async fn peer(store: &PickleStore) -> String {
    let peer = RecordId::named(NAMED, &["group"], "peer");
    store.record(&peer).await.unwrap().unwrap()
}

/// What is in a store, as far as it is random.
pub(crate) async fn facts(store: &PickleStore, peer: &str) -> Facts {
    let account = store.load_account().await.unwrap().unwrap();
    let keys = account.identity_keys();
    let outbound = store.get_outbound_group_session(room()).await.unwrap().unwrap();
    let inbound = store
        .get_inbound_group_session(room(), outbound.session_id())
        .await
        .unwrap()
        .unwrap();
    let exported = serde_json::to_value(inbound.export().await).unwrap();
    let olm = store.get_sessions(peer).await.unwrap().unwrap();
    assert_eq!(olm.len(), 1);
    Facts {
        curve25519: keys.curve25519.to_base64(),
        ed25519: keys.ed25519.to_base64(),
        peer_curve25519: peer.to_owned(),
        olm_session: olm[0].session_id().to_owned(),
        inbound: inbound.session_id().to_owned(),
        inbound_key: exported["session_key"].as_str().unwrap().to_owned(),
        outbound: outbound.session_id().to_owned(),
        outbound_index: outbound.message_index().await,
    }
}

/// What is the same in every golden store.
pub(crate) async fn check_the_rest(store: &PickleStore) {
    assert_eq!(
        store.device().await.unwrap().unwrap(),
        (user().to_owned(), device_id!("GOLDEN").to_owned())
    );
    assert_eq!(store.next_batch_token().await.unwrap().as_deref(), Some("s42"));
    assert_eq!(store.get_custom_value("custom").await.unwrap().unwrap(), b"value");
    assert!(store.is_message_known(&hash()).await.unwrap());
    assert!(store.get_room_settings(room()).await.unwrap().is_some());
    let tracked = store.load_tracked_users().await.unwrap();
    assert!(tracked.len() == 1 && tracked[0].user_id == user() && tracked[0].dirty);
    let own = store.get_own_device().await.unwrap();
    assert_eq!(own.device_id(), device_id!("GOLDEN"));
    assert_eq!(store.get_user_devices(user()).await.unwrap().len(), 1);
    let named: Option<String> = store.record(&RecordId::named(NAMED, &["group"], "name")).await.unwrap();
    assert_eq!(named.as_deref(), Some("a record"));
    let queue: Vec<String> = store
        .scan(QUEUE, &[], None, 10)
        .await
        .unwrap()
        .iter()
        .map(|record| record.decode().unwrap())
        .collect();
    assert_eq!(queue, ["first", "second"]);
    let unit = store.begin().await.unwrap();
    assert_eq!(unit.next_sequence(QUEUE, &[]).await.unwrap(), 2, "positions go on");
    unit.abort().await.unwrap();
}
