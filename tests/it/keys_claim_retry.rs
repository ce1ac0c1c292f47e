//! Claims that fail, are under way, or end in a crash (rows KC-11 and KC-15 to KC-19): bounded, one at a time, never
//! in silence.

use mx_e2ee::{Error, Recipients, orchestrator};
use mx_test_homeserver::{EvilPeer, Fault};
use serde_json::json;
use vodozemac::Curve25519PublicKey;

use crate::{keys_cast::Cast, keys_gate::Gate};

fn claims(cast: &Cast, mark: &crate::keys_cast::Mark) -> usize {
    cast.requests(mark, "POST", "/keys/claim").len()
}

#[tokio::test]
async fn kc_11_a_server_that_failed_refuses_the_send_and_is_left_alone_for_a_while() {
    let mut cast = Cast::fresh_with("@bob:hs2", |server| server.transport()).await;
    cast.bob.publish();
    cast.sync().await;
    cast.rewrite("/keys/claim", |body| {
        body["one_time_keys"] = json!({});
        body["failures"] = json!({"hs2": {"status": 503}});
    });
    let mark = cast.mark().await;
    for _ in 0..3 {
        match cast.refused().await {
            Error::Orchestrator(orchestrator::Error::RecipientsUnknown { users, servers, .. }) => {
                assert_eq!(Vec::from_iter(users), [cast.bob.user()]);
                assert_eq!(Vec::from_iter(servers), ["hs2"]);
            }
            other => unreachable!("{other:?}"),
        }
    }
    assert_eq!(claims(&cast, &mark), 1, "no evidence is not asked for more than once");
    cast.server.behave();
    assert_eq!(cast.refused().await.code(), "recipients_unknown");
    cast.pass(15);
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

#[tokio::test]
async fn kc_11_best_effort_sends_to_the_others_and_names_who_is_unknown() {
    let mut cast = Cast::fresh_with("@bob:hs2", |server| server.transport()).await;
    cast.bob.publish();
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish();
    cast.room.invite(carol.user()).await.unwrap();
    carol.join(cast.room.id());
    cast.sync().await;
    cast.rewrite("/keys/claim", |body| {
        body["one_time_keys"].as_object_mut().unwrap().remove("@bob:hs2");
        body["failures"] = json!({"hs2": {"status": 503}});
    });
    let text = json!({"msgtype": "m.text", "body": "x"});
    let sent = cast.room.send_to("m.room.message", text, Recipients::BestEffort).await;
    let receipt = sent.unwrap();
    assert_eq!(receipt.users_unknown, [cast.bob.user()]);
    assert_eq!(receipt.readable_by(), 1);
    assert_eq!(cast.read_by(&mut carol), ["x"]);
}

#[tokio::test]
async fn kc_15_a_key_that_was_given_to_two_is_repaired_by_the_peers_new_session() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish();
    cast.sync().await;
    // Carol is given a key first, and uses it; a broken homeserver gives it to alice, too.
    let (id, key) = carol.claim(cast.bob.user(), cast.bob.device()).unwrap();
    let public = key["key"].as_str().unwrap().to_owned();
    let one_time_key = Curve25519PublicKey::from_base64(&public).unwrap();
    let given = json!({&id: key});
    cast.rewrite("/keys/claim", move |body| {
        body["one_time_keys"] = json!({"@bob:localhost": {"BDEV": given}})
    });
    let session = carol.olm_session_on(cast.bob.user(), cast.bob.device(), one_time_key);
    let envelope = carol.envelope(&session, "m.dummy", json!({}));
    carol.send_olm(&session, &envelope);
    let first = cast.send("lost").await;
    assert_eq!(first.readable_by(), 1, "as far as alice can know");
    let mut bob = cast.bob.clone();
    let received = bob.receive();
    let opened: Vec<bool> = received.iter().map(|received| received.payload.is_some()).collect();
    assert_eq!(opened, [true, false]);
    cast.server.behave();
    // What every client does with a message that it cannot open.
    let session = bob.olm_session_with(cast.alice.user_id(), cast.alice.device_id());
    let envelope = bob.envelope(&session, "m.dummy", json!({}));
    bob.send_olm(&session, &envelope);
    cast.sync().await;
    let second = cast.send("found").await;
    assert_eq!(second.session_id, first.session_id);
    assert_eq!(cast.read_by(&mut bob).last().unwrap(), "found");
}

#[tokio::test(start_paused = true)]
async fn kc_16_a_claim_that_failed_twice_is_tried_a_third_time() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    cast.sync().await;
    cast.server.fault(Fault::status("/keys/claim", 504, "{}").times(2));
    let mark = cast.mark().await;
    assert_eq!(cast.send("x").await.readable_by(), 1);
    assert_eq!(claims(&cast, &mark), 3);
    assert_eq!(cast.requests(&mark, "PUT", "/send/").len(), 1);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn kc_16_a_claim_whose_answer_is_lost_takes_one_key_an_attempt_and_no_more() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    cast.sync().await;
    let left = |cast: &Cast| cast.server.one_time_keys_left(cast.bob.user(), cast.bob.device());
    assert_eq!(left(&cast), 50);
    cast.server.fault(Fault::drop_after("/keys/claim").times(1000));
    for attempt in 1..=2 {
        assert_eq!(cast.refused().await.code(), "claim_failed");
        assert_eq!(left(&cast), 50 - 3 * attempt);
    }
}

#[tokio::test(start_paused = true)]
async fn kc_17_a_claim_that_never_ends_ends_the_send() {
    let gate = Gate::new("/keys/claim");
    let mut cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    cast.bob.publish();
    cast.sync().await;
    gate.close();
    let began = tokio::time::Instant::now();
    let error = cast.refused().await;
    assert_eq!(error.code(), "claim_failed");
    match error {
        Error::Orchestrator(orchestrator::Error::ClaimFailed { source }) => assert_eq!(source.code(), "timeout"),
        other => unreachable!("{other:?}"),
    }
    // Virtual time: three attempts of 30 seconds, and the pauses.
    assert!(
        began.elapsed() <= std::time::Duration::from_secs(94),
        "{:?}",
        began.elapsed()
    );
    gate.held(0).await;
    gate.open();
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

#[tokio::test]
async fn kc_18_two_rooms_at_once_claim_once() {
    let gate = Gate::new("/keys/claim");
    let mut cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    cast.bob.publish();
    let second = cast
        .alice
        .create_room(None, &[cast.bob.user().to_owned()])
        .await
        .unwrap();
    cast.bob.join(second.id());
    cast.sync().await;
    let mark = cast.mark().await;
    gate.close();
    let tasks: Vec<_> = [cast.room.clone(), second]
        .into_iter()
        .map(|room| tokio::spawn(async move { room.send_text("x").await.unwrap().readable_by() }))
        .collect();
    gate.held(1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
    assert_eq!((claims(&cast, &mark), gate.most_at_once()), (1, 1));
    assert_eq!(cast.sessions_with(&cast.bob.curve25519().to_base64()).await, 1);
}

#[tokio::test]
async fn kc_19_a_crash_after_a_claim_costs_one_key() {
    let gate = Gate::new("/keys/claim");
    let mut cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    cast.bob.publish();
    cast.sync().await;
    let left = |cast: &Cast| cast.server.one_time_keys_left(cast.bob.user(), cast.bob.device());
    gate.close();
    let mark = cast.mark().await;
    let room = cast.room.clone();
    let sending = tokio::spawn(async move { room.send_text("never").await.map(|_| ()) });
    gate.held(1).await;
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    assert_eq!(left(&cast), 49);
    let cast = cast.reopen().await;
    cast.assert_refused(&mark).await;
    assert_eq!(cast.sessions_with(&cast.bob.curve25519().to_base64()).await, 0);
    assert_eq!(cast.send("x").await.readable_by(), 1);
    assert_eq!(left(&cast), 48);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["x"]);
}
