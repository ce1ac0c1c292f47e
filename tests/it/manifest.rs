//! A trust manifest: nothing is sent while anything differs from it, and each difference is told.

use mx_e2ee::{Drift, Event, Health, Options, Trust, TrustManifest};
use serde_json::{Value, json};

use crate::{
    identity::set_up,
    world::{Device, Pair, pair},
};

pub(crate) fn with(manifest: &Value) -> Options {
    let manifest = TrustManifest::parse(&manifest.to_string()).unwrap();
    let mut options = Options::default();
    options.trust_manifest = Some(manifest.into());
    options
}

pub(crate) async fn fingerprint(of: &Device) -> String {
    of.client.key_status().await.unwrap().ed25519
}

pub(crate) fn drifts(events: &[Event]) -> Vec<&Drift> {
    let drifts = events.iter().filter_map(|event| match event {
        Event::TrustDrift(event) => Some(&event.differences),
        _ => None,
    });
    drifts.flatten().collect()
}

#[tokio::test]
async fn a_new_device_stops_sends_until_it_is_gone_or_listed() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let device = bob.client.device_id().to_owned();
    let bobs = json!({"devices": {device.as_str(): fingerprint(&bob).await}});
    let manifest = json!({"version": 1, "users": {"@bob:localhost": bobs}});
    let alice = alice.kill_and_open_with(with(&manifest)).await;
    let room = alice.client.room(&room_id);
    room.send_text("one").await.unwrap();
    let other = Device::new(&server, "bob").await;
    alice.client.sync().await.unwrap();
    let events = alice.events().await;
    let [Drift::DeviceNotListed { device_id, found, .. }] = drifts(&events)[..] else {
        unreachable!("{events:?}")
    };
    assert_eq!(
        (device_id.as_str(), found),
        (other.client.device_id().as_str(), &fingerprint(&other).await)
    );
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "trust_manifest_drift");
    assert!(refused.to_string().contains(device_id.as_str()));
    let Health::Degraded { problems } = alice.client.health().await.unwrap() else {
        unreachable!()
    };
    assert_eq!(problems[0].code, "trust_manifest_drift");
    alice.client.sync().await.unwrap();
    assert!(drifts(&alice.events().await).is_empty(), "told once");
    server.delete_device(other.client.user_id(), other.client.device_id());
    alice.client.sync().await.unwrap();
    room.send_text("two").await.unwrap();
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
    assert_eq!(bob.bodies().await, ["one", "two"]);
}

#[tokio::test]
async fn the_first_send_after_a_start_looks_too() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_text("one").await.unwrap();
    let room_id = room.id().to_owned();
    drop(room);
    let wrong = json!({bob.client.device_id().as_str(): fingerprint(&alice).await});
    let manifest = json!({"version": 1, "users": {"@bob:localhost": {"devices": wrong}}});
    let alice = alice.kill_and_open_with(with(&manifest)).await;
    assert!(
        matches!(alice.client.health().await.unwrap(), Health::Degraded { .. }),
        "at once"
    );
    let room = alice.client.room(&room_id);
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "trust_manifest_drift");
    assert!(matches!(drifts(&alice.events().await)[..], [Drift::Fingerprint { .. }]));
    drop(room);
    // Without a manifest, nothing is held against it.
    let alice = alice.kill_and_open().await;
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
    alice.client.room(&room_id).send_text("two").await.unwrap();
}

#[tokio::test]
async fn who_is_not_listed_is_refused_or_not() {
    let Pair {
        server, alice, room, ..
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice
        .kill_and_open_with(with(&json!({"version": 1, "users": {}})))
        .await;
    let room = alice.client.room(&room_id);
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "trust_manifest_drift");
    assert!(
        refused.to_string().contains("@bob:localhost is not listed"),
        "{refused}"
    );
    drop(room);
    let open = json!({"version": 1, "unlisted": "allow", "users": {}});
    let alice = alice.kill_and_open_with(with(&open)).await;
    alice.client.room(&room_id).send_text("one").await.unwrap();
}

#[tokio::test]
async fn a_listed_identity_vouches_for_its_devices_and_a_new_one_does_not() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    set_up(&bob.client).await;
    let room_id = room.id().to_owned();
    drop(room);
    let users = [bob.client.user_id().to_owned()].into();
    let manifest = alice.client.draft_trust_manifest(&users).await.unwrap();
    let drafted = json!(manifest);
    assert!(
        drafted["users"]["@bob:localhost"]["master_key"].is_string(),
        "{drafted}"
    );
    assert!(drafted["users"]["@bob:localhost"]["devices"].is_null(), "{drafted}");
    assert!(alice.client.check_trust_manifest(&manifest).await.unwrap().is_empty());
    let alice = alice.kill_and_open_with(with(&drafted)).await;
    let room = alice.client.room(&room_id);
    room.send_text("one").await.unwrap();
    bobs_room.send_text("his").await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(messages[0].encryption.as_ref().unwrap().trust, Trust::Verified);
    crate::identity::reset(&bob.client).await;
    alice.client.sync().await.unwrap();
    let events = alice.events().await;
    let told = drifts(&events);
    assert!(
        matches!(told[..], [Drift::MasterKey { .. }, Drift::DeviceNotListed { .. }]),
        "{told:?}"
    );
    assert_eq!(
        server.say(&room, "never").await.unwrap_err().code(),
        "trust_manifest_drift"
    );
    assert_eq!(alice.client.check_trust_manifest(&manifest).await.unwrap().len(), 2);
    bobs_room.send_text("another").await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(messages[0].encryption.as_ref().unwrap().trust, Trust::NotListed);
}
