//! CR-C1: every public future of receiving, dropped at each of its awaits. The next call works, and nothing is lost.

use std::{future::poll_fn, task::Poll};

use mx_e2ee::{Client, Error};

use crate::{
    crash_history::{History, Parked, Scene},
    disks::Plan,
    world::{
        options,
        seed::{Seed, tell},
    },
};

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open,
    Login,
    Sync,
    Receive,
    Acknowledge,
    PublishKeys,
    Send,
}

/// Poll `work` until it has been pending for the `nth` time, and drop it there; 0: until its end. Also how often it was
/// pending.
pub(crate) async fn dropped_at<T>(nth: usize, work: impl Future<Output = T>) -> (Option<T>, usize) {
    let mut work = Box::pin(work);
    let mut pending = 0;
    let done = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => {
            pending += 1;
            if pending == nth {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await;
    (done, pending)
}

impl Call {
    /// The process that calls, if it runs before.
    async fn prepared(self, scene: &mut Scene, device: &Parked) -> Option<Client> {
        scene.carol_turns().await;
        for _ in 0..2 {
            scene.alice_says().await;
        }
        if matches!(self, Self::Open | Self::Login) {
            return None;
        }
        let bob = device.open(&scene.server, &Plan::default()).await.unwrap();
        match self {
            Self::Acknowledge => assert!(scene.bob_reads(&bob).await.unwrap()),
            Self::PublishKeys | Self::Sync => scene.server.exhaust_keys(bob.user_id(), bob.device_id()),
            _ => {}
        }
        Some(bob)
    }

    async fn done(self, scene: &mut Scene, device: &Parked, bob: Option<&Client>) -> Result<(), Error> {
        let Some(bob) = bob else {
            let opened = match self {
                Self::Login => device.open_or_login(&scene.server, &Plan::default()).await,
                _ => device.open(&scene.server, &Plan::default()).await,
            };
            return opened.map(drop);
        };
        match self {
            Self::Open | Self::Login | Self::Sync => bob.sync().await,
            Self::Receive | Self::Acknowledge => scene.bob_reads(bob).await.map(drop),
            Self::PublishKeys => bob.publish_keys().await,
            Self::Send => scene.bob_says(bob).await,
        }
    }
}

/// One story; the call is dropped at its `nth` await. How often it was pending.
fn story(history: &History, call: Call, nth: usize) -> usize {
    tell("", async || {
        let mut scene = history.scene().await;
        let device = if call == Call::Login {
            let _user = scene.server.register("dora", "password");
            Parked::new("dora")
        } else {
            scene.bob.clone()
        };
        let bob = call.prepared(&mut scene, &device).await;
        let (done, pending) = dropped_at(nth, call.done(&mut scene, &device, bob.as_ref())).await;
        if let Some(done) = done {
            done.unwrap();
        }
        scene.bob_was_interrupted();
        // The very same call again, in the same process where it has one.
        call.done(&mut scene, &device, bob.as_ref()).await.unwrap();
        let bob = match bob {
            Some(bob) => bob,
            None => scene.bob.open(&scene.server, &Plan::default()).await.unwrap(),
        };
        if call == Call::Login {
            let dora = device.open(&scene.server, &Plan::default()).await.unwrap();
            dora.sync().await.unwrap();
            assert!(dora.key_status().await.unwrap().published);
            dora.close().await.unwrap();
        }
        scene.ends_well(bob).await;
        pending
    })
}

fn at_every_await(call: Call, least: usize) {
    let history = tell("", async || History::of(&mut Seed::new("a call that is dropped")).await);
    of_history(&history, call, least);
}

fn of_history(history: &History, call: Call, least: usize) {
    let awaits = story(history, call, 0);
    assert!(awaits >= least, "{call:?} was pending {awaits} times");
    for nth in 1..=awaits {
        story(history, call, nth);
    }
}

#[test]
fn cr_c1_receive_is_dropped_at_every_await_of_a_sliding_sync() {
    // What came before was without it: bob goes over.
    let mut history = tell("", async || {
        History::of(&mut Seed::new("a sliding sync that is dropped")).await
    });
    history.server.offer_sliding_sync();
    history.bob.options = options(&history.server);
    of_history(&history, Call::Receive, 3);
}

#[test]
fn cr_c1_open_is_dropped_at_every_await() {
    at_every_await(Call::Open, 1);
}

#[test]
fn cr_c1_login_is_dropped_at_every_await() {
    at_every_await(Call::Login, 5);
}

#[test]
fn cr_c1_sync_is_dropped_at_every_await() {
    at_every_await(Call::Sync, 3);
}

#[test]
fn cr_c1_receive_is_dropped_at_every_await() {
    at_every_await(Call::Receive, 3);
}

#[test]
fn cr_c1_acknowledge_is_dropped_at_every_await() {
    at_every_await(Call::Acknowledge, 2);
}

#[test]
fn cr_c1_publish_keys_is_dropped_at_every_await() {
    at_every_await(Call::PublishKeys, 1);
}

#[test]
fn cr_c1_send_is_dropped_at_every_await() {
    at_every_await(Call::Send, 5);
}
