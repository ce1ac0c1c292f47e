//! Unwedging on the bare engine: what it does, what never leaves, and that the repair works.

use std::collections::BTreeMap;

use matrix_sdk_crypto::CollectStrategy;
use mx_test_homeserver::{
    EvilPeer, Homeserver,
    peer::{OlmBody, OlmSession, PreKeyParts},
};
use ruma::{OneTimeKeyAlgorithm, TransactionId, api::client::keys::claim_keys};
use serde_json::{Value, json};

use crate::engine_machine::{Bare, bare_and_peer};

const TWO_HOURS: i64 = 2 * 3600;

/// A bare device that has a session with a peer, made some time ago.
async fn acquainted(age: i64) -> (Homeserver, Bare, EvilPeer, OlmSession) {
    let (server, mut bare, mut peer) = bare_and_peer().await;
    let olm = peer.olm_session_with(bare.user(), bare.device());
    let envelope = peer.envelope(&olm, "m.dummy", json!({}));
    peer.send_olm(&olm, &envelope);
    assert_eq!(bare.sync().await.unwrap().undecryptable(), 0);
    bare.drain().await;
    bare.disk.age(age);
    bare.restart().await;
    (server, bare, peer, olm)
}

/// A normal message on a session that the bare device does not have: what a peer sends whose other end was lost.
fn wedged(bare: &Bare, peer: &mut EvilPeer) -> Value {
    let ours = bare.machine.identity_keys().curve25519.to_base64();
    let olm = peer.olm_session_with(bare.user(), bare.device());
    let envelope = peer.envelope(&olm, "m.dummy", json!({}));
    let mut event = peer.olm_event(&olm, &envelope);
    let body = OlmBody::of(&event["content"], &ours).unwrap();
    let normal = OlmBody {
        message_type: 1,
        bytes: PreKeyParts::parse(&body.bytes).unwrap().message,
    };
    normal.put(&mut event["content"], &ours);
    event
}

/// The claim that the engine wants for nobody in particular.
async fn wants_claim(bare: &Bare) -> bool {
    let missing = bare.machine.get_missing_sessions(std::iter::empty()).await;
    missing.unwrap().is_some()
}

/// We claim, make the session and send the `m.dummy` ourselves; see the test of the repair.
#[tokio::test]
async fn unwedge_the_dummy_never_leaves() {
    let (_, bare, mut peer, _) = acquainted(TWO_HOURS).await;
    let event = wedged(&bare, &mut peer);
    assert_eq!(bare.give(vec![event]).await.unwrap().undecryptable(), 1);
    assert!(bare.claim(&[]).await, "a key is claimed");
    let sessions = bare.machine.store().get_sessions(&peer.curve25519().to_base64()).await;
    assert_eq!(sessions.unwrap().unwrap().len(), 2, "a session is made");
    let requests = bare.machine.outgoing_requests().await.unwrap();
    assert!(requests.is_empty(), "{requests:?}");
    bare.drain().await;
    assert!(peer.receive().is_empty(), "the peer is never told");
}

/// The repair: a claim of our own is accepted, the new session is used, and the peer can read what it brings.
#[tokio::test]
async fn unwedge_a_claim_that_the_engine_did_not_ask_for_is_taken() {
    let (server, bare, mut peer, _) = acquainted(0).await;
    let wanted = BTreeMap::from([(
        peer.user().to_owned(),
        BTreeMap::from([(peer.device().to_owned(), OneTimeKeyAlgorithm::SignedCurve25519)]),
    )]);
    let answer = bare.client.send(claim_keys::v3::Request::new(wanted)).await.unwrap();
    bare.machine
        .mark_request_as_sent(&TransactionId::new(), &answer)
        .await
        .unwrap();
    let device = bare
        .machine
        .get_device(peer.user(), peer.device(), None)
        .await
        .unwrap()
        .unwrap();
    let content = device
        .encrypt_event_raw("m.dummy", &json!({}), CollectStrategy::AllDevices)
        .await
        .unwrap();
    let content: Value = content.deserialize_as_unchecked().unwrap();
    let body = OlmBody::of(&content, &peer.curve25519().to_base64()).unwrap();
    assert_eq!(
        body.message_type, 0,
        "on the new session, which the peer has to make first"
    );
    // The peer has lost everything but its identity and its one-time keys.
    let payload = peer.decrypt(&content).unwrap();
    assert_eq!(
        (&payload["type"], &payload["sender"]),
        (&json!("m.dummy"), &json!(bare.user()))
    );
    // A claim with a key that its device did not sign makes no session.
    let forged = EvilPeer::new(&server, "peer", "FORGED").one_time_keys(1);
    let body = json!({"one_time_keys": {peer.user().as_str(): {peer.device().as_str(): forged}}});
    let answer = ruma::api::IncomingResponse::try_from_http_response(http::Response::new(body.to_string()));
    let answer: claim_keys::v3::Response = answer.unwrap();
    bare.machine
        .mark_request_as_sent(&TransactionId::new(), &answer)
        .await
        .unwrap();
    let sessions = bare.machine.store().get_sessions(&peer.curve25519().to_base64()).await;
    assert_eq!(sessions.unwrap().unwrap().len(), 2);
}

/// We look for the device by the key that the event names.
#[tokio::test]
async fn unwedge_a_broken_message_on_a_known_session_marks_nobody() {
    let (_, bare, mut peer, olm) = acquainted(TWO_HOURS).await;
    let ours = bare.machine.identity_keys().curve25519.to_base64();
    let envelope = peer.envelope(&olm, "m.dummy", json!({}));
    let mut event = peer.olm_event(&olm, &envelope);
    let mut body = OlmBody::of(&event["content"], &ours).unwrap();
    assert_eq!(body.message_type, 0);
    *body.bytes.last_mut().unwrap() ^= 1;
    body.put(&mut event["content"], &ours);
    assert_eq!(bare.give(vec![event]).await.unwrap().undecryptable(), 1);
    assert!(!wants_claim(&bare).await);
}

/// We make a session with every known device that sends what we cannot read.
#[tokio::test]
async fn unwedge_nothing_happens_without_a_session() {
    let (_, bare, mut peer) = bare_and_peer().await;
    let event = wedged(&bare, &mut peer);
    assert_eq!(bare.give(vec![event]).await.unwrap().undecryptable(), 1);
    assert!(!wants_claim(&bare).await);
}

/// We keep the time of the last repair of each device in the store.
#[tokio::test]
async fn b21_a_restart_forgets_who_is_wedged() {
    let (_, mut bare, mut peer, _) = acquainted(TWO_HOURS).await;
    let event = wedged(&bare, &mut peer);
    bare.give(vec![event]).await.unwrap();
    assert!(wants_claim(&bare).await);
    bare.restart().await;
    assert!(!wants_claim(&bare).await, "the event will not come again");
}

/// We hold to one repair an hour by our own record, also when the clock went back.
#[tokio::test]
async fn b21_a_clock_that_went_back_unwedges_at_once() {
    for (age, unwedges) in [(TWO_HOURS, true), (0, false), (-TWO_HOURS, true)] {
        let (_, bare, mut peer, _) = acquainted(age).await;
        let event = wedged(&bare, &mut peer);
        bare.give(vec![event]).await.unwrap();
        assert_eq!(wants_claim(&bare).await, unwedges, "{age} seconds");
    }
}
