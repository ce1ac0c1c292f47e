//! Which room keys a policy lets go, and which it never does.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use matrix_sdk_crypto::{
    Account, DeviceData, EncryptionSettings,
    olm::{InboundGroupSession, OutboundGroupSession, SenderData},
    store::{
        CryptoStore,
        types::{Changes, DeviceChanges, PendingChanges},
    },
    types::EventEncryptionAlgorithm,
};
use mx_crypto_store::{KeySource, PickleStore, Retention, StoreKey, backend::Memory};
use ruma::{OwnedRoomId, RoomId, device_id, room_id, user_id};

struct World {
    store: PickleStore,
    account: Account,
}

impl World {
    async fn new() -> Self {
        let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
        let store = PickleStore::open(Arc::new(Memory::new()), key).await.unwrap();
        let account = Account::with_device_id(user_id!("@a:b"), device_id!("D"));
        let device = DeviceData::from_account(&account);
        let pending = PendingChanges {
            account: Some(Account::from_pickle(account.pickle()).unwrap()),
        };
        store.save_pending_changes(pending).await.unwrap();
        let changes = Changes {
            devices: DeviceChanges {
                new: vec![device],
                ..DeviceChanges::default()
            },
            ..Changes::default()
        };
        store.save_changes(changes).await.unwrap();
        Self { store, account }
    }

    fn outbound(&self, room: &RoomId) -> OutboundGroupSession {
        let keys = Arc::new(self.account.identity_keys());
        OutboundGroupSession::new(device_id!("D").to_owned(), keys, room, EncryptionSettings::default()).unwrap()
    }

    /// Save the key of a session, and tell its id.
    async fn receive(&self, session: &OutboundGroupSession, sender: SenderData) -> String {
        let keys = self.account.identity_keys();
        let inbound = InboundGroupSession::new(
            keys.curve25519,
            keys.ed25519,
            session.room_id(),
            &session.session_key().await,
            sender,
            None,
            EventEncryptionAlgorithm::MegolmV1AesSha2,
            None,
            false,
        )
        .unwrap();
        let id = inbound.session_id().to_owned();
        self.store
            .save_inbound_group_sessions(vec![inbound], None)
            .await
            .unwrap();
        until_the_clock_moves();
        id
    }

    /// `count` keys of a room, the oldest first.
    async fn keys(&self, room: &RoomId, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.receive(&self.outbound(room), SenderData::unknown()).await);
        }
        ids
    }

    async fn left(&self, room: &RoomId) -> BTreeSet<String> {
        let sessions = self.store.get_inbound_group_sessions_by_room_id(room).await.unwrap();
        sessions.iter().map(|session| session.session_id().to_owned()).collect()
    }
}

/// Keys are as old as the wall clock says, in milliseconds.
fn until_the_clock_moves() {
    let before = SystemTime::now();
    while before.elapsed().is_ok_and(|elapsed| elapsed < Duration::from_millis(2)) {
        std::hint::spin_loop();
    }
}

fn one() -> &'static RoomId {
    room_id!("!one:b")
}

fn nothing_queued() -> BTreeSet<(OwnedRoomId, String)> {
    BTreeSet::new()
}

fn set(ids: &[&String]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).clone()).collect()
}

#[tokio::test]
async fn nothing_goes_unless_a_limit_says_so() {
    let world = World::new().await;
    world.keys(one(), 3).await;
    let retired = world
        .store
        .retire_room_keys(&Retention::default(), &nothing_queued())
        .await
        .unwrap();
    assert_eq!((retired.removed, retired.needed, retired.left), (0, 0, 3));
}

#[tokio::test]
async fn the_newest_of_each_room_stay() {
    let world = World::new().await;
    let ids = world.keys(one(), 4).await;
    let others = world.keys(room_id!("!other:b"), 1).await;
    let mut policy = Retention::default();
    policy.newest_in_room = Some(2);
    let retired = world.store.retire_room_keys(&policy, &nothing_queued()).await.unwrap();
    assert_eq!((retired.removed, retired.left), (2, 3));
    assert_eq!(world.left(one()).await, set(&[&ids[2], &ids[3]]));
    assert_eq!(world.left(room_id!("!other:b")).await, set(&[&others[0]]));
    let gone = world.store.get_inbound_group_session(one(), &ids[0]).await.unwrap();
    assert!(gone.is_none(), "not in memory either");
    let by_sender = world
        .store
        .get_inbound_group_sessions_for_device_batch(
            world.account.identity_keys().curve25519,
            SenderData::unknown().to_type(),
            None,
            100,
        )
        .await
        .unwrap();
    assert_eq!(by_sender.len(), 3, "the index does not name what is gone");
}

#[tokio::test]
async fn what_is_needed_stays() {
    let world = World::new().await;
    let ours = world.outbound(one());
    let changes = Changes {
        outbound_group_sessions: vec![ours.clone()],
        ..Changes::default()
    };
    world.store.save_changes(changes).await.unwrap();
    let sending = world.receive(&ours, SenderData::unknown()).await;
    let ids = world.keys(one(), 3).await;
    let queued = [(one().to_owned(), ids[1].clone())].into();
    let mut policy = Retention::default();
    policy.older_than = Some(Duration::ZERO);
    let retired = world.store.retire_room_keys(&policy, &queued).await.unwrap();
    assert_eq!((retired.removed, retired.needed, retired.left), (2, 2, 2));
    assert_eq!(world.left(one()).await, set(&[&sending, &ids[1]]));
    policy.older_than = Some(Duration::from_secs(3600));
    let retired = world.store.retire_room_keys(&policy, &nothing_queued()).await.unwrap();
    assert_eq!(retired.removed, 0, "not that old");
}

#[tokio::test]
async fn what_no_backup_has_stays_if_it_is_asked_for() {
    let world = World::new().await;
    let ids = world.keys(one(), 2).await;
    world
        .store
        .mark_inbound_group_sessions_as_backed_up("7", &[(one(), ids[0].as_str())])
        .await
        .unwrap();
    let mut policy = Retention::default();
    policy.newest_in_room = Some(0);
    policy.unless_backed_up_to = Some("7".to_owned());
    let retired = world.store.retire_room_keys(&policy, &nothing_queued()).await.unwrap();
    assert_eq!((retired.removed, retired.needed), (1, 1));
    assert_eq!(world.left(one()).await, set(&[&ids[1]]));
}

#[tokio::test]
async fn keys_of_deleted_devices_go() {
    let world = World::new().await;
    let known = world.keys(one(), 1).await;
    let device_keys = DeviceData::from_account(&world.account).as_device_keys().clone();
    let sender = |keys: &matrix_sdk_crypto::types::DeviceKeys| SenderData::DeviceInfo {
        device_keys: keys.clone(),
        legacy_session: false,
    };
    let own = world.receive(&world.outbound(one()), sender(&device_keys)).await;
    let mut policy = Retention::default();
    policy.of_deleted_devices = true;
    let retire = async || world.store.retire_room_keys(&policy, &nothing_queued()).await.unwrap();
    let tracked = async |dirty| {
        world
            .store
            .save_tracked_users(&[(user_id!("@a:b"), dirty)])
            .await
            .unwrap()
    };
    tracked(false).await;
    assert_eq!(retire().await.removed, 0, "its device is there");
    let changes = Changes {
        devices: DeviceChanges {
            deleted: vec![DeviceData::from_account(&world.account)],
            ..DeviceChanges::default()
        },
        ..Changes::default()
    };
    world.store.save_changes(changes).await.unwrap();
    tracked(true).await;
    assert_eq!(retire().await.removed, 0, "the list of devices is out of date");
    tracked(false).await;
    assert_eq!(retire().await.removed, 1);
    assert_eq!(
        world.left(one()).await,
        set(&[&known[0]]),
        "of an unknown sender nothing is known"
    );
    assert!(!world.left(one()).await.contains(&own));
}

#[tokio::test]
async fn it_is_part_of_the_unit_that_is_open() {
    let world = World::new().await;
    let ids = world.keys(one(), 2).await;
    let mut policy = Retention::default();
    policy.newest_in_room = Some(0);
    let unit = world.store.begin().await.unwrap();
    world.store.retire_room_keys(&policy, &nothing_queued()).await.unwrap();
    assert!(world.left(one()).await.is_empty());
    unit.abort().await.unwrap();
    assert_eq!(world.left(one()).await, set(&[&ids[0], &ids[1]]));
}

#[tokio::test]
async fn what_is_forgotten_by_name_is_never_the_key_that_we_send_with() {
    let world = World::new().await;
    let ids = world.keys(one(), 2).await;
    let ours = world.outbound(one());
    let sending = world.receive(&ours, SenderData::unknown()).await;
    let changes = Changes {
        outbound_group_sessions: vec![ours],
        ..Changes::default()
    };
    world.store.save_changes(changes).await.unwrap();
    let named = [&ids[0], &sending].map(|id| (one().to_owned(), id.clone()));
    world.store.forget_room_keys(&named).await.unwrap();
    assert_eq!(world.left(one()).await, set(&[&ids[1], &sending]));
}

#[tokio::test]
async fn a_unit_tells_what_was_here_before_it() {
    let world = World::new().await;
    let before = world.keys(one(), 1).await.remove(0);
    let unit = world.store.begin().await.unwrap();
    let inside = world.keys(one(), 1).await.remove(0);
    world
        .store
        .forget_room_keys(&[(one().to_owned(), before.clone())])
        .await
        .unwrap();
    assert!(world.store.was_held_before_unit(one(), &before).await.unwrap());
    assert!(!world.store.was_held_before_unit(one(), &inside).await.unwrap());
    assert_eq!(world.left(one()).await, set(&[&inside]));
    unit.commit().await.unwrap();
    assert!(world.store.was_held_before_unit(one(), &inside).await.unwrap());
}
