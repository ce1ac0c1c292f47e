//! One-time keys that collide on the homeserver (rows KU-05 to KU-07): a repetition is told apart from a copied store.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use mx_e2ee::{Error, RotationReason, orchestrator};
use serde_json::{Value, json};

use crate::keys_cast::Cast;

/// What the homeserver says it has under the id of the first one-time key of an upload.
#[derive(Clone, Copy)]
enum Has {
    TheSame,
    Another,
    /// It says so in words that nobody expects.
    Something,
}

/// Refuse the next `times` uploads with one-time keys, and exhaust alice's so that she uploads some.
fn collide(cast: &Cast, has: Has, times: usize) -> Arc<AtomicUsize> {
    cast.server.exhaust_keys(cast.alice.user_id(), cast.alice.device_id());
    let left = Arc::new(AtomicUsize::new(times));
    let counted = Arc::clone(&left);
    let (server, user, device) = (
        mx_test_homeserver::Homeserver::clone(&cast.server),
        cast.alice.user_id().to_owned(),
        cast.alice.device_id().to_owned(),
    );
    cast.server.rewrite("/keys/upload", move |request, response| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let keys = body["one_time_keys"].as_object().filter(|keys| !keys.is_empty());
        let Some((id, key)) = keys.and_then(|keys| keys.iter().next()) else {
            return response;
        };
        if counted
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_err()
        {
            return response;
        }
        let mut old = key.clone();
        if !matches!(has, Has::TheSame) {
            // It did not take these.
            server.exhaust_keys(&user, &device);
            old["key"] = "x".repeat(43).into();
        }
        let error = match has {
            Has::Something => "Dieser Schlüssel ist vergeben".to_owned(),
            _ => format!("One time key {id} already exists. Old key: {old}; new key: {key}"),
        };
        let answer = json!({"errcode": "M_UNKNOWN", "error": error}).to_string();
        http::Response::builder().status(400).body(answer.into()).unwrap()
    });
    left
}

fn colliding(error: Error) -> BTreeSet<String> {
    match error {
        Error::Orchestrator(orchestrator::Error::OneTimeKeyConflict { ids }) => ids,
        other => unreachable!("{other:?}"),
    }
}

async fn health(cast: &Cast) -> Value {
    json!(cast.alice.health().await.unwrap())
}

/// Uploads with one-time keys since `mark`.
fn tried(cast: &Cast, mark: &crate::keys_cast::Mark) -> usize {
    let uploads = cast.requests(mark, "POST", "/keys/upload");
    let with_keys = |upload: &&mx_test_homeserver::Exchange| {
        upload.request_body["one_time_keys"]
            .as_object()
            .is_some_and(|keys| !keys.is_empty())
    };
    uploads.iter().filter(with_keys).count()
}

#[tokio::test]
async fn ku_05_the_same_key_again_is_a_success() {
    let cast = Cast::acquainted().await;
    let mark = cast.mark().await;
    let faults = collide(&cast, Has::TheSame, 1);
    cast.sync().await;
    assert_eq!(faults.load(Ordering::SeqCst), 0, "it happened");
    assert_eq!(health(&cast).await, json!({"health": "ok"}));
    let uploads = cast.requests(&mark, "POST", "/keys/upload");
    let ids = |upload: &mx_test_homeserver::Exchange| -> BTreeSet<String> {
        let keys = upload.request_body["one_time_keys"].as_object();
        keys.map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
    };
    // The collision, and the same without one-time keys: those that collided count as published.
    let counts: Vec<usize> = uploads.iter().map(|upload| ids(upload).len()).collect();
    assert_eq!(counts, [50, 0]);
    let left = |cast: &Cast| {
        cast.server
            .one_time_keys_left(cast.alice.user_id(), cast.alice.device_id())
    };
    assert_eq!(left(&cast), 50);
    // The next ones are others.
    cast.server.exhaust_keys(cast.alice.user_id(), cast.alice.device_id());
    cast.sync().await;
    assert_eq!(left(&cast), 50);
    let uploads_after = cast.requests(&mark, "POST", "/keys/upload");
    assert!(ids(&uploads[0]).is_disjoint(&ids(uploads_after.last().unwrap())));
    assert_eq!(cast.send("goes on").await.readable_by(), 1);
}

#[tokio::test]
async fn ku_06_another_key_stops_sends_until_it_is_acknowledged_and_never_loops() {
    let cast = Cast::acquainted().await;
    let key_before = cast.room_key().await.unwrap();
    let mark = cast.mark().await;
    collide(&cast, Has::Another, 1000);
    for _ in 0..50 {
        cast.sync().await;
    }
    assert_eq!(tried(&cast, &mark), 1, "no storm");
    let ids = colliding(cast.refused().await);
    assert_eq!(ids.len(), 1);
    assert!(ids.iter().all(|id| id.starts_with("signed_curve25519:")), "{ids:?}");
    assert_eq!(colliding(cast.alice.publish_keys().await.unwrap_err()), ids);
    let report = health(&cast).await;
    assert_eq!(report["problems"][0]["code"], "one_time_key_conflict");
    assert_eq!(report["problems"][0]["since_ms"], 1_790_000_000_000_u64);
    // It is on the disk, and one more attempt is made after five minutes, and not before.
    let cast = cast.reopen().await;
    cast.pass(299);
    cast.sync().await;
    assert_eq!(tried(&cast, &mark), 1);
    cast.pass(1);
    cast.sync().await;
    cast.sync().await;
    assert_eq!(tried(&cast, &mark), 2);
    // What others send is read all the while.
    let mut bob = cast.bob.clone();
    let olm = bob
        .newest_olm_session(cast.alice.user_id(), cast.alice.device_id())
        .unwrap();
    let mut session = bob.megolm_session(cast.room.id());
    bob.share_room_key(&olm, &session);
    bob.send_text(&mut session, "still read");
    let read: Vec<Value> = cast.events().await.iter().map(|event| json!(event)).collect();
    assert_eq!(read[0]["content"]["body"], "still read");
    // Acknowledged: a new key for the room, and one-time keys past those that collide.
    cast.server.behave();
    let still = collide(&cast, Has::Another, 2);
    cast.alice.acknowledge_key_conflict().await.unwrap();
    assert_eq!(still.load(Ordering::SeqCst), 0);
    assert_eq!(health(&cast).await, json!({"health": "ok"}));
    assert!(
        cast.server
            .one_time_keys_left(cast.alice.user_id(), cast.alice.device_id())
            >= 50
    );
    let receipt = cast.send("after").await;
    assert_eq!(receipt.rotation, Some(RotationReason::StoreConflict));
    assert_ne!(receipt.session_id, key_before.0);
    assert_eq!(receipt.readable_by(), 1);
    assert!(!cast.send("again").await.new_session, "once is enough");
    // It is over: the next one is a conflict again.
    collide(&cast, Has::Another, 1);
    cast.sync().await;
    assert_eq!(cast.refused().await.code(), "one_time_key_conflict");
}

#[tokio::test]
async fn ku_06_a_conflict_that_is_over_by_itself_is_acknowledged_all_the_same() {
    let cast = Cast::acquainted().await;
    collide(&cast, Has::Another, 1);
    cast.sync().await;
    cast.pass(300);
    cast.sync().await;
    assert_eq!(
        cast.server
            .one_time_keys_left(cast.alice.user_id(), cast.alice.device_id()),
        50
    );
    assert_eq!(cast.refused().await.code(), "one_time_key_conflict");
    cast.alice.acknowledge_key_conflict().await.unwrap();
    assert!(cast.send("x").await.new_session);
}

#[tokio::test]
async fn ku_06_without_a_conflict_there_is_nothing_to_acknowledge() {
    let cast = Cast::acquainted().await;
    cast.alice.acknowledge_key_conflict().await.unwrap();
    assert!(!cast.send("x").await.new_session);
}

#[tokio::test]
async fn ku_07_a_conflict_in_other_words_is_one_all_the_same() {
    let cast = Cast::acquainted().await;
    let mark = cast.mark().await;
    collide(&cast, Has::Something, 1000);
    for _ in 0..20 {
        cast.sync().await;
    }
    assert_eq!(tried(&cast, &mark), 1);
    assert!(colliding(cast.refused().await).is_empty(), "the homeserver named no id");
    assert_eq!(health(&cast).await["problems"][0]["code"], "one_time_key_conflict");
}
