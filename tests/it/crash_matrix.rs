//! The crash matrix: killed at each of the catalogue's kill points, again and again, from different
//! histories, and in three of ten cases once more while it recovers.
//!
//! Where the points lie in the grid of the disk's and the network's operations (see [`crate::disks`]; one unit of work
//! commits at its end, so that the engine's many writes are one operation):
//!
//! | point | here |
//! |---|---|
//! | K1 | any operation of a first login: no process has seen this store before |
//! | K3 | any operation of the disk in a sync that says that devices changed |
//! | K4 | any read of a sync that brings room keys: in the middle of its unit, before the commit |
//! | K5 | before and after each commit of such a sync |
//! | K6 | any operation of a receive after its commit, before the app has the message |
//! | K7 | before `/keys/upload` leaves: the keys are on the disk |
//! | K8 | after `/keys/upload` was processed, before its answer is read |
//! | K9 | any commit after that answer |
//! | K10 | after `/keys/claim` was processed, before its answer is read |
//! | K11 | before and after each commit of a send after that answer |
//! | K12 | any read of a send that has to make a new room key |
//! | K13 | before `/sendToDevice` leaves: the room key is on the disk |
//! | K14 | before and after each of two `/sendToDevice` |
//! | K15 | before and after each commit of a send after the first of them was processed |
//! | K16 | before a commit of two sends that ask nobody anything: the event is encrypted |
//! | K17 | before the event leaves: it is in the outbox |
//! | K18 | after the homeserver has it, before its answer is read |
//! | K19 | any operation of the disk after the answer to `/keys/query` |
//! | K21 | any operation of a send that has to make a new room key, because somebody went or came |
//! | K24 | any operation of the acknowledgement of what the app was given |
//!
//! Not here, because this disk has no files: K2 (the key file beside the header) and K22 (logout) are in `ending.rs`, with
//! processes; K20 (upgrades and new keys) is in the store's tests of golden stores; K23 (refresh tokens) is in
//! `refresh_crash.rs`, with a login of its own.

mod points;

use mx_test_homeserver::Exchange;

use crate::{
    crash_history::{History, Parked, Scene},
    disks::{Moment, Operation, Plan, Point, Trouble},
    world::seed::{Seed, rounds, tell},
};
use points::{Act, KillPoint};

/// How many rounds of each kill point are played by every run of the tests; `cargo xtask crash --receive` plays 200.
const ROUNDS: u64 = 20;
/// How many of them begin with the same history.
const ROUNDS_OF_A_HISTORY: u64 = 20;

/// Every round of a kill point.
fn matrix(name: &str) {
    let point = KillPoint::named(name).unwrap();
    let (mut struck, mut told) = (0, 0);
    for history in 0..rounds().unwrap_or(ROUNDS).div_ceil(ROUNDS_OF_A_HISTORY) {
        let beginning = beginning(&point, history);
        for round in 0..ROUNDS_OF_A_HISTORY {
            struck += u64::from(play(&point, &beginning, history, round).0);
            told += 1;
        }
    }
    eprintln!("{name}: {struck} of {told} rounds were killed where they were to be");
    assert!(
        struck * 10 >= told * 7,
        "{name} is hardly ever reached: {struck} of {told}"
    );
}

/// One round again, as `cargo xtask replay` asks for it: what went over the wire.
pub(crate) fn replay(point: &str, history: u64, round: u64) -> Vec<Exchange> {
    let point = KillPoint::named(point).unwrap();
    let beginning = beginning(&point, history);
    play(&point, &beginning, history, round).1
}

/// A history, and how many operations of it count when nothing happens.
struct Beginning {
    history: History,
    operations: u64,
}

fn beginning(point: &KillPoint, number: u64) -> Beginning {
    let name = format!("crash-{}-{number}-0", point.name);
    tell(&name, async || {
        let history = History::of(&mut Seed::new(&format!("history-{}-{number}", point.name))).await;
        let mut scene = history.scene().await;
        let plan = Plan::default();
        // The smallest of all rounds, so that every number is reached in the others.
        let (device, client) = prepare(point, &mut scene, &plan, 1).await;
        plan.arm(point.at(0, Moment::Before));
        let client = point.act.done(&mut scene, &device, client, &plan).await.unwrap();
        let operations = plan.counted();
        assert!(operations > 0, "{name}: nothing counts");
        recovered(point, scene, &device, client).await;
        Beginning { history, operations }
    })
}

/// Play a round. True: the process was killed where it was to be. Also what went over the wire.
fn play(point: &KillPoint, beginning: &Beginning, history: u64, round: u64) -> (bool, Vec<Exchange>) {
    let name = format!("crash-{}-{history}-{round}", point.name);
    tell(&name, async || {
        let seed = &mut Seed::new(&name);
        let mut scene = beginning.history.scene().await;
        let plan = Plan::default();
        let messages = 1 + seed.below(3);
        let (device, client) = prepare(point, &mut scene, &plan, messages).await;
        let nth = 1 + seed.below(beginning.operations);
        plan.arm(point.at(nth, seed.pick(point.moments)));
        let done = point.act.done(&mut scene, &device, client, &plan);
        let client = Box::pin(plan.until_killed(done)).await.map(Result::unwrap);
        drop(client);
        scene.bob_ended();
        if seed.chance(30) {
            Box::pin(die_again(seed, &mut scene, &device)).await;
        }
        let client = device.open_or_login(&scene.server, &Plan::default()).await.unwrap();
        let server = scene.server.clone();
        recovered(point, scene, &device, client).await;
        if std::env::var_os("MX_SEED").is_some() {
            eprintln!("{name}: {}", plan.struck().unwrap_or_else(|| "not killed".to_owned()));
        }
        (plan.struck().is_some(), server.log())
    })
}

/// A process begins, reads, and is killed again.
async fn die_again(seed: &mut Seed, scene: &mut Scene, device: &Parked) {
    let plan = Plan::default();
    plan.arm(Point {
        after: None,
        counts: |_, _| true,
        nth: 1 + seed.below(60),
        moment: seed.pick(&[Moment::Before, Moment::After]),
        trouble: Trouble::Kill,
    });
    let again = async {
        let client = device.open_or_login(&scene.server, &plan).await?;
        while scene.bob_reads(&client).await? {}
        Ok::<(), mx_e2ee::Error>(())
    };
    if let Some(ended) = Box::pin(plan.until_killed(again)).await {
        ended.unwrap();
    }
    scene.bob_ended();
}

/// What makes the kill point meaningful, and the process that will suffer, if it runs before.
async fn prepare(
    point: &KillPoint,
    scene: &mut Scene,
    plan: &Plan,
    messages: u64,
) -> (Parked, Option<mx_e2ee::Client>) {
    if point.act == Act::Login {
        let _user = scene.server.register("dora", "password");
        return (Parked::new("dora"), None);
    }
    let device = scene.bob.clone();
    let client = device.open(&scene.server, plan).await.unwrap();
    point.prepare(scene, &client, messages).await;
    (device, Some(client))
}

/// Nothing is missing, and everything goes on.
async fn recovered(point: &KillPoint, mut scene: Scene, device: &Parked, client: mx_e2ee::Client) {
    if point.act != Act::Login {
        return scene.ends_well(client).await;
    }
    // The new device can be written to, and reads.
    let room = scene.alice.room(&scene.room);
    room.invite(client.user_id()).await.unwrap();
    client.sync().await.unwrap();
    client.join(scene.room.as_str()).await.unwrap();
    scene.alice_says().await;
    let mut read = Vec::new();
    loop {
        let events = client.receive(std::time::Duration::ZERO).await.unwrap();
        if events.is_empty() {
            break;
        }
        let texts = events.into_iter().filter_map(|event| match event {
            mx_e2ee::Event::Message(message) => message.body().map(str::to_owned),
            _ => None,
        });
        read.extend(texts);
    }
    assert_eq!(
        read.len(),
        1,
        "the device that logged in reads what was said to it: {read:?}"
    );
    client.close().await.unwrap();
    let bob = scene.bob.open(&scene.server, &Plan::default()).await.unwrap();
    scene.ends_well(bob).await;
    drop(device.clone());
}

/// Whether an operation is one of the disk.
fn of_disk(operation: Operation) -> bool {
    operation != Operation::Request
}

#[test]
fn k1_killed_in_a_first_login() {
    matrix("k1");
}

#[test]
fn k3_killed_while_devices_are_marked_as_changed() {
    matrix("k3");
}

#[test]
fn k4_killed_in_the_middle_of_a_sync_that_brings_keys() {
    matrix("k4");
}

#[test]
fn k5_killed_around_the_commit_of_a_sync() {
    matrix("k5");
}

#[test]
fn k6_killed_between_the_commit_and_the_delivery() {
    matrix("k6");
}

#[test]
fn k7_killed_before_keys_are_uploaded() {
    matrix("k7");
}

#[test]
fn k8_killed_before_the_answer_to_an_upload_is_read() {
    matrix("k8");
}

#[test]
fn k9_killed_before_an_upload_is_marked() {
    matrix("k9");
}

#[test]
fn k10_killed_before_the_answer_to_a_claim_is_read() {
    matrix("k10");
}

#[test]
fn k11_killed_around_the_commits_after_a_claim() {
    matrix("k11");
}

#[test]
fn k12_killed_while_a_room_key_is_shared() {
    matrix("k12");
}

#[test]
fn k13_killed_before_a_room_key_leaves() {
    matrix("k13");
}

#[test]
fn k14_killed_between_the_parts_of_a_room_key() {
    matrix("k14");
}

#[test]
fn k15_killed_before_a_delivery_is_marked() {
    matrix("k15");
}

#[test]
fn k16_killed_before_the_commit_of_an_encryption() {
    matrix("k16");
}

#[test]
fn k17_killed_before_the_event_leaves() {
    matrix("k17");
}

#[test]
fn k18_killed_before_the_answer_to_an_event_is_read() {
    matrix("k18");
}

#[test]
fn k19_killed_while_the_answer_to_a_key_query_is_taken() {
    matrix("k19");
}

#[test]
fn k21_killed_in_a_send_with_a_new_room_key() {
    matrix("k21");
}

#[test]
fn k24_killed_in_an_acknowledgement() {
    matrix("k24");
}
