//! What the bare engine does when it is asked to send: panics, silence about who gets no key, sessions that stay.

use matrix_sdk_crypto::{EncryptionSettings, SetRoomSettingsError, store::types::RoomSettings};
use mx_test_homeserver::{EvilPeer, Homeserver};
use ruma::user_id;
use serde_json::{Value, json};

use crate::engine_machine::{Bare, bare_and_peer, room};

/// We share before we encrypt, in one critical section, and turn a panic of the engine into an error.
#[tokio::test]
async fn b06_encrypting_without_a_session_panics() {
    let (_, bare, _) = bare_and_peer().await;
    let panic = bare.encrypting_panics(&room()).await.unwrap();
    assert_eq!(panic, "Session wasn't created nor shared");
}

/// As above: the session that was used up between sharing and encrypting, by another task or by the clock.
#[tokio::test]
async fn b06_encrypting_with_a_session_that_expired_panics() {
    let (_, mut bare, peer) = bare_and_peer().await;
    let settings = EncryptionSettings {
        rotation_period_msgs: 1,
        ..EncryptionSettings::default()
    };
    bare.share_with(&room(), &[peer.user()], settings).await;
    bare.encrypt(&room(), "one").await;
    assert_eq!(bare.encrypting_panics(&room()).await.unwrap(), "Session expired");
    // The clock jumps by eight days while the process is down.
    let other = ruma::room_id!("!other:localhost");
    bare.share(other, &[peer.user()]).await;
    bare.disk.age(8 * 24 * 3600);
    bare.restart().await;
    assert_eq!(bare.encrypting_panics(other).await.unwrap(), "Session expired");
}

/// As above: an error of the store reads as "there is no session".
#[tokio::test]
async fn b06_encrypting_while_the_store_cannot_be_read_panics() {
    let (_, mut bare, peer) = bare_and_peer().await;
    bare.share(&room(), &[peer.user()]).await;
    bare.restart().await;
    bare.disk.fail("get_outbound_group_session", 0);
    let panic = bare.encrypting_panics(&room()).await.unwrap();
    assert_eq!(panic, "Session wasn't created nor shared");
}

/// We fail the unit on the first error that the store gives: here the session is replaced by a new one.
#[tokio::test]
async fn b04_an_outbound_session_that_cannot_be_read_is_replaced() {
    let (_, mut bare, peer) = bare_and_peer().await;
    bare.share(&room(), &[peer.user()]).await;
    let before = bare.encrypt(&room(), "before").await["session_id"].clone();
    bare.restart().await;
    bare.disk.fail("get_outbound_group_session", 0);
    assert_eq!(bare.share(&room(), &[peer.user()]).await, 1);
    assert_ne!(bare.encrypt(&room(), "after").await["session_id"], before);
}

/// The servers of remote users cannot be reached.
fn unreachable(server: &Homeserver, path: &str, field: &'static str) {
    server.rewrite(path, move |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        let users = body[field].as_object_mut().unwrap();
        users.retain(|user, _| !user.ends_with(":elsewhere"));
        body["failures"] = json!({"elsewhere": {}});
        response.map(|_| body.to_string().into())
    });
}

/// We read `failures` ourselves and refuse to send while somebody is unknown.
#[tokio::test]
async fn b08_users_of_a_server_in_failures_get_no_key_and_nobody_is_told() {
    let server = Homeserver::new();
    let bare = Bare::new(&server).await;
    let mut remote = EvilPeer::new(&server, "@remote:elsewhere", "REMOTE");
    remote.publish();
    unreachable(&server, "/keys/query", "device_keys");
    assert_eq!(bare.share(&room(), &[remote.user()]).await, 0, "no key, no refusal");
    bare.encrypt(&room(), "for nobody").await;
    // The server is back, and within the silent pause the user is not even asked for.
    server.behave();
    bare.drain().await;
    assert!(!bare.claim(&[remote.user()]).await);
    assert_eq!(bare.share(&room(), &[remote.user()]).await, 0);
}

/// As above, for `/keys/claim`: we compare recipients with sessions ourselves.
#[tokio::test]
async fn b08_devices_of_a_server_that_fails_a_claim_are_skipped() {
    let server = Homeserver::new();
    let bare = Bare::new(&server).await;
    let mut remote = EvilPeer::new(&server, "@remote:elsewhere", "REMOTE");
    remote.publish();
    bare.track(&[remote.user()]).await;
    unreachable(&server, "/keys/claim", "one_time_keys");
    assert!(bare.claim(&[remote.user()]).await, "it is asked once");
    server.behave();
    assert!(!bare.claim(&[remote.user()]).await, "and not again");
    bare.share(&room(), &[remote.user()]).await;
    bare.encrypt(&room(), "for nobody").await;
    let received = remote.receive();
    assert!(
        received
            .iter()
            .all(|message| message.event["type"] == "m.room_key.withheld")
    );
}

/// As above, for a device whose one-time keys ran out.
#[tokio::test]
async fn b08_a_device_without_one_time_keys_is_not_asked_again() {
    let (server, bare, mut peer) = bare_and_peer().await;
    server.exhaust_keys(peer.user(), peer.device());
    assert!(bare.claim(&[peer.user()]).await);
    let keys = peer.one_time_keys(5);
    peer.publish_keys(&json!({"one_time_keys": keys}));
    assert!(!bare.claim(&[peer.user()]).await, "although it has keys again");
}

/// We latch the encryption of a room ourselves, and take what is stricter.
#[tokio::test]
async fn b09_room_settings_are_not_used_and_cannot_be_tightened() {
    let (_, bare, peer) = bare_and_peer().await;
    let loose = RoomSettings {
        session_rotation_period_messages: Some(2),
        ..RoomSettings::default()
    };
    let tight = RoomSettings {
        session_rotation_period_messages: Some(1),
        ..loose.clone()
    };
    bare.machine.set_room_settings(&room(), &loose).await.unwrap();
    let refused = bare.machine.set_room_settings(&room(), &tight).await;
    assert!(matches!(refused, Err(SetRoomSettingsError::EncryptionDowngrade)));
    bare.share(&room(), &[peer.user()]).await;
    let mut sessions = std::collections::BTreeSet::new();
    for _ in 0..5 {
        bare.share(&room(), &[peer.user()]).await;
        sessions.insert(bare.encrypt(&room(), "more than two").await["session_id"].to_string());
    }
    assert_eq!(sessions.len(), 1);
}

/// We look at the membership events of a gap, and discard the room's session when somebody left in it.
#[tokio::test]
async fn b10_leaving_and_coming_back_between_two_messages_rotates_nothing() {
    let (_, bare, peer) = bare_and_peer().await;
    let others = [peer.user(), user_id!("@stays:localhost")];
    bare.share(&room(), &others).await;
    let before = bare.encrypt(&room(), "before").await["session_id"].clone();
    // The engine is told who is there when a message is sent, and nothing else.
    assert_eq!(bare.share(&room(), &others).await, 0);
    assert_eq!(bare.encrypt(&room(), "after").await["session_id"], before);
    // Were it told in between, it would rotate.
    bare.share(&room(), &others[1..]).await;
    assert_ne!(bare.encrypt(&room(), "alone").await["session_id"], before);
}

/// We compare the devices that the answer of a query names with those that we knew, and discard the room's session.
#[tokio::test]
async fn b11_a_device_with_a_new_identity_key_does_not_get_the_room_key() {
    let (server, bare, peer) = bare_and_peer().await;
    bare.share(&room(), &[peer.user()]).await;
    // The same signing key, another Curve25519 key.
    let donor = EvilPeer::new(&server, "donor", "DONOR");
    let mut keys = peer.unsigned_device_keys();
    keys["keys"]["curve25519:PEER"] = json!(donor.curve25519().to_base64());
    peer.sign(&mut keys);
    peer.publish_keys(&json!({"device_keys": keys}));
    requery(&bare, &peer).await;
    let device = bare
        .machine
        .get_device(peer.user(), peer.device(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(device.curve25519_key(), Some(donor.curve25519()), "it is accepted");
    assert_eq!(bare.share(&room(), &[peer.user()]).await, 0, "and gets nothing");
    bare.machine.discard_room_key(&room()).await.unwrap();
    assert_eq!(bare.share(&room(), &[peer.user()]).await, 1, "the repair");
}

/// We compare keys ourselves, and report the conflict.
#[tokio::test]
async fn b11_a_device_with_a_new_signing_key_is_rejected_without_a_word() {
    let (server, bare, peer) = bare_and_peer().await;
    let reborn = EvilPeer::new(&server, "peer", "PEER");
    reborn.publish_keys(&json!({"device_keys": reborn.device_keys()}));
    requery(&bare, &peer).await;
    let device = bare
        .machine
        .get_device(peer.user(), peer.device(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(device.ed25519_key(), Some(peer.ed25519()));
}

async fn requery(bare: &Bare, peer: &EvilPeer) {
    let (id, query) = bare.machine.query_keys_for_users([peer.user()]);
    let answer = bare.query(&query).await;
    bare.machine.mark_request_as_sent(&id, &answer).await.unwrap();
}

/// We want Megolm of a device that shall read a room.
#[tokio::test]
async fn b18_a_device_that_knows_no_megolm_gets_room_keys() {
    let server = Homeserver::new();
    let bare = Bare::new(&server).await;
    let mut peer = EvilPeer::new(&server, "peer", "PEER");
    peer.publish();
    let mut keys = peer.unsigned_device_keys();
    keys["algorithms"] = json!(["m.olm.v1.curve25519-aes-sha2"]);
    peer.sign(&mut keys);
    peer.publish_keys(&json!({"device_keys": keys}));
    assert_eq!(bare.share(&room(), &[peer.user()]).await, 1);
    let received = peer.receive();
    assert_eq!(received[0].payload.as_ref().unwrap()["type"], "m.room_key");
}
