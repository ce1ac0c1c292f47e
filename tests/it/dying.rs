//! A disk that fails, hangs, panics or lies at its n-th operation, for every n that a story reaches.
//!
//! Whatever it does, nothing that never may happens on the wire, and when a process begins on a disk that works again,
//! nothing is missing. Only a disk that lied may have lost something; then the store is what it was, or says that it is
//! not.

use std::time::Duration;

use mx_crypto_store::backend::BackendErrorKind as Kind;
use mx_e2ee::{Client, Error};

use crate::{
    crash_history::{History, Parked, Scene},
    disks::{Counts, Loss, Moment, Operation, Plan, Point, Trouble},
    world::seed::{Seed, tell},
};

const DISK: Counts = |operation, _| operation != Operation::Request;
const COMMITS: Counts = |operation, _| operation == Operation::Commit;
const NEVER: Duration = Duration::from_secs(600);

/// What bob's process does while his disk suffers.
#[derive(Clone, Copy, Debug)]
enum Act {
    Reads,
    Says,
}

impl Act {
    async fn done(self, scene: &mut Scene, bob: &Client) -> Result<(), Error> {
        match self {
            Self::Reads => while scene.bob_reads(bob).await? {},
            Self::Says => {
                for _ in 0..2 {
                    scene.bob_says(bob).await?;
                }
            }
        }
        Ok(())
    }
}

fn history() -> History {
    tell("", async || History::of(&mut Seed::new("a disk that dies")).await)
}

/// Bob's process runs, and alice has said something that it has not read.
async fn prepared(history: &History, plan: &Plan) -> (Scene, Parked, Client) {
    let mut scene = history.scene().await;
    scene.carol_turns().await;
    for _ in 0..3 {
        scene.alice_says().await;
    }
    let device = scene.bob.clone();
    let bob = device.open(&scene.server, plan).await.unwrap();
    (scene, device, bob)
}

/// The trouble at every operation that counts, one after the other. `expected` are the codes with which the process may
/// end.
fn at_every(act: Act, counts: Counts, moment: Moment, trouble: Trouble, expected: &[&str]) {
    let history = history();
    let operations = tell("", async || {
        let plan = Plan::default();
        let (mut scene, _, bob) = prepared(&history, &plan).await;
        plan.arm(Point::dry(counts));
        act.done(&mut scene, &bob).await.unwrap();
        let operations = plan.counted();
        scene.ends_well(bob).await;
        operations
    });
    assert!(operations >= 3, "{act:?} has {operations} operations");
    let mut failed = 0;
    for nth in 1..=operations {
        failed += u64::from(tell("", async || {
            let plan = Plan::default();
            let (mut scene, device, bob) = prepared(&history, &plan).await;
            plan.arm(Point {
                nth,
                moment,
                trouble,
                ..Point::dry(counts)
            });
            // A disk that hangs is given up by a caller who has waited long enough.
            let done = tokio::time::timeout(NEVER, act.done(&mut scene, &bob)).await;
            let code = match &done {
                Ok(Ok(())) => "ok",
                Ok(Err(error)) => {
                    scene.world().examine(error);
                    error.code()
                }
                Err(_) => "waited",
            };
            let place = format!("{act:?}: {}: {code}", plan.struck().unwrap_or_default());
            assert!(plan.struck().is_some(), "{place}");
            assert!(code == "ok" || expected.contains(&code), "{place}");
            drop(bob);
            scene.bob_ended();
            let bob = device.open(&scene.server, &Plan::default()).await.unwrap();
            scene.ends_well(bob).await;
            code != "ok"
        }));
    }
    assert!(
        failed * 2 > operations,
        "{act:?}: {failed} of {operations} were noticed"
    );
}

#[test]
fn a_receiver_whose_disk_fails_at_any_operation_loses_nothing() {
    for (kind, code) in [(Kind::Io, "store_io"), (Kind::NoSpace, "store_no_space")] {
        let expected = [code, "store_poisoned"];
        at_every(Act::Reads, DISK, Moment::Before, Trouble::Fail(kind), &expected);
    }
    let expected = ["store_io", "store_poisoned"];
    at_every(Act::Reads, COMMITS, Moment::After, Trouble::Fail(Kind::Io), &expected);
}

#[test]
fn a_sender_whose_disk_fails_at_any_operation_uses_no_index_twice() {
    let expected = ["store_io", "store_poisoned"];
    at_every(Act::Says, DISK, Moment::Before, Trouble::Fail(Kind::Io), &expected);
    at_every(Act::Says, COMMITS, Moment::After, Trouble::Fail(Kind::Io), &expected);
}

#[test]
fn cr_c3_an_engine_that_panics_at_any_operation_stops_one_process_and_nothing_else() {
    let expected = ["store_io", "store_poisoned"];
    at_every(Act::Reads, DISK, Moment::Before, Trouble::Panic, &expected);
    at_every(Act::Says, DISK, Moment::Before, Trouble::Panic, &expected);
    at_every(Act::Says, COMMITS, Moment::After, Trouble::Panic, &expected);
}

#[test]
fn cr_c3_a_transport_that_panics_at_any_request_fails_one_call_and_the_process_goes_on() {
    const REQUESTS: Counts = |operation, _| operation == Operation::Request;
    let history = history();
    for (act, moment) in [
        (Act::Reads, Moment::Before),
        (Act::Says, Moment::Before),
        (Act::Says, Moment::After),
    ] {
        for nth in 1.. {
            let struck = tell("", async || {
                let plan = Plan::default();
                let (mut scene, _, bob) = prepared(&history, &plan).await;
                plan.arm(Point {
                    nth,
                    moment,
                    trouble: Trouble::Panic,
                    ..Point::dry(REQUESTS)
                });
                let done = act.done(&mut scene, &bob).await;
                let place = format!("{act:?}: {:?}: {done:?}", plan.struck());
                if let Err(error) = done {
                    assert!(
                        [
                            "interrupted",
                            "claim_failed",
                            "send_pending",
                            "members_incomplete",
                            "key_share_incomplete"
                        ]
                        .contains(&error.code()),
                        "{place}"
                    );
                }
                let struck = plan.struck().is_some();
                plan.arm(Point::dry(REQUESTS));
                // The same process goes on: nothing is locked for ever, and nothing is missing.
                scene.bob_was_interrupted();
                scene.ends_well(bob).await;
                struck
            });
            if !struck {
                assert!(nth > 2, "{act:?} has {nth} requests");
                break;
            }
        }
    }
}

#[test]
fn a_disk_that_hangs_at_any_commit_is_waited_for_and_given_up() {
    at_every(Act::Reads, COMMITS, Moment::Before, Trouble::Hang, &["waited"]);
    at_every(Act::Says, COMMITS, Moment::After, Trouble::Hang, &["waited"]);
}

#[test]
fn cr_c2_a_call_that_is_dropped_while_its_commit_runs_is_carried_out() {
    let history = history();
    for (act, moment) in [
        (Act::Reads, Moment::Before),
        (Act::Reads, Moment::After),
        (Act::Says, Moment::Before),
        (Act::Says, Moment::After),
    ] {
        for nth in 1.. {
            let struck = tell("", async || {
                let plan = Plan::default();
                let (mut scene, device, bob) = prepared(&history, &plan).await;
                plan.arm(Point {
                    nth,
                    moment,
                    trouble: Trouble::Wait,
                    ..Point::dry(COMMITS)
                });
                let ended = plan.until_struck(act.done(&mut scene, &bob)).await;
                if let Some(ended) = ended {
                    ended.unwrap();
                    plan.go_on();
                    scene.ends_well(bob).await;
                    return false;
                }
                let before = device.disk.content();
                plan.go_on();
                // Nobody waits for it: its own task brings it to the disk.
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
                let written = device.disk.content() != before;
                assert_eq!(
                    written,
                    moment == Moment::Before,
                    "{act:?} {nth}: what was under way is on the disk"
                );
                scene.bob_was_interrupted();
                scene.ends_well(bob).await;
                true
            });
            if !struck {
                assert!(nth > 2, "{act:?} has {nth} commits");
                break;
            }
        }
    }
}

/// The disk lies from some commit on, and then the power is cut. What became of it.
fn after_a_lie(history: &History, round: u64, loss: Loss) -> String {
    tell("", async || {
        let mut seed = Seed::new(&format!("lie-{loss:?}-{round}"));
        let plan = Plan::default();
        let (mut scene, device, bob) = prepared(history, &plan).await;
        plan.arm(Point {
            nth: 1 + seed.below(4),
            trouble: Trouble::Lie,
            ..Point::dry(COMMITS)
        });
        Act::Reads.done(&mut scene, &bob).await.unwrap();
        drop(bob);
        scene.bob_ended();
        assert!(device.disk.unsynced() > 0, "it lied");
        device.disk.crash(&mut seed, loss);
        let opened = device.open(&scene.server, &Plan::default()).await;
        match opened {
            Err(error) => error.code().to_owned(),
            Ok(bob) => match bob.receive(Duration::ZERO).await {
                Err(error) => error.code().to_owned(),
                Ok(_) => "goes on".to_owned(),
            },
        }
    })
}

#[test]
fn a_disk_that_lied_is_what_it_was_or_is_refused() {
    let history = history();
    let codes = |loss| -> Vec<String> { (0..20).map(|round| after_a_lie(&history, round, loss)).collect() };
    let kept = codes(Loss::Prefix);
    assert!(
        kept.iter().all(|code| code == "goes on"),
        "an older state is a state: {kept:?}"
    );
    let torn = codes(Loss::Torn);
    let refused = ["store_corrupt", "store_rolled_back"];
    assert!(
        torn.iter()
            .all(|code| code == "goes on" || refused.contains(&code.as_str())),
        "{torn:?}"
    );
    assert!(torn.iter().any(|code| refused.contains(&code.as_str())), "{torn:?}");
}
