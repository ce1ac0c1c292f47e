//! Emoji and decimals: in all orders, to-device and in a room, with others and between our own devices.

use std::time::Duration;

use mx_e2ee::{DeviceTrust, Event, VerificationId, VerificationOutcome, VerificationState};
use mx_test_homeserver::Fault;

use crate::{
    verification_cast::{Two, code, ended, has_signed, is_done, secrets, settle, state, two, with, with_identity},
    world::{Device, World},
};

/// Where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToDevice,
    Room,
}

/// `asker` asks, the other one accepts. Returns what each calls it.
pub(crate) async fn ready(two: &Two, asker: &Device, other: &Device, way: Way) -> (VerificationId, VerificationId) {
    let user = other.client.user_id();
    let device = asker.client.orchestrator();
    let asked = match way {
        Way::ToDevice => device.verify_device(user, other.client.device_id()).await.unwrap(),
        Way::Room => device.verify_user_in(&two.room, user).await.unwrap(),
    };
    settle(&[other]).await;
    let answered = with(other, asker.client.user_id());
    assert_eq!(asked.flow_id, answered.flow_id);
    assert_eq!(state(other, &answered), VerificationState::Requested);
    other
        .client
        .orchestrator()
        .accept_verification(&answered)
        .await
        .unwrap();
    two.settle().await;
    for (device, id) in [(asker, &asked), (other, &answered)] {
        let state = state(device, id);
        assert!(matches!(state, VerificationState::Ready { sas: true, .. }), "{state:?}");
    }
    (asked, answered)
}

/// What is to be compared on both sides, which must be the same.
fn comparable(one: (&Device, &VerificationId), other: (&Device, &VerificationId)) -> VerificationState {
    let (first, second) = (state(one.0, one.1), state(other.0, other.1));
    let VerificationState::Compare { emoji: Some(emoji), .. } = &first else {
        unreachable!("{first:?}")
    };
    assert_eq!(emoji.len(), 7);
    assert_eq!(first, second);
    first
}

pub(crate) async fn confirm_both(two: &Two, one: (&Device, &VerificationId), other: (&Device, &VerificationId)) {
    one.0.client.orchestrator().confirm_verification(one.1).await.unwrap();
    two.settle().await;
    assert!(
        !is_done(one.0, one.1) && !is_done(other.0, other.1),
        "one side is not enough"
    );
    other
        .0
        .client
        .orchestrator()
        .confirm_verification(other.1)
        .await
        .unwrap();
    two.settle().await;
}

async fn in_order(way: Way, alice_asks: bool, asker_starts: bool) {
    let two = two().await;
    let (asker, other) = if alice_asks {
        (&two.alice, &two.bob)
    } else {
        (&two.bob, &two.alice)
    };
    let (asked, answered) = ready(&two, asker, other, way).await;
    let (starter, id) = if asker_starts {
        (asker, &asked)
    } else {
        (other, &answered)
    };
    starter.client.orchestrator().start_sas(id).await.unwrap();
    two.settle().await;
    comparable((asker, &asked), (other, &answered));
    confirm_both(&two, (asker, &asked), (other, &answered)).await;
    for (device, id) in [(asker, &asked), (other, &answered)] {
        let VerificationState::Ended(VerificationOutcome::Done { devices, user }) = state(device, id) else {
            unreachable!("{:?}", state(device, id))
        };
        assert!(user, "the identity too");
        assert_eq!(devices.len(), 1);
        assert!(has_signed(device, &id.user_id).await);
        let told = ended(device).await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].id, *id);
        let trust = device.client.device_trust(&id.user_id).await.unwrap();
        assert!(matches!(trust[&devices[0]], DeviceTrust::Trusted { .. }));
        let status = device.client.identity_status().await.unwrap();
        assert_eq!(status.verified_by.len(), 1, "who was compared with");
        assert_eq!(status.verified_by[0].user_id, id.user_id);
        assert_eq!(status.verified_by[0].master_key, status.master_key.unwrap());
        assert_eq!(status.verified_users, [id.user_id.clone()].into());
    }
}

#[tokio::test]
async fn sas_to_device_who_asks_starts() {
    in_order(Way::ToDevice, true, true).await;
    in_order(Way::ToDevice, false, true).await;
}

#[tokio::test]
async fn sas_to_device_who_is_asked_starts() {
    in_order(Way::ToDevice, true, false).await;
    in_order(Way::ToDevice, false, false).await;
}

#[tokio::test]
async fn sas_in_a_room_who_asks_starts() {
    in_order(Way::Room, true, true).await;
    in_order(Way::Room, false, true).await;
}

#[tokio::test]
async fn sas_in_a_room_who_is_asked_starts() {
    in_order(Way::Room, true, false).await;
    in_order(Way::Room, false, false).await;
}

#[tokio::test]
async fn nothing_of_a_verification_in_an_encrypted_room_is_plaintext_or_a_message() {
    let two = two().await;
    let (asked, answered) = ready(&two, &two.alice, &two.bob, Way::Room).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    confirm_both(&two, (&two.alice, &asked), (&two.bob, &answered)).await;
    assert!(is_done(&two.bob, &answered));
    let types: Vec<_> = two
        .server
        .timeline(&two.room)
        .iter()
        .map(|event| event["type"].clone())
        .collect();
    assert!(
        types.iter().filter(|kind| *kind == "m.room.encrypted").count() >= 9,
        "{types:?}"
    );
    assert!(
        types
            .iter()
            .all(|kind| !kind.as_str().unwrap().contains("verification")),
        "{types:?}"
    );
    for device in [&two.alice, &two.bob] {
        let events = device.events().await;
        assert!(
            !events.iter().any(|event| matches!(event, Event::Message(_))),
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn both_start_at_once_and_one_of_them_is_followed() {
    let two = two().await;
    let (asked, answered) = ready(&two, &two.alice, &two.bob, Way::ToDevice).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.bob.client.orchestrator().start_sas(&answered).await.unwrap();
    two.settle().await;
    comparable((&two.alice, &asked), (&two.bob, &answered));
    confirm_both(&two, (&two.alice, &asked), (&two.bob, &answered)).await;
    assert!(is_done(&two.alice, &asked) && is_done(&two.bob, &answered));
}

#[tokio::test]
async fn a_mismatch_ends_it_on_both_sides_and_verifies_nothing() {
    for way in [Way::ToDevice, Way::Room] {
        let two = two().await;
        let (asked, answered) = ready(&two, &two.alice, &two.bob, way).await;
        two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
        two.settle().await;
        two.alice
            .client
            .orchestrator()
            .confirm_verification(&asked)
            .await
            .unwrap();
        two.bob
            .client
            .orchestrator()
            .mismatch_verification(&answered)
            .await
            .unwrap();
        two.settle().await;
        assert_eq!(code(&two.alice, &asked), "m.mismatched_sas", "{way:?}");
        assert_eq!(code(&two.bob, &answered), "m.mismatched_sas");
        for device in [&two.alice, &two.bob] {
            assert_eq!(ended(device).await.len(), 1);
        }
        assert!(!has_signed(&two.alice, two.bob.client.user_id()).await);
        assert!(!has_signed(&two.bob, two.alice.client.user_id()).await);
        let trust = two.alice.client.device_trust(two.bob.client.user_id()).await.unwrap();
        assert!(trust.is_empty());
        let again = two.alice.client.orchestrator().confirm_verification(&asked).await;
        assert_eq!(again.unwrap_err().code(), "verification_unknown");
    }
}

#[tokio::test]
async fn who_is_asked_may_decline_and_who_asks_may_withdraw() {
    let two = two().await;
    let bob = two.bob.client.user_id();
    let alice = two.alice.client.orchestrator();
    let asked = alice.verify_device(bob, two.bob.client.device_id()).await.unwrap();
    let busy = alice.verify_device(bob, two.bob.client.device_id()).await.unwrap_err();
    assert_eq!(busy.code(), "verification_busy");
    settle(&[&two.bob]).await;
    let answered = with(&two.bob, two.alice.client.user_id());
    two.bob
        .client
        .orchestrator()
        .cancel_verification(&answered)
        .await
        .unwrap();
    two.settle().await;
    assert_eq!(code(&two.alice, &asked), "m.user");

    let asked = alice.verify_device(bob, two.bob.client.device_id()).await.unwrap();
    settle(&[&two.bob]).await;
    let answered = with(&two.bob, two.alice.client.user_id());
    alice.cancel_verification(&asked).await.unwrap();
    two.settle().await;
    assert_eq!(code(&two.bob, &answered), "m.user");
}

#[tokio::test]
async fn a_step_out_of_turn_is_refused_and_changes_nothing() {
    let two = two().await;
    let (asked, answered) = ready(&two, &two.alice, &two.bob, Way::ToDevice).await;
    let alice = two.alice.client.orchestrator();
    let early = alice.confirm_verification(&asked).await.unwrap_err();
    assert_eq!(early.code(), "verification_not_now");
    let twice = alice.accept_verification(&asked).await.unwrap_err();
    assert_eq!(twice.code(), "verification_not_now");
    alice.start_sas(&asked).await.unwrap();
    two.settle().await;
    let again = alice.start_sas(&asked).await.unwrap_err();
    assert_eq!(again.code(), "verification_not_now");
    comparable((&two.alice, &asked), (&two.bob, &answered));
}

#[tokio::test]
async fn a_new_device_is_verified_by_an_old_one_and_is_given_the_secrets() {
    let server = World::new();
    let old = with_identity(Device::new(&server, "alice").await).await;
    let new = Device::new(&server, "alice").await;
    settle(&[&old, &new]).await;
    assert_eq!((secrets(&old).await, secrets(&new).await), (3, 0));
    let asked = new.client.orchestrator().verify_own_devices().await.unwrap();
    settle(&[&old]).await;
    let answered = with(&old, new.client.user_id());
    old.client.orchestrator().accept_verification(&answered).await.unwrap();
    settle(&[&new, &old]).await;
    new.client.orchestrator().start_sas(&asked).await.unwrap();
    settle(&[&new, &old]).await;
    comparable((&new, &asked), (&old, &answered));
    old.client.orchestrator().confirm_verification(&answered).await.unwrap();
    new.client.orchestrator().confirm_verification(&asked).await.unwrap();
    settle(&[&new, &old, &new, &old]).await;
    assert!(is_done(&new, &asked) && is_done(&old, &answered));
    assert_eq!(secrets(&new).await, 3);
}

#[tokio::test]
async fn a_device_that_is_not_verified_is_given_no_secrets() {
    let server = World::new();
    let old = with_identity(Device::new(&server, "alice").await).await;
    let new = Device::new(&server, "alice").await;
    settle(&[&old, &new]).await;
    let request = serde_json::json!({
        "type": "m.secret.request",
        "sender": new.client.user_id(),
        "content": {
            "action": "request",
            "name": "m.cross_signing.master",
            "request_id": "r1",
            "requesting_device_id": new.client.device_id(),
        },
    });
    server.queue_to_device(old.client.user_id(), old.client.device_id(), vec![request]);
    settle(&[&old, &new]).await;
    assert!(
        server
            .to_device_of(new.client.user_id(), new.client.device_id())
            .is_empty()
    );
    assert_eq!(secrets(&new).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_a_room_that_is_faster_than_our_own_request_is_not_lost() {
    let two = two().await;
    let slow = Fault::delay("/send/m.room.encrypted/", Duration::from_secs(5));
    two.server.fault(slow);
    let (alice, bob) = (two.alice.client.orchestrator(), two.bob.client.orchestrator());
    let answer = async {
        // Bob sees the request, and alice his answer, before alice knows that there is a request.
        tokio::time::sleep(Duration::from_secs(1)).await;
        two.bob.client.sync().await.unwrap();
        let answered = with(&two.bob, two.alice.client.user_id());
        bob.accept_verification(&answered).await.unwrap();
        two.alice.client.sync().await.unwrap();
        answered
    };
    let asking = alice.verify_user_in(&two.room, two.bob.client.user_id());
    let (asked, answered) = tokio::join!(asking, answer);
    let asked = asked.unwrap();
    assert_eq!(asked.flow_id, answered.flow_id);
    assert!(matches!(state(&two.alice, &asked), VerificationState::Ready { .. }));
}

/// matrix-js-sdk sends every step in plaintext, also where the room is encrypted.
#[tokio::test]
async fn plaintext_steps_in_an_encrypted_room_are_heard_and_are_no_messages() {
    let two = two().await;
    let bob = two.bob.client.user_id().to_owned();
    let request = serde_json::json!({
        "msgtype": "m.key.verification.request", "body": "verify me", "to": two.alice.client.user_id(),
        "from_device": two.bob.client.device_id(), "methods": ["m.sas.v1"],
    });
    let flow = two.server.inject(&two.room, &bob, "m.room.message", request);
    two.alice.client.sync().await.unwrap();
    let asked = with(&two.alice, &bob);
    assert_eq!(asked.flow_id, flow);
    two.alice
        .client
        .orchestrator()
        .accept_verification(&asked)
        .await
        .unwrap();
    assert!(matches!(state(&two.alice, &asked), VerificationState::Ready { .. }));
    let cancel = serde_json::json!({
        "code": "m.user", "reason": "no", "m.relates_to": {"rel_type": "m.reference", "event_id": flow},
    });
    two.server.inject(&two.room, &bob, "m.key.verification.cancel", cancel);
    two.alice.client.sync().await.unwrap();
    assert_eq!(code(&two.alice, &asked), "m.user");
    let events = two.alice.events().await;
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Message(_) | Event::Rejected(_))),
        "{events:?}"
    );
    // What alice said to it is encrypted all the same.
    let by_alice = two.server.timeline(&two.room);
    let mut by_alice = by_alice
        .iter()
        .filter(|event| event["sender"] == two.alice.client.user_id().as_str());
    assert!(!by_alice.any(|event| event["type"].as_str().unwrap().starts_with("m.key.verification")));
}
