//! The fault matrix: every request of a canonical transcript, every fault, once, twice and for ever.
//!
//! Each run of the tests takes every third of these stories, and `cargo xtask crash --receive` all of them, as CI does.
//!
//! "For ever" lasts to the end of the transcript; then the network heals. A step that fails is not repeated by the test:
//! whoever uses the stack goes on with the next one. In the end nothing that was confirmed is missing, nothing came
//! twice, and what never may happen on the wire did not.

use std::time::Duration;

use mx_e2ee::{Client, Error};
use mx_test_homeserver::Fault;

use crate::{
    crash_history::{History, Parked, Scene},
    disks::Plan,
    world::seed::{rounds, tell},
};

/// How long a fault lasts.
#[derive(Clone, Copy, Debug)]
enum Lasts {
    Once,
    Twice,
    ForEver,
}

impl Lasts {
    fn of(self, fault: Fault) -> Fault {
        match self {
            Self::Once => fault,
            Self::Twice => fault.times(2),
            Self::ForEver => fault.for_ever(),
        }
    }
}

/// Which transcript.
#[derive(Clone, Copy, Debug)]
enum Transcript {
    /// A new device: login, joining, reading.
    Begin,
    /// Devices that know each other: sync, send, receive, rotate, restart.
    Talk,
}

/// Somebody new logs in, comes into the room and reads. The device, as far as it got.
async fn begin(scene: &mut Scene, device: &Parked) -> Result<Client, Error> {
    let client = device.open_or_login(&scene.server, &Plan::default()).await?;
    let room = scene.alice.room(&scene.room);
    room.invite(client.user_id()).await?;
    client.sync().await?;
    client.join(scene.room.as_str()).await?;
    scene.alice_tries_to_say().await?;
    client.sync().await?;
    Ok(client)
}

/// Every step of the second transcript, whatever became of the one before. Bob's process, in the end.
async fn talk(scene: &mut Scene, errors: &mut Vec<Error>) -> Client {
    let device = scene.bob.clone();
    let bob = device.open(&scene.server, &Plan::default()).await.unwrap();
    errors.extend(scene.alice_tries_to_say().await.err());
    errors.extend(scene.bob_reads(&bob).await.err());
    errors.extend(scene.carol_tries_to_leave().await.err());
    errors.extend(scene.alice_tries_to_say().await.err());
    errors.extend(scene.bob_reads(&bob).await.err());
    errors.extend(scene.bob_says(&bob).await.err());
    errors.extend(scene.alice_reads().await.err());
    bob.close().await.unwrap();
    scene.bob_ended();
    let bob = device.open(&scene.server, &Plan::default()).await.unwrap();
    errors.extend(scene.alice_tries_to_say().await.err());
    errors.extend(scene.bob_reads(&bob).await.err());
    bob
}

/// Tell a transcript with a fault at its `k`-th request; 0: without one. How many requests it has, and which errors came.
fn told(history: &History, transcript: Transcript, k: u64, fault: &Fault) -> (u64, usize) {
    tell("", async || {
        let mut scene = history.scene().await;
        let dora = scene.server.register("dora", "password");
        let device = Parked::new("dora");
        if k > 0 {
            scene.server.fault(fault.clone().request(k));
        }
        let mut errors = Vec::new();
        let bob = match transcript {
            Transcript::Begin => {
                errors.extend(begin(&mut scene, &device).await.err());
                None
            }
            Transcript::Talk => Some(talk(&mut scene, &mut errors).await),
        };
        let requests = scene.server.requests();
        scene.server.behave();
        for error in &errors {
            scene.world().examine(error);
        }
        let bob = match bob {
            Some(bob) => bob,
            None => {
                new_device_reads(&mut scene, &device, &dora).await;
                scene.bob.open(&scene.server, &Plan::default()).await.unwrap()
            }
        };
        scene.ends_well(bob).await;
        (requests, errors.len())
    })
}

/// The network is well: the device that was new, or comes again, reads what is said now.
async fn new_device_reads(scene: &mut Scene, device: &Parked, dora: &ruma::UserId) {
    let client = device.open_or_login(&scene.server, &Plan::default()).await.unwrap();
    let room = scene.alice.room(&scene.room);
    let members = room.members().await.unwrap();
    if !members.iter().any(|member| member.user_id == dora) {
        room.invite(dora).await.unwrap();
    }
    client.sync().await.unwrap();
    client.join(scene.room.as_str()).await.unwrap();
    scene.alice_says().await;
    let mut read = 0;
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            break;
        }
        read += events
            .iter()
            .filter(|event| matches!(event, mx_e2ee::Event::Message(_)))
            .count();
    }
    assert!(read >= 1, "what is said now is read");
    client.close().await.unwrap();
}

/// A fault at every request of both transcripts.
fn matrix(fault: &Fault) {
    let history = tell("", async || History::new().await);
    let mut failed = 0;
    for transcript in [Transcript::Begin, Transcript::Talk] {
        let (requests, errors) = told(&history, transcript, 0, fault);
        assert!((12..80).contains(&requests), "{transcript:?} has {requests} requests");
        assert_eq!(errors, 0, "{transcript:?} works");
        for k in 1..=requests {
            for (number, lasts) in [Lasts::Once, Lasts::Twice, Lasts::ForEver].into_iter().enumerate() {
                if rounds().is_none() && !(k + number as u64).is_multiple_of(3) {
                    continue;
                }
                eprintln!("{transcript:?}, request {k}, {lasts:?}");
                failed += told(&history, transcript, k, &lasts.of(fault.clone())).1;
            }
        }
    }
    eprintln!("{failed} steps failed and were made up for");
}

#[test]
fn every_request_is_dropped_before_it_arrives() {
    matrix(&Fault::drop_before(""));
}

#[test]
fn every_answer_is_dropped() {
    matrix(&Fault::drop_after(""));
}

#[test]
fn every_request_is_refused_for_the_moment() {
    matrix(&Fault::status("", 503, r#"{"errcode":"M_UNKNOWN","error":"later"}"#));
}

#[test]
fn every_answer_is_cut_off() {
    matrix(&Fault::truncate("", 9));
}

#[test]
fn every_answer_is_a_page_of_a_proxy() {
    matrix(&Fault::body("", "<html>bad gateway</html>"));
}

#[test]
fn every_answer_is_later_than_anybody_waits() {
    matrix(&Fault::delay("", Duration::from_secs(3600)));
}

#[test]
fn every_request_is_repeated_on_the_way() {
    matrix(&Fault::duplicate(""));
}
