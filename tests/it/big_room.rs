//! Rooms of thousands of devices: chunks, bounded memory, progress, and a kill in the middle.
//!
//! Each run of the tests takes 2,000 devices, which a debug build bears; `MX_BIG_ROOM=10000 MX_MEMORY_MIB=2048` takes another
//! number. The homeserver with its log and all of the others' keys are in the same process, and the watchdog counts their memory,
//! too. What a device alone holds is measured of `mx`, in a process of its own: 138 MiB with 2,000 devices, 435 MiB with 10,000
//! (debug build).

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use mx_e2ee::{Client, Progress, ProgressStep};
use mx_test_homeserver::{Exchange, Homeserver};
use serde_json::Value;

use crate::{
    cli::Shell,
    crash_history::Parked,
    crowd::{crowd, room_of, room_with},
    disks::{Moment, Operation, Plan, Point, Trouble},
    world::World,
};

/// The most that a request names.
const CHUNK: usize = 250;
/// What a debug build may take.
const PATIENCE: Duration = Duration::from_secs(900);

fn size() -> usize {
    std::env::var("MX_BIG_ROOM").map_or(2_000, |size| size.parse().unwrap())
}

fn of<'a>(log: &'a [Exchange], what: &str) -> Vec<&'a Exchange> {
    log.iter().filter(|exchange| exchange.path.contains(what)).collect()
}

/// How many devices each of these requests names, under `field`.
fn named(requests: &[&Exchange], field: &str) -> Vec<usize> {
    let devices = |users: &Value| {
        let users = users.as_object().into_iter().flat_map(|users| users.values());
        users
            .map(|devices| devices.as_object().map_or(1, serde_json::Map::len))
            .sum()
    };
    requests
        .iter()
        .map(|request| devices(&request.request_body[field]))
        .collect()
}

/// Whom keys were sent to, each with the ciphertexts that went out.
fn given(log: &[Exchange]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut given: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for request in of(log, "/sendToDevice/m.room.encrypted/") {
        let users = request.request_body["messages"].as_object().unwrap();
        for (user, devices) in users {
            for (device, content) in devices.as_object().unwrap() {
                let to = (user.clone(), device.clone());
                given.entry(to).or_default().insert(content["ciphertext"].to_string());
            }
        }
    }
    given
}

/// What is told of a send, in order.
async fn watch(client: Client) -> Vec<Progress> {
    let mut progress = client.orchestrator().progress();
    let mut seen = Vec::new();
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        if let Some(now) = now {
            let is_last = now.step == ProgressStep::Keys && now.done == now.total && now.total > 0;
            seen.push(now);
            if is_last {
                break;
            }
        }
    }
    seen
}

fn server() -> World {
    let world = World::watch(Homeserver::new(), false, PATIENCE);
    let _user = world.register("alice", "password");
    world
}

/// What went over the wire for a room of so many devices, and one event.
fn everybody_was_given_one_key(log: &[Exchange], devices: usize) {
    let claims = named(&of(log, "/keys/claim"), "one_time_keys");
    assert_eq!(
        claims.iter().sum::<usize>(),
        devices,
        "each device was asked for one key"
    );
    let queries = named(&of(log, "/keys/query"), "device_keys");
    let puts = named(&of(log, "/sendToDevice/"), "messages");
    for (what, sizes) in [("claims", &claims), ("queries", &queries), ("puts", &puts)] {
        assert!(sizes.iter().all(|size| *size <= CHUNK), "{what}: {sizes:?}");
    }
    // Every device has the key once: what was put again has the same bytes.
    let given = given(log);
    assert_eq!(given.len(), devices);
    assert!(given.values().all(|ciphertexts| ciphertexts.len() == 1));
    let transactions: BTreeSet<&String> = of(log, "/sendToDevice/").iter().map(|put| &put.path).collect();
    assert_eq!(transactions.len(), devices.div_ceil(CHUNK));
    let events = of(log, "/send/m.room.encrypted/");
    assert_eq!(events.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sc_01_a_room_of_thousands_of_devices_is_given_its_key_once_also_when_killed_in_the_middle() {
    let world = server();
    let devices = size();
    let parked = Parked::new("alice");
    let plan = Plan::default();
    let alice = parked.login(&world, &plan).await.unwrap();
    let peers = crowd(&world, devices / 4, 4);
    let room = room_with(&alice, &peers).await.id().to_owned();
    // The process is killed when half of the key's requests have left.
    plan.arm(Point {
        after: None,
        counts: |operation, path| operation == Operation::Request && path.contains("/sendToDevice/"),
        nth: (devices / CHUNK / 2) as u64,
        moment: Moment::After,
        trouble: Trouble::Kill,
    });
    let seen = tokio::spawn(watch(alice.clone()));
    let first = alice.room(&room);
    assert!(
        plan.until_killed(first.send_text("never")).await.is_none(),
        "it was killed"
    );
    let log = world.log();
    let before = of(&log, "/sendToDevice/").len();
    assert!(
        before > 0 && before < devices.div_ceil(CHUNK),
        "{before} requests had left"
    );
    seen.abort();
    drop((first, alice));
    let alice = parked.open(&world, &Plan::default()).await.unwrap();
    let seen = tokio::spawn(watch(alice.clone()));
    tokio::task::yield_now().await;
    let receipt = alice.room(&room).send_text("now").await.unwrap();
    assert_eq!(receipt.readable_by(), devices);
    let seen = seen.await.unwrap();
    assert!(
        seen.iter()
            .all(|now| now.done <= now.total && now.step == ProgressStep::Keys),
        "{seen:?}"
    );
    assert!(seen.last().is_some_and(|now| now.done == now.total), "{seen:?}");

    everybody_was_given_one_key(&world.log(), devices);
    // Later messages cost what they cost in a small room.
    let requests = world.requests();
    for _ in 0..5 {
        alice.room(&room).send_text("later").await.unwrap();
    }
    assert_eq!(world.requests() - requests, 5);
}

/// The most that a process held in memory, in bytes: Linux keeps the high-water mark until it ends, and is asked all the time.
/// Nothing elsewhere.
fn peak_of(mut command: Command) -> (ExitStatus, u64) {
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        peak = peak.max(kibibytes.unwrap_or(0) * 1024);
        if let Some(ended) = child.try_wait().unwrap() {
            return (ended, peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// 512 MiB for 10,000 devices, and as much less for fewer as there are fewer; 80 MiB of it are for none.
const fn allowed(devices: usize) -> u64 {
    (80 + 432 * devices as u64 / 10_000) * 1024 * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn sc_01_a_process_that_writes_to_a_room_of_thousands_of_devices_stays_within_its_memory() {
    let devices = size();
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    let peers = crowd(&shell.server, devices / 4, 4);
    let room = room_of(&peers, ruma::user_id!("@alice:localhost"));
    shell.ok("alice", &["room", "join", room.as_str()]).await;
    let printed = tempfile::NamedTempFile::new().unwrap();
    let mut command = shell.command("alice", &["--json", "send", room.as_str(), "to thousands"]);
    command.stdout(printed.reopen().unwrap()).stderr(Stdio::inherit());
    let (ended, peak) = tokio::task::spawn_blocking(move || peak_of(command)).await.unwrap();
    assert!(ended.success());
    let receipt: Value = serde_json::from_str(&std::fs::read_to_string(printed.path()).unwrap()).unwrap();
    let reached = receipt["devices"].as_array().unwrap().iter();
    assert_eq!(reached.filter(|device| device["outcome"] == "reached").count(), devices);
    everybody_was_given_one_key(&shell.server.log(), devices);
    if cfg!(target_os = "linux") {
        let mib = peak / 1024 / 1024;
        assert!(peak > 0 && peak <= allowed(devices), "{mib} MiB");
    }
}

#[tokio::test(start_paused = true)]
async fn sc_05_a_thousand_users_to_ask_about_do_not_keep_a_room_waiting_whose_devices_are_known() {
    let world = server();
    let users = size() / 2;
    let alice = Parked::new("alice").login(&world, &Plan::default()).await.unwrap();
    let peers = crowd(&world, users, 1);
    let small = room_with(&alice, &peers[users - 1..]).await;
    small.send_text("a key").await.unwrap();
    let rooms = peers[..users - 1].chunks(100);
    for members in rooms {
        let _room = room_with(&alice, members).await;
    }
    // All of the others are asked about now, and the homeserver takes its time.
    world.fault(mx_test_homeserver::Fault::delay("/keys/query", Duration::from_secs(20)).for_ever());
    let before = world.log().len();
    let everybody: BTreeSet<_> = peers[..users - 1].iter().map(|peer| peer.user().to_owned()).collect();
    let big = alice
        .create_room(None, &everybody.into_iter().collect::<Vec<_>>())
        .await
        .unwrap();
    let asking = tokio::spawn(async move { big.send_text("to all").await });
    let queries = || of(&world.log()[before..], "/keys/query").len();
    while queries() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(queries() <= 4, "a few at once");
    small.send_text("quick").await.unwrap();
    assert!(!asking.is_finished(), "the others are still asked about");
    let receipt = asking.await.unwrap().unwrap();
    assert_eq!(receipt.readable_by(), users - 1);
    let log = world.log();
    let sizes = named(&of(&log, "/keys/query"), "device_keys");
    assert!(sizes.iter().all(|size| *size <= CHUNK), "{sizes:?}");
}
