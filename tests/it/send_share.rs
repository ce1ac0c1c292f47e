//! The room key on its way to its readers, and disks that fail, clocks that jump and processes that die meanwhile.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use matrix_sdk_crypto::{
    olm::OutboundGroupSession,
    store::{CryptoStore, types::Changes},
};
use mx_crypto_store::{PickleStore, backend::BackendErrorKind as Kind};
use mx_e2ee::{Client, Error, SendReceipt};
use mx_test_homeserver::{EvilPeer, Exchange, Fault, Homeserver};
use ruma::{OwnedRoomId, SecondsSinceUnixEpoch, UInt};

use crate::{
    crash_history::Parked,
    crowd::{crowd, room_with},
    disks::{Counts, Moment, Operation, Plan, Point, Trouble},
    world::{
        World, key,
        seed::{rounds, tell},
    },
};

const COMMITS: Counts = |operation, _| operation == Operation::Commit;
const READS: Counts = |operation, _| matches!(operation, Operation::Get | Operation::Scan);
const DISK: Counts = |operation, _| operation != Operation::Request;
const ANY: Counts = |_, _| true;

fn requests(server: &Homeserver, what: &str) -> Vec<Exchange> {
    let log = server.log();
    log.into_iter()
        .filter(|exchange| exchange.path.contains(what))
        .collect()
}

/// What identifies a request: where it goes, and its bytes.
fn bytes(exchange: &Exchange) -> (String, String) {
    (exchange.path.clone(), exchange.request_body.to_string())
}

/// A device whose process may die, and a room in which everybody has its key, but for `newcomer`.
struct Scene {
    world: World,
    device: Parked,
    room: OwnedRoomId,
    newcomer: EvilPeer,
    _peers: Vec<EvilPeer>,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let _user = world.register("alice", "password");
        let device = Parked::new("alice");
        let alice = device.login(&world, &Plan::default()).await.unwrap();
        let peers = crowd(&world, 2, 1);
        let room = room_with(&alice, &peers).await.id().to_owned();
        alice.room(&room).send_text("a key").await.unwrap();
        let mut newcomer = EvilPeer::new(&world, "member0", "NEW");
        newcomer.publish();
        alice.close().await.unwrap();
        Self {
            world,
            device,
            room,
            newcomer,
            _peers: peers,
        }
    }

    async fn open(&self, plan: &Plan) -> Client {
        self.device.open(&self.world, plan).await.unwrap()
    }

    async fn says(&self, alice: &Client) -> Result<SendReceipt, Error> {
        self.world.say(&alice.room(&self.room), "something").await
    }

    fn events(&self) -> usize {
        let timeline = self.world.timeline(&self.room);
        let encrypted = timeline.iter().filter(|event| event["type"] == "m.room.encrypted");
        encrypted.count()
    }
}

#[tokio::test(start_paused = true)]
async fn sn_28_the_part_of_a_key_that_was_not_delivered_is_delivered_as_it_is_also_after_a_restart() {
    let world = World::new();
    let _user = world.register("alice", "password");
    let device = Parked::new("alice");
    let alice = device.login(&world, &Plan::default()).await.unwrap();
    let peers = crowd(&world, 3, 200);
    let room = room_with(&alice, &peers).await.id().to_owned();
    world.fault(Fault::status("/sendToDevice/", 503, r#"{"errcode":"M_UNKNOWN","error":"no"}"#).nth(2));
    let error = alice.room(&room).send_text("not yet").await.unwrap_err();
    assert_eq!(error.code(), "key_share_incomplete");
    assert!(error.is_transient());
    let Error::Orchestrator(mx_e2ee::orchestrator::Error::KeyShareIncomplete {
        delivered, outstanding, ..
    }) = &error
    else {
        panic!("{error}")
    };
    assert_eq!((*delivered, *outstanding), (2, 1));
    let first = requests(&world, "/sendToDevice/");
    assert_eq!(first.len(), 3, "600 devices are three requests of at most 250");
    assert!(requests(&world, "/send/m.room.encrypted/").is_empty());
    let failed = first.iter().find(|exchange| exchange.status == Some(503)).unwrap();
    drop(alice);
    let alice = device.open(&world, &Plan::default()).await.unwrap();
    let receipt = alice.room(&room).send_text("now").await.unwrap();
    assert_eq!(receipt.readable_by(), 600);
    let all = requests(&world, "/sendToDevice/");
    assert_eq!(all.len(), 4, "what was delivered is not delivered again");
    assert_eq!(bytes(&all[3]), bytes(failed));
    assert_eq!(requests(&world, "/send/m.room.encrypted/").len(), 1);
}

/// The clock jumped by so many seconds since the key was made: the same as a key that was made so much later, or earlier.
async fn clock_jumps(device: &Parked, room: &ruma::RoomId, seconds: i64) {
    let store = PickleStore::open_existing(device.disk.open(&Plan::default()), key())
        .await
        .unwrap();
    let session = store.get_outbound_group_session(room).await.unwrap().unwrap();
    let mut pickle = session.pickle().await;
    let made = i64::try_from(u64::from(pickle.creation_time.get())).unwrap();
    let made = u64::try_from(made.saturating_sub(seconds).max(0)).unwrap();
    pickle.creation_time = SecondsSinceUnixEpoch(UInt::new(made).unwrap());
    let account = store.get_static_account().unwrap();
    let jumped = OutboundGroupSession::from_pickle(account.device_id, account.identity_keys, pickle).unwrap();
    let changes = Changes {
        outbound_group_sessions: vec![jumped],
        ..Changes::default()
    };
    store.save_changes(changes).await.unwrap();
    store.shutdown().await.unwrap();
}

#[test]
fn sn_10_a_clock_that_jumps_costs_one_key_and_no_message() {
    const YEAR: i64 = 365 * 86_400;
    for (seconds, rotates) in [
        (0, false),
        (-86_400, true),
        (-30 * YEAR, true),
        (100 * YEAR, true),
        (86_400, false),
    ] {
        tell("", async || {
            let scene = Scene::new().await;
            clock_jumps(&scene.device, &scene.room, seconds).await;
            let alice = scene.open(&Plan::default()).await;
            let sends = join_all((0..3).map(|_| scene.says(&alice))).await;
            let fresh: Vec<bool> = sends.iter().map(|sent| sent.as_ref().unwrap().new_session).collect();
            assert_eq!(fresh, [rotates, false, false], "{seconds} seconds");
            let sessions: BTreeSet<String> = sends.into_iter().map(|sent| sent.unwrap().session_id).collect();
            assert_eq!(sessions.len(), 1);
        });
    }
}

/// The disk fails at the n-th operation that counts of a send, and the caller tries again, in this process and in the
/// next. Returns false when the send has fewer operations.
fn fails_at(nth: u64, counts: Counts, moment: Moment) -> bool {
    tell("", async || {
        let scene = Scene::new().await;
        let plan = Plan::default();
        let alice = scene.open(&plan).await;
        let session = {
            let store = alice.orchestrator().store();
            let held = store.get_outbound_group_session(&scene.room).await.unwrap();
            held.unwrap().session_id().to_owned()
        };
        alice.sync().await.unwrap();
        let before = (scene.events(), requests(&scene.world, "/sendToDevice/").len());
        plan.arm(Point {
            after: None,
            counts,
            nth,
            moment,
            trouble: Trouble::Fail(Kind::Io),
        });
        let first = scene.says(&alice).await;
        if plan.struck().is_none() {
            first.unwrap();
            return false;
        }
        let place = plan.struck().unwrap();
        let put = scene.events();
        let delivered = requests(&scene.world, "/sendToDevice/").len();
        let again = scene.says(&alice).await.unwrap_err();
        assert!(
            ["store_io", "store_poisoned"].contains(&again.code()),
            "{place}: {again}"
        );
        if let Err(error) = &first {
            assert!(
                ["store_io", "store_poisoned"].contains(&error.code()),
                "{place}: {error}"
            );
            assert_eq!(put, before.0, "{place}: nothing was put that is not on the disk");
        }
        assert_eq!(scene.events(), put, "{place}");
        assert_eq!(requests(&scene.world, "/sendToDevice/").len(), delivered, "{place}");
        scene.world.expect_late_event(alice.user_id(), alice.device_id());
        drop(alice);
        let alice = scene.open(&Plan::default()).await;
        let receipt = scene.says(&alice).await.unwrap();
        assert_eq!(
            receipt.session_id, session,
            "{place}: a disk that fails is no reason for a new key"
        );
        assert_eq!(receipt.readable_by(), 3, "{place}");
        // Every to-device request that was ever put has one content.
        let all = requests(&scene.world, "/sendToDevice/");
        let distinct: BTreeSet<_> = all.iter().map(bytes).collect();
        let paths: BTreeSet<_> = all.iter().map(|exchange| exchange.path.clone()).collect();
        assert_eq!(distinct.len(), paths.len(), "{place}");
        let mut newcomer = scene.newcomer;
        assert_eq!(newcomer.receive().len(), 1, "{place}: the newcomer has the key once");
        true
    })
}

/// Every operation in a longer run, as CI does, and else one of so many.
fn every(of: usize) -> impl Iterator<Item = u64> {
    (1..).step_by(if rounds().is_some() { 1 } else { of })
}

fn fails_at_every(counts: Counts, moment: Moment, of: usize) {
    let struck = every(of).take_while(|nth| fails_at(*nth, counts, moment)).count();
    assert!(struck >= 3, "the disk failed at {struck} operations");
}

#[test]
fn sn_41_a_commit_that_fails_while_a_key_is_shared_leaves_nothing_that_a_second_try_would_use() {
    fails_at_every(COMMITS, Moment::Before, 1);
    fails_at_every(COMMITS, Moment::After, 1);
}

#[test]
fn sn_42_a_read_that_fails_is_an_error_and_no_new_key() {
    fails_at_every(READS, Moment::Before, 4);
}

#[test]
fn sn_48_of_ten_rooms_at_once_on_a_failing_disk_each_ok_is_there_and_each_error_left_nothing() {
    let mut failed = 0;
    for nth in (1..40).step_by(3) {
        failed += tell("", async || {
            let world = World::new();
            let _user = world.register("alice", "password");
            let (device, plan) = (Parked::new("alice"), Plan::default());
            let alice = device.login(&world, &plan).await.unwrap();
            let peers = crowd(&world, 1, 1);
            let mut rooms = Vec::new();
            for _ in 0..10 {
                rooms.push(room_with(&alice, &peers).await);
            }
            plan.arm(Point {
                after: None,
                counts: DISK,
                nth,
                moment: Moment::Before,
                trouble: Trouble::Fail(Kind::NoSpace),
            });
            let sent = join_all(rooms.iter().map(|room| room.send_text("to all"))).await;
            let good: BTreeSet<String> = sent.iter().flatten().map(|sent| sent.event_id.to_string()).collect();
            let put = requests(&world, "/send/m.room.encrypted/").len();
            assert_eq!(put, good.len(), "what failed was not put");
            for error in sent.iter().filter_map(|sent| sent.as_ref().err()) {
                assert!(["store_no_space", "store_poisoned"].contains(&error.code()), "{error}");
            }
            let rooms: Vec<OwnedRoomId> = rooms.into_iter().map(|room| room.id().to_owned()).collect();
            drop(alice);
            let alice = device.open(&world, &Plan::default()).await.unwrap();
            alice.orchestrator().flush_outbox().await.unwrap();
            let mut found = BTreeSet::new();
            for room in &rooms {
                let events: Vec<String> = world
                    .timeline(room)
                    .iter()
                    .filter(|event| event["type"] == "m.room.encrypted")
                    .map(|event| event["event_id"].as_str().unwrap().to_owned())
                    .collect();
                assert!(events.len() <= 1, "{room}: {events:?}");
                found.extend(events);
            }
            assert!(good.is_subset(&found), "every Ok is there");
            sent.iter().filter(|sent| sent.is_err()).count()
        });
    }
    assert!(failed > 20, "{failed} sends failed");
}

/// Three sends at once, the process is killed at the n-th operation, and the next one goes on. Returns false when there
/// are fewer operations.
fn killed_at(nth: u64, moment: Moment) -> bool {
    tell("", async || {
        let scene = Scene::new().await;
        let plan = Plan::default();
        let alice = scene.open(&plan).await;
        let before = scene.events();
        plan.arm(Point {
            after: None,
            counts: ANY,
            nth,
            moment,
            trouble: Trouble::Kill,
        });
        let ended = plan.until_killed(join_all((0..3).map(|_| scene.says(&alice)))).await;
        let Some(place) = plan.struck() else {
            assert!(ended.unwrap().iter().all(Result::is_ok));
            return false;
        };
        drop(alice);
        let alice = scene.open(&Plan::default()).await;
        alice.sync().await.unwrap();
        let sent = scene.events() - before;
        assert!(sent <= 3, "{place}: {sent} of 3 events");
        let _last = scene.says(&alice).await.unwrap();
        assert_eq!(scene.events(), before + sent + 1, "{place}");
        // Everything that is there can be read by who is there: the oracle looks at the places of the ratchets.
        let mut newcomer = scene.newcomer;
        newcomer.receive();
        let timeline = scene.world.timeline(&scene.room);
        let encrypted = timeline.iter().filter(|event| event["type"] == "m.room.encrypted");
        let read = encrypted
            .skip(before)
            .filter(|event| newcomer.decrypt_event(event).is_some());
        assert_eq!(read.count(), sent + 1, "{place}");
        true
    })
}

#[test]
fn sn_33_killed_at_any_operation_of_three_sends_no_place_of_a_ratchet_is_used_twice() {
    for moment in [Moment::Before, Moment::After] {
        let struck = every(5).take_while(|nth| killed_at(*nth, moment)).count();
        assert!(struck >= 10, "{struck} operations");
    }
}
