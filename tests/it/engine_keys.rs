//! How the bare engine keeps its own keys at the homeserver, and what it makes of others'.

use std::collections::BTreeMap;

use mx_test_homeserver::{EvilPeer, Homeserver};
use ruma::{OneTimeKeyAlgorithm, UInt, api::client::keys::upload_keys, device_id};
use serde_json::json;

use crate::engine_machine::{Bare, bare_and_peer, room};

/// We read a count that is missing as zero, as the specification says.
#[tokio::test]
async fn b07_a_missing_count_of_one_time_keys_is_not_zero() {
    let (server, bare, _) = bare_and_peer().await;
    bare.drain().await;
    server.exhaust_keys(bare.user(), bare.device());
    bare.count(&BTreeMap::new()).await;
    assert!(bare.uploads().await.is_empty(), "nobody can reach this device any more");
    let none = BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, UInt::MIN)]);
    bare.count(&none).await;
    assert_eq!(bare.uploads().await[0].1.one_time_keys.len(), 50, "the repair");
}

/// We let one task at a time ask for requests, and answer them.
#[tokio::test]
async fn b13_asking_for_requests_again_forgets_the_query_in_flight() {
    let (server, bare, _) = bare_and_peer().await;
    let mut other = EvilPeer::new(&server, "other", "OTHER");
    other.publish();
    bare.machine.update_tracked_users([other.user()]).await.unwrap();
    let first = bare.queries().await;
    let second = bare.queries().await;
    assert_ne!(first[0].0, second[0].0);
    let answer = bare.query(&first[0].1).await;
    bare.machine.mark_request_as_sent(&first[0].0, &answer).await.unwrap();
    assert_eq!(
        bare.queries().await.len(),
        1,
        "the user is not up to date, although answered"
    );
}

/// As above, for claims.
#[tokio::test]
async fn b13_a_second_claim_forgets_what_the_first_asked_for() {
    for raced in [false, true] {
        let (server, bare, peer) = bare_and_peer().await;
        server.exhaust_keys(peer.user(), peer.device());
        let first = bare.machine.get_missing_sessions([peer.user()].into_iter()).await;
        let (id, request) = first.unwrap().unwrap();
        if raced {
            let second = bare.machine.get_missing_sessions([peer.user()].into_iter()).await;
            assert!(second.unwrap().is_some(), "two in flight");
        }
        let answer = bare.client.send(request).await.unwrap();
        bare.machine.mark_request_as_sent(&id, &answer).await.unwrap();
        let noted = !bare.claim(&[peer.user()]).await;
        assert_eq!(noted, !raced, "that the device has no keys");
    }
}

/// The fallback key of the bare device, uploaded and then used by a claim.
async fn used_fallback(server: &Homeserver, bare: &mut Bare, peer: &EvilPeer) -> vodozemac::Curve25519PublicKey {
    bare.sync().await.unwrap();
    bare.drain().await;
    for _ in 0..50 {
        peer.claim(bare.user(), bare.device()).unwrap();
    }
    assert_eq!(server.one_time_keys_left(bare.user(), bare.device()), 0);
    let (_, key) = peer.claim(bare.user(), bare.device()).unwrap();
    assert_eq!(key["fallback"], true);
    vodozemac::Curve25519PublicKey::from_base64(key["key"].as_str().unwrap()).unwrap()
}

/// We renew the fallback key as soon as a sync says that it was used.
#[tokio::test]
async fn b15_a_used_fallback_key_stays_for_a_week() {
    let (server, mut bare, peer) = bare_and_peer().await;
    used_fallback(&server, &mut bare, &peer).await;
    bare.sync().await.unwrap();
    let uploads = bare.uploads().await;
    assert_eq!(uploads[0].1.one_time_keys.len(), 50);
    assert!(uploads[0].1.fallback_keys.is_empty(), "the sync said that it is used");
    bare.drain().await;
    // Its age is what renews it.
    bare.disk.age(8 * 24 * 3600);
    bare.restart().await;
    bare.sync().await.unwrap();
    assert_eq!(bare.uploads().await[0].1.fallback_keys.len(), 1);
}

/// We forget the old fallback key some time after the new one is published.
#[tokio::test]
async fn b15_the_old_fallback_key_is_never_forgotten() {
    let (server, mut bare, mut peer) = bare_and_peer().await;
    let old = used_fallback(&server, &mut bare, &peer).await;
    bare.sync().await.unwrap();
    bare.drain().await;
    bare.disk.age(8 * 24 * 3600);
    bare.restart().await;
    bare.sync().await.unwrap();
    bare.drain().await;
    bare.disk.age(0);
    bare.restart().await;
    // Syncs enough for any timer that counts them.
    for _ in 0..5 {
        bare.sync().await.unwrap();
    }
    let olm = peer.olm_session_on(bare.user(), bare.device(), old);
    let envelope = peer.envelope(&olm, "m.dummy", json!({}));
    let event = peer.olm_event(&olm, &envelope);
    assert_eq!(bare.give(vec![event]).await.unwrap().undecryptable(), 0);
}

/// Publish a key of somebody else's under the id of a key that the engine has not uploaded yet: what a store that was
/// rolled back meets. Returns how many keys the engine wants to upload.
async fn collide(bare: &Bare) -> usize {
    let (_, upload) = bare.uploads().await.remove(0);
    let (id, _) = upload.one_time_keys.iter().next().unwrap();
    let (_, other) = upload.one_time_keys.iter().next_back().unwrap();
    let mut before = upload_keys::v3::Request::new();
    before.one_time_keys.insert(id.clone(), other.clone());
    bare.client.send(before).await.unwrap();
    upload.one_time_keys.len()
}

/// We post the same upload without its one-time keys, and give the engine that answer; see the next test.
#[tokio::test]
async fn b17_an_upload_that_collides_is_tried_for_ever() {
    let server = Homeserver::new();
    let bare = Bare::unpublished(&server).await;
    collide(&bare).await;
    let mut tried = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let (_, upload) = bare.uploads().await.remove(0);
        let ids: Vec<String> = upload.one_time_keys.keys().map(ToString::to_string).collect();
        let refused = bare.client.send(upload).await;
        assert!(refused.unwrap_err().to_string().contains("400"));
        tried.insert(ids);
    }
    assert_eq!(tried.len(), 1, "the same keys each time");
    assert_eq!(server.devices_of(bare.user()), ["BARE"]);
}

/// The repair: the engine moves on to new key ids, and the homeserver's counts are true.
#[tokio::test]
async fn b17_the_repair_of_a_collision_gets_the_engine_on() {
    let server = Homeserver::new();
    let bare = Bare::unpublished(&server).await;
    let wanted = collide(&bare).await;
    let (id, mut upload) = bare.uploads().await.remove(0);
    let lost: Vec<_> = std::mem::take(&mut upload.one_time_keys).into_keys().collect();
    assert!(upload.device_keys.is_some());
    let answer = bare.client.send(upload).await.unwrap();
    bare.machine.mark_request_as_sent(&id, &answer).await.unwrap();
    let (id, upload) = bare.uploads().await.remove(0);
    assert_eq!(
        upload.one_time_keys.len(),
        wanted - 1,
        "what is missing at the homeserver"
    );
    assert!(lost.iter().all(|id| !upload.one_time_keys.contains_key(id)), "new ids");
    let answer = bare.client.send(upload).await.unwrap();
    bare.machine.mark_request_as_sent(&id, &answer).await.unwrap();
    assert!(bare.uploads().await.is_empty());
    assert_eq!(server.one_time_keys_left(bare.user(), device_id!("BARE")), wanted);
}

/// We compare the raw answer with the store, and name who was rejected and why.
#[tokio::test]
async fn b19_rejected_devices_and_keys_are_not_named() {
    let server = Homeserver::new();
    let bare = Bare::new(&server).await;
    let mut peer = EvilPeer::new(&server, "peer", "PEER");
    peer.publish();
    let mut forged = EvilPeer::new(&server, "peer", "FORGED");
    let mut keys = forged.unsigned_device_keys();
    peer.sign(&mut keys);
    forged.publish_keys(&json!({"device_keys": keys}));
    bare.track(&[peer.user()]).await;
    let devices = bare.machine.get_user_devices(peer.user(), None).await.unwrap();
    let known: Vec<_> = devices.keys().map(ToString::to_string).collect();
    assert_eq!(known, ["PEER"], "the answer was taken without a word about the other");
    // A key whose signature is another's: the claim is taken without a word too, and no session is there.
    server.exhaust_keys(peer.user(), peer.device());
    let keys = forged.one_time_keys(1);
    peer.publish_keys(&json!({"one_time_keys": keys}));
    assert!(bare.claim(&[peer.user()]).await);
    let sessions = bare.machine.store().get_sessions(&peer.curve25519().to_base64()).await;
    assert!(sessions.unwrap().is_none_or(|sessions| sessions.is_empty()));
    assert_eq!(bare.share(&room(), &[peer.user()]).await, 1);
    let received = peer.receive();
    assert_eq!(received[0].event["type"], "m.room_key.withheld");
}
