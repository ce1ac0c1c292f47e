//! Uploads of our keys (rows KU-01 to KU-04, KU-08 to KU-10, KU-13 and KU-14): the same bytes until the homeserver has
//! them, and never more often than makes sense.

use std::sync::{Arc, atomic::AtomicU64};

use mx_crypto_store::{
    PickleStore,
    backend::{Memory, MemoryDisk},
};
use mx_olm_orchestrator::Orchestrator;
use mx_test_homeserver::{Exchange, Fault, Homeserver, peer::verify};

use serde_json::{Value, json};
use vodozemac::Ed25519PublicKey;

use crate::{
    keys_cast::{Cast, log_in},
    world::{World, builder, key},
};

fn uploads(server: &Homeserver) -> Vec<Exchange> {
    let log = server.log().into_iter();
    log.filter(|exchange| {
        exchange.path.ends_with("/keys/upload") && exchange.user.as_deref() == Some("@alice:localhost")
    })
    .collect()
}

/// Alice's one-time keys are gone, as far as the homeserver knows.
fn exhaust(cast: &Cast) {
    cast.server.exhaust_keys(cast.alice.user_id(), cast.alice.device_id());
}

fn left(cast: &Cast) -> usize {
    cast.server
        .one_time_keys_left(cast.alice.user_id(), cast.alice.device_id())
}

fn one_time_keys(upload: &Exchange) -> &Value {
    &upload.request_body["one_time_keys"]
}

#[tokio::test]
async fn ku_01_a_first_start_is_one_upload_and_every_signature_verifies() {
    let cast = Cast::fresh().await;
    let uploads = uploads(&cast.server);
    assert_eq!(uploads.len(), 1);
    let body = &uploads[0].request_body;
    let (user, device) = (cast.alice.user_id(), cast.alice.device_id());
    let status = cast.alice.key_status().await.unwrap();
    let ed25519 = Ed25519PublicKey::from_base64(&status.ed25519).unwrap();
    let key_id = format!("ed25519:{device}");
    let is_signed = |object: &Value| verify(object, user, &key_id, &ed25519);
    assert!(is_signed(&body["device_keys"]));
    assert_eq!(body["device_keys"]["keys"][&key_id], status.ed25519);
    for (field, count) in [("one_time_keys", 50), ("fallback_keys", 1)] {
        let keys = body[field].as_object().unwrap();
        assert_eq!(keys.len(), count, "{field}");
        for (id, key) in keys {
            assert!(id.starts_with("signed_curve25519:") && is_signed(key), "{field} {id}");
            assert_eq!(key["fallback"] == true, field == "fallback_keys");
        }
    }
}

#[tokio::test]
async fn ku_02_keys_whose_upload_was_cut_off_are_uploaded_again_in_the_same_bytes() {
    for fault in [Fault::drop_before("/keys/upload"), Fault::drop_after("/keys/upload")] {
        let cast = Cast::fresh().await;
        exhaust(&cast);
        cast.server.fault(fault);
        cast.sync().await;
        let cast = cast.reopen().await;
        cast.sync().await;
        let uploads = uploads(&cast.server);
        let [.., cut_off, again] = uploads.as_slice() else {
            unreachable!()
        };
        assert_eq!((cut_off.status, again.status), (None, Some(200)));
        assert_eq!(one_time_keys(cut_off), one_time_keys(again));
        assert_eq!(one_time_keys(again).as_object().unwrap().len(), 50);
        assert_eq!(left(&cast), 50);
        assert!(uploads.iter().all(|upload| upload.status != Some(400)));
    }
}

#[tokio::test]
async fn ku_03_a_first_upload_that_was_cut_off_is_the_same_identity_again() {
    for fault in [Fault::drop_before("/keys/upload"), Fault::drop_after("/keys/upload")] {
        let server = World::new();
        server.register("alice", "password");
        let (disk, directory) = (MemoryDisk::new(), tempfile::tempdir().unwrap());
        let clock = Arc::new(AtomicU64::new(1_790_000_000_000));
        server.fault(fault);
        let error = log_in(&server, server.transport(), &disk, directory.path(), &clock)
            .await
            .unwrap_err();
        assert_eq!(error.code(), "interrupted");
        // The login stands: the process starts again, and publishes what it had on the disk.
        let builder = builder(&server, &disk).directory(directory.path());
        let alice = builder.open().await.unwrap();
        alice.sync().await.unwrap();
        let uploads = uploads(&server);
        assert_eq!(uploads.len(), 2);
        assert_eq!(uploads[0].request_body, uploads[1].request_body);
        assert_eq!(uploads[0].device, uploads[1].device);
        assert!(alice.key_status().await.unwrap().published);
    }
}

#[tokio::test]
async fn ku_04_an_upload_that_fails_twice_works_the_third_time() {
    let cast = Cast::fresh().await;
    exhaust(&cast);
    cast.server.fault(Fault::status("/keys/upload", 504, "{}").times(2));
    for expected in [0, 0, 50] {
        cast.sync().await;
        assert_eq!(left(&cast), expected);
    }
    let uploads = uploads(&cast.server);
    assert_eq!(uploads.len(), 4);
    assert!(
        uploads[1..]
            .windows(2)
            .all(|two| one_time_keys(&two[0]) == one_time_keys(&two[1]))
    );
}

#[tokio::test]
async fn ku_08_a_count_that_is_left_out_is_zero() {
    let cast = Cast::fresh().await;
    exhaust(&cast);
    cast.rewrite("/sync", |body| {
        body.as_object_mut().unwrap().remove("device_one_time_keys_count");
    });
    cast.sync().await;
    assert_eq!(left(&cast), 50);
}

#[tokio::test]
async fn ku_09_a_homeserver_that_ignores_uploads_does_not_make_us_run() {
    let cast = Cast::fresh().await;
    cast.rewrite("/sync", |body| {
        body["device_one_time_keys_count"] = json!({"signed_curve25519": 0});
    });
    cast.rewrite("/keys/upload", |body| {
        body["one_time_key_counts"] = json!({"signed_curve25519": 0});
    });
    let minutes = 10;
    for _ in 0..100 {
        cast.sync().await;
        cast.pass(minutes * 60 / 100);
    }
    let uploads = uploads(&cast.server);
    let batches: Vec<_> = uploads
        .iter()
        .filter_map(|upload| one_time_keys(upload).as_object())
        .collect();
    // Three at once, that of the login among them, and one a minute then.
    assert!(batches.len() <= 3 + 10, "{} uploads", batches.len());
    assert!(batches.len() >= 10, "it does not give up");
    let mut ids: Vec<&String> = batches.iter().flat_map(|keys| keys.keys()).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "no id is used twice");
}

#[tokio::test]
async fn ku_10_a_count_that_is_no_count_is_ignored_and_the_sync_goes_on() {
    for odd in [json!(9_007_199_254_740_992_u64), json!(-1), json!("50"), json!(1.5)] {
        let cast = Cast::fresh().await;
        let mut bob = cast.bob.clone();
        bob.publish();
        let olm = bob.olm_session_with(cast.alice.user_id(), cast.alice.device_id());
        let mut session = bob.megolm_session(cast.room.id());
        bob.share_room_key(&olm, &session);
        bob.send_text(&mut session, "read");
        let before = uploads(&cast.server).len();
        let served = odd.clone();
        cast.rewrite("/sync", move |body| {
            body["device_one_time_keys_count"] = json!({"signed_curve25519": served});
        });
        let summary = cast.device().sync(std::time::Duration::ZERO).await.unwrap();
        assert_eq!(summary.unreadable, ["device_one_time_keys_count"], "{odd}");
        assert_eq!(summary.room_keys, 1);
        assert_eq!(cast.events().await.len(), 1, "{odd}");
        assert_eq!(uploads(&cast.server).len(), before, "{odd}: nothing is uploaded for it");
    }
}

#[tokio::test]
async fn ku_13_a_soft_logout_keeps_the_keys_for_the_same_device() {
    let cast = Cast::fresh().await;
    exhaust(&cast);
    cast.server.fault(Fault::status(
        "/keys/upload",
        401,
        r#"{"errcode":"M_UNKNOWN_TOKEN","error":"","soft_logout":true}"#,
    ));
    cast.sync().await;
    cast.server
        .expire_token(cast.alice.user_id(), cast.alice.device_id(), true);
    let error = cast.alice.publish_keys().await.unwrap_err();
    assert_eq!(error.code(), "soft_logged_out");
    let device = cast.alice.device_id().to_owned();
    let cast = cast.log_in_again().await;
    assert_eq!(cast.alice.device_id(), device);
    cast.sync().await;
    let uploads: Vec<Exchange> = uploads(&cast.server)
        .into_iter()
        .filter(|upload| one_time_keys(upload).as_object().is_some_and(|keys| !keys.is_empty()))
        .collect();
    let [.., refused, again] = uploads.as_slice() else {
        unreachable!()
    };
    assert_eq!((refused.status, again.status), (Some(401), Some(200)));
    assert_eq!(one_time_keys(refused), one_time_keys(again));
    assert_eq!(left(&cast), 50);
}

#[tokio::test]
async fn ku_14_a_refused_upload_is_an_error_and_counts_as_not_sent() {
    let html = "<html><body>Request Entity Too Large</body></html>";
    for (status, body, code) in [
        (403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#, "forbidden"),
        (413, html, "homeserver_refused"),
        (200, html, "unreadable_answer"),
    ] {
        let cast = Cast::fresh().await;
        exhaust(&cast);
        cast.server
            .fault(Fault::status("/keys/upload", status, body).times(1000));
        cast.sync().await;
        let mark = cast.mark().await;
        // Syncs wait before they try again; who asks for it is told.
        for _ in 0..10 {
            cast.sync().await;
        }
        assert_eq!(cast.requests(&mark, "POST", "/keys/upload").len(), 0, "{status}");
        assert_eq!(cast.alice.publish_keys().await.unwrap_err().code(), code);
        cast.pass(120);
        cast.server.behave();
        cast.sync().await;
        let uploads = uploads(&cast.server);
        let keys: Vec<&Value> = uploads[1..].iter().map(one_time_keys).collect();
        assert_eq!(keys.len(), 3);
        assert!(keys.windows(2).all(|two| two[0] == two[1]), "{status}: the same keys");
        assert_eq!(left(&cast), 50);
    }
}

#[tokio::test]
async fn ku_14_a_first_upload_that_waits_is_not_taken_for_published() {
    let server = World::new();
    let user = server.register("alice", "password");
    let homeserver = mx_transport::Homeserver::new("http://localhost", server.transport()).unwrap();
    homeserver.set_access_token(mx_transport::AccessToken::new(server.token(&user, "DEVICE")).unwrap());
    let store = PickleStore::open(Arc::new(Memory::new()), key()).await.unwrap();
    let device = Orchestrator::open(homeserver, store, &user, "DEVICE".into(), mx_e2ee::Options::default())
        .await
        .unwrap();
    let forbidden = r#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
    server.fault(Fault::status("/keys/upload", 403, forbidden).times(1000));
    for _ in 0..3 {
        device.sync(std::time::Duration::ZERO).await.unwrap();
        assert!(!device.were_keys_published().await.unwrap());
    }
    server.behave();
    device.publish_keys().await.unwrap();
    assert!(device.were_keys_published().await.unwrap());
}
