//! The fallback key (rows KU-11 and KU-12): it serves when one-time keys ran out, is renewed once it was used, and its
//! predecessor is forgotten.

use mx_test_homeserver::EvilPeer;
use serde_json::{Value, json};
use vodozemac::Curve25519PublicKey;

use crate::keys_cast::Cast;

const HOUR: u64 = 3600;

/// The fallback keys that alice uploaded, oldest first.
fn fallback_keys(cast: &Cast) -> Vec<String> {
    let log = cast.server.log();
    let uploads = log.iter().filter(|exchange| {
        exchange.path.ends_with("/keys/upload") && exchange.user.as_deref() == Some("@alice:localhost")
    });
    uploads
        .filter_map(|upload| upload.request_body["fallback_keys"].as_object())
        .flat_map(|keys| keys.values().map(|key| key["key"].as_str().unwrap().to_owned()))
        .collect()
}

/// Somebody gives alice a room key on a session by this one-time key: whether she could read it.
async fn reads_by(cast: &Cast, name: &str, key: &str) -> bool {
    let mut peer = EvilPeer::new(&cast.server, name, "PEER");
    peer.publish();
    let key = Curve25519PublicKey::from_base64(key).unwrap();
    let olm = peer.olm_session_on(cast.alice.user_id(), cast.alice.device_id(), key);
    let session = peer.megolm_session(cast.room.id());
    peer.share_room_key(&olm, &session);
    let summary = cast.device().sync(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(summary.room_keys + summary.to_device_rejected, 1);
    summary.room_keys == 1
}

#[tokio::test]
async fn ku_11_sixty_senders_without_a_sync_are_all_read_and_the_fallback_key_is_renewed() {
    let cast = Cast::fresh().await;
    cast.pass(2 * HOUR);
    let mut by_fallback = 0;
    for number in 0..60 {
        let mut peer = EvilPeer::new(&cast.server, &format!("sender{number}"), "DEV");
        peer.publish();
        let (_, key) = peer.claim(cast.alice.user_id(), cast.alice.device_id()).unwrap();
        by_fallback += usize::from(key["fallback"] == true);
        let public = Curve25519PublicKey::from_base64(key["key"].as_str().unwrap()).unwrap();
        let olm = peer.olm_session_on(cast.alice.user_id(), cast.alice.device_id(), public);
        let session = peer.megolm_session(cast.room.id());
        peer.share_room_key(&olm, &session);
    }
    assert_eq!(by_fallback, 10);
    let summary = cast.device().sync(std::time::Duration::ZERO).await.unwrap();
    assert_eq!((summary.room_keys, summary.to_device_rejected), (60, 0));
    let keys = fallback_keys(&cast);
    assert_eq!(keys.len(), 2, "used, so renewed with the same sync");
    assert_ne!(keys[0], keys[1]);
    assert_eq!(
        cast.server
            .one_time_keys_left(cast.alice.user_id(), cast.alice.device_id()),
        50
    );
}

#[tokio::test]
async fn ku_11_a_fallback_key_that_is_used_all_the_time_is_renewed_once_an_hour() {
    let cast = Cast::fresh().await;
    cast.rewrite("/sync", |body| body["device_unused_fallback_key_types"] = json!([]));
    cast.sync().await;
    assert_eq!(fallback_keys(&cast).len(), 1, "it is minutes old");
    for expected in 2..5 {
        cast.pass(HOUR);
        for _ in 0..5 {
            cast.sync().await;
        }
        assert_eq!(fallback_keys(&cast).len(), expected);
    }
    // One that is not used stays.
    cast.server.behave();
    cast.pass(48 * HOUR);
    cast.sync().await;
    assert_eq!(fallback_keys(&cast).len(), 4);
}

#[tokio::test]
async fn ku_12_the_last_fallback_key_opens_sessions_for_an_hour_more_and_no_longer() {
    let cast = Cast::fresh().await;
    let first = fallback_keys(&cast)[0].clone();
    assert!(reads_by(&cast, "one", &first).await);
    assert!(reads_by(&cast, "two", &first).await, "it is no one-time key");
    cast.rewrite("/sync", |body: &mut Value| {
        body["device_unused_fallback_key_types"] = json!([])
    });
    cast.pass(HOUR);
    cast.sync().await;
    assert_eq!(fallback_keys(&cast).len(), 2);
    cast.server.behave();
    cast.pass(HOUR - 1);
    assert!(reads_by(&cast, "three", &first).await, "a message may be under way");
    cast.pass(1);
    cast.sync().await;
    assert!(!reads_by(&cast, "four", &first).await);
    let second = fallback_keys(&cast)[1].clone();
    assert!(reads_by(&cast, "five", &second).await);
    let cast = cast.reopen().await;
    assert!(!reads_by(&cast, "six", &first).await);
    assert!(reads_by(&cast, "seven", &second).await);
}
