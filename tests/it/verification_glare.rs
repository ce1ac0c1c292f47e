//! Both sides do the same at once, before either has heard of the other: one of the two goes on, on both sides.

use std::time::Duration;

use mx_e2ee::{Event, VerificationId, VerificationState};
use mx_test_homeserver::Fault;
use ruma::UserId;

use crate::{
    identity::set_up,
    verification_cast::{Two, code, ended, is_done, settle, state, two, with, with_identity},
    world::{Device, World},
};

/// How each of the two asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToDevice,
    Room,
}

async fn ask(two: &Two, asker: &Device, other: &Device, way: Way) -> VerificationId {
    let device = asker.client.orchestrator();
    let user = other.client.user_id();
    match way {
        Way::ToDevice => device.verify_device(user, other.client.device_id()).await.unwrap(),
        Way::Room => device.verify_user_in(&two.room, user).await.unwrap(),
    }
}

/// How many are under way.
fn live(device: &Device) -> usize {
    device.client.verifications().len()
}

/// It was let go of because the other side asked at once.
fn is_withdrawn(device: &Device, id: &VerificationId) -> bool {
    code(device, id) == "m.accepted"
}

/// What `first` asked for is accepted by `second`, compared and confirmed by both.
async fn verify(first: (&Device, &VerificationId), second: (&Device, &VerificationId), all: &[&Device]) {
    assert_eq!(first.1.flow_id, second.1.flow_id);
    assert_eq!(state(second.0, second.1), VerificationState::Requested);
    second
        .0
        .client
        .orchestrator()
        .accept_verification(second.1)
        .await
        .unwrap();
    settle(all).await;
    first.0.client.orchestrator().start_sas(first.1).await.unwrap();
    settle(all).await;
    for (device, id) in [first, second] {
        assert!(matches!(state(device, id), VerificationState::Compare { .. }));
        device.client.orchestrator().confirm_verification(id).await.unwrap();
    }
    settle(all).await;
    for (device, id) in [first, second] {
        assert!(is_done(device, id), "{:?}", state(device, id));
    }
}

/// Each was told of its end once: whoever withdrew also of that.
async fn told(first: (&Device, &VerificationId), second: (&Device, &[&VerificationId])) {
    let one: Vec<_> = ended(first.0).await.into_iter().map(|ended| ended.id).collect();
    assert_eq!(one, std::slice::from_ref(first.1));
    let mut other: Vec<_> = ended(second.0).await.into_iter().map(|ended| ended.id).collect();
    other.sort();
    let mut expected: Vec<_> = second.1.iter().map(|id| (*id).clone()).collect();
    expected.sort();
    assert_eq!(other, expected);
}

#[tokio::test]
async fn two_requests_at_once_become_one_verification() {
    for (alices, bobs) in [
        (Way::ToDevice, Way::ToDevice),
        (Way::Room, Way::Room),
        (Way::ToDevice, Way::Room),
        (Way::Room, Way::ToDevice),
    ] {
        for bob_hears_first in [false, true] {
            let two = two().await;
            let asked = ask(&two, &two.alice, &two.bob, alices).await;
            let withdrawn = ask(&two, &two.bob, &two.alice, bobs).await;
            // A handle that somebody waits at.
            let handle = two.bob.client.verification(withdrawn.clone());
            let waiting = tokio::spawn(async move { handle.wait_until(VerificationState::is_ended).await });
            if bob_hears_first {
                two.bob.client.sync().await.unwrap();
            }
            two.settle().await;
            assert!(is_withdrawn(&two.bob, &withdrawn), "{alices:?} {bobs:?}");
            assert!(waiting.await.unwrap().unwrap().is_ended());
            assert_eq!((live(&two.alice), live(&two.bob)), (1, 1));
            assert_eq!(state(&two.alice, &asked), VerificationState::Requested);
            let answered = with(&two.bob, two.alice.client.user_id());
            let (alice, bob) = ((&two.alice, &asked), (&two.bob, &answered));
            verify(alice, bob, &[&two.alice, &two.bob]).await;
            assert_eq!((live(&two.alice), live(&two.bob)), (0, 0), "nothing is left");
            told(alice, (&two.bob, &[&withdrawn, &answered])).await;
            // And another one is as good as the first.
            ask(&two, &two.bob, &two.alice, alices).await;
            two.settle().await;
            assert_eq!((live(&two.alice), live(&two.bob)), (1, 1));
        }
    }
}

/// The request of one side is in the room, and it does not know so yet, when that of the other one comes.
#[tokio::test(start_paused = true)]
async fn requests_in_a_room_that_overtake_each_other_become_one() {
    for slow_is_first in [true, false] {
        let two = two().await;
        let (slow, fast) = if slow_is_first {
            (&two.alice, &two.bob)
        } else {
            (&two.bob, &two.alice)
        };
        let quick = ask(&two, fast, slow, Way::Room).await;
        two.server
            .fault(Fault::delay("/send/m.room.encrypted/", Duration::from_secs(5)));
        let hears = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            slow.client.sync().await.unwrap();
        };
        let asking = slow
            .client
            .orchestrator()
            .verify_user_in(&two.room, fast.client.user_id());
        let (asked, ()) = tokio::join!(asking, hears);
        two.server.behave();
        two.settle().await;
        assert_eq!((live(slow), live(fast)), (1, 1), "{slow_is_first}");
        if slow_is_first {
            assert!(is_withdrawn(fast, &quick));
            let (asked, answered) = (asked.unwrap(), with(fast, slow.client.user_id()));
            verify((slow, &asked), (fast, &answered), &[slow, fast]).await;
        } else {
            assert_eq!(asked.unwrap_err().code(), "verification_busy");
            let answered = with(slow, fast.client.user_id());
            verify((fast, &quick), (slow, &answered), &[slow, fast]).await;
        }
        assert_eq!((live(slow), live(fast)), (0, 0));
    }
}

fn sort(devices: &mut [Device]) {
    devices.sort_by(|one, other| one.client.device_id().cmp(other.client.device_id()));
}

/// Our own devices, all signed by our identity, the one with the smallest id first.
async fn own(server: &World, count: usize) -> Vec<Device> {
    let mut devices = vec![Device::new(server, "alice").await];
    let key = set_up(&devices[0].client).await.recovery_key.unwrap().to_string();
    for _ in 1..count {
        let device = Device::new(server, "alice").await;
        device.client.recover_identity(&key).await.unwrap();
        devices.push(device);
    }
    sort(&mut devices);
    let all: Vec<&Device> = devices.iter().collect();
    settle(&all).await;
    for device in &devices {
        device.events().await;
    }
    devices
}

#[tokio::test]
async fn two_own_devices_that_ask_at_once_are_sorted_out_by_their_ids() {
    for count in [2, 3] {
        let server = World::new();
        let devices = own(&server, count).await;
        let all: Vec<&Device> = devices.iter().collect();
        let (first, second) = (all[0], all[1]);
        // All others are asked, a third one too, which hears of the second one's request first or last.
        let withdrawn = second.client.orchestrator().verify_own_devices().await.unwrap();
        let asked = first.client.orchestrator().verify_own_devices().await.unwrap();
        settle(&all).await;
        assert!(is_withdrawn(second, &withdrawn), "{}", code(second, &withdrawn));
        assert_eq!(state(first, &asked), VerificationState::Requested);
        for device in &all {
            assert_eq!(live(device), 1);
        }
        let answered = with(second, first.client.user_id());
        verify((first, &asked), (second, &answered), &all).await;
        for device in &all {
            assert_eq!(live(device), 0, "a third one is told that it is over");
        }
    }
}

/// Devices that nobody has signed yet ask those that are.
#[tokio::test]
async fn of_two_new_devices_that_ask_an_old_one_at_once_one_is_told_that_it_is_not_its_turn() {
    for together in [true, false] {
        let server = World::new();
        let old = with_identity(Device::new(&server, "alice").await).await;
        let mut new = [Device::new(&server, "alice").await, Device::new(&server, "alice").await];
        sort(&mut new);
        let [first, second] = &new;
        let all = [&old, first, second];
        settle(&all).await;
        for asker_is_first in [false, true] {
            let (one, other) = if asker_is_first {
                (first, second)
            } else {
                (second, first)
            };
            let ones = one.client.orchestrator().verify_own_devices().await.unwrap();
            if !together {
                old.client.sync().await.unwrap();
            }
            let others = other.client.orchestrator().verify_own_devices().await.unwrap();
            settle(&all).await;
            let (firsts, seconds) = if asker_is_first { (ones, others) } else { (others, ones) };
            assert_eq!(code(second, &seconds), "m.accepted", "{together} {asker_is_first}");
            assert_eq!(state(first, &firsts), VerificationState::Requested);
            assert_eq!(with(&old, first.client.user_id()).flow_id, firsts.flow_id);
            first.client.orchestrator().cancel_verification(&firsts).await.unwrap();
            settle(&all).await;
            assert_eq!((live(&old), live(first), live(second)), (0, 0, 0));
        }
    }
}

#[tokio::test]
async fn two_own_devices_that_start_at_once_are_sorted_out_by_their_ids() {
    for first_asks in [true, false] {
        let server = World::new();
        let devices = own(&server, 2).await;
        let all: Vec<&Device> = devices.iter().collect();
        let (asker, other) = if first_asks { (all[0], all[1]) } else { (all[1], all[0]) };
        let asked = asker.client.orchestrator().verify_own_devices().await.unwrap();
        settle(&[other]).await;
        let answered = with(other, asker.client.user_id());
        other
            .client
            .orchestrator()
            .accept_verification(&answered)
            .await
            .unwrap();
        settle(&all).await;
        asker.client.orchestrator().start_sas(&asked).await.unwrap();
        other.client.orchestrator().start_sas(&answered).await.unwrap();
        settle(&all).await;
        assert!(matches!(state(asker, &asked), VerificationState::Compare { .. }));
        assert_eq!(state(asker, &asked), state(other, &answered));
        asker.client.orchestrator().confirm_verification(&asked).await.unwrap();
        other
            .client
            .orchestrator()
            .confirm_verification(&answered)
            .await
            .unwrap();
        settle(&all).await;
        assert!(is_done(asker, &asked) && is_done(other, &answered));
        told((asker, &asked), (other, &[&answered])).await;
    }
}

/// A request that the engine does not look at is no reason to let go of ours.
#[tokio::test]
async fn a_request_of_long_ago_withdraws_nothing() {
    let two = two().await;
    let asked = ask(&two, &two.bob, &two.alice, Way::ToDevice).await;
    let long_ago = 1_600_000_000_000_u64;
    let request = serde_json::json!({
        "type": "m.key.verification.request",
        "sender": two.alice.client.user_id(),
        "content": {
            "from_device": two.alice.client.device_id(), "transaction_id": "old", "methods": ["m.sas.v1"],
            "timestamp": long_ago,
        },
    });
    let bob: &UserId = two.bob.client.user_id();
    two.server
        .queue_to_device(bob, two.bob.client.device_id(), vec![request]);
    two.bob.client.sync().await.unwrap();
    assert_eq!(state(&two.bob, &asked), VerificationState::Requested);
    let events = two.bob.events().await;
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::VerificationRequested(_)))
    );
}
