//! Verifications that nobody attends: who is answered, and what is taken for a confirmation.

use std::pin::pin;

use futures_util::{FutureExt, StreamExt};
use mx_e2ee::{Decision, VerificationId, VerificationPolicy, VerificationState};

use crate::{
    verification_cast::{Two, code, is_done, settle, state, two, with},
    world::Device,
};

async fn fingerprint(device: &Device) -> String {
    device.client.key_status().await.unwrap().ed25519
}

async fn master(device: &Device) -> String {
    let mut query = ruma::api::client::keys::get_keys::v3::Request::new();
    let user = device.client.user_id().to_owned();
    query.device_keys.insert(user.clone(), Vec::new());
    let answer = device.client.homeserver().send(query).await.unwrap();
    let key: serde_json::Value = serde_json::from_str(answer.master_keys[&user].json().get()).unwrap();
    let mut keys = key["keys"].as_object().unwrap().values();
    keys.next().unwrap().as_str().unwrap().to_owned()
}

/// Bob asks alice, who answers by this policy; he starts and confirms. Returns what each calls it, bob first.
async fn attended_by(two: &Two, policy: VerificationPolicy) -> (VerificationId, Option<VerificationId>) {
    let alice = &two.alice.client;
    let asking = two.bob.client.orchestrator();
    let asked = asking.verify_device(alice.user_id(), alice.device_id()).await.unwrap();
    settle(&[&two.alice]).await;
    let answered = with(&two.alice, two.bob.client.user_id());
    let mut news = pin!(alice.answer_verifications(policy));
    let (mut started, mut confirmed) = (false, false);
    for _ in 0..8 {
        for _ in 0..20 {
            while let Some(item) = news.next().now_or_never() {
                item.unwrap().ok();
            }
            tokio::task::yield_now().await;
        }
        two.settle().await;
        match state(&two.bob, &asked) {
            VerificationState::Ready { .. } if !started => {
                started = true;
                asking.start_sas(&asked).await.unwrap();
            }
            VerificationState::Compare { .. } if !confirmed => {
                confirmed = true;
                asking.confirm_verification(&asked).await.unwrap();
            }
            _ => {}
        }
    }
    (asked, Some(answered))
}

#[tokio::test]
async fn to_be_on_the_list_is_enough_to_be_answered_and_not_to_be_verified() {
    let two = two().await;
    let policy = VerificationPolicy::new().accept_users([two.bob.client.user_id().to_owned()]);
    let (asked, answered) = attended_by(&two, policy).await;
    assert_eq!(
        state(&two.bob, &asked),
        VerificationState::Confirmed,
        "he waits for alice"
    );
    let at = state(&two.alice, &answered.unwrap());
    assert!(matches!(at, VerificationState::Compare { .. }), "{at:?}");
}

#[tokio::test]
async fn the_expected_master_key_confirms() {
    let two = two().await;
    let policy = VerificationPolicy::new()
        .expect(two.bob.client.user_id(), [master(&two.bob).await])
        .unwrap();
    let (asked, answered) = attended_by(&two, policy).await;
    assert!(is_done(&two.bob, &asked), "{:?}", state(&two.bob, &asked));
    assert!(is_done(&two.alice, &answered.unwrap()));
}

#[tokio::test]
async fn a_device_alone_does_not_vouch_for_the_identity_beside_it() {
    let two = two().await;
    let policy = VerificationPolicy::new()
        .expect(two.bob.client.user_id(), [fingerprint(&two.bob).await])
        .unwrap();
    let (asked, answered) = attended_by(&two, policy).await;
    assert_eq!(code(&two.bob, &asked), "m.key_mismatch");
    assert_eq!(code(&two.alice, &answered.unwrap()), "m.key_mismatch");
}

#[tokio::test]
async fn other_keys_than_the_expected_ones_end_it() {
    let two = two().await;
    let other = fingerprint(&two.alice).await;
    let policy = VerificationPolicy::new()
        .expect(two.bob.client.user_id(), [other])
        .unwrap();
    let (asked, _) = attended_by(&two, policy).await;
    assert_eq!(code(&two.bob, &asked), "m.key_mismatch");
}

#[tokio::test]
async fn who_is_not_on_the_list_is_left_alone_or_declined() {
    let two = two().await;
    let (asked, _) = attended_by(&two, VerificationPolicy::new()).await;
    assert_eq!(state(&two.bob, &asked), VerificationState::Requested);
    two.bob.client.orchestrator().cancel_verification(&asked).await.unwrap();
    two.settle().await;
    let (asked, _) = attended_by(&two, VerificationPolicy::new().decline_others()).await;
    assert_eq!(code(&two.bob, &asked), "m.user");
}

#[tokio::test]
async fn a_callback_decides() {
    for (decision, done) in [(Decision::Match, true), (Decision::Mismatch, false)] {
        let two = two().await;
        let policy = VerificationPolicy::new()
            .accept_users([two.bob.client.user_id().to_owned()])
            .decide(move |_, shown| {
                assert!(matches!(shown.state, VerificationState::Compare { .. }));
                async move { decision }.boxed()
            });
        let (asked, answered) = attended_by(&two, policy).await;
        assert_eq!(is_done(&two.bob, &asked), done);
        assert_eq!(is_done(&two.alice, &answered.unwrap()), done);
        if !done {
            assert_eq!(code(&two.bob, &asked), "m.mismatched_sas");
        }
    }
}

#[tokio::test]
async fn the_handle_tells_what_happens_until_the_end() {
    let two = two().await;
    let alice = &two.alice.client;
    let mut requests = pin!(two.bob.client.verification_requests());
    assert!(requests.next().now_or_never().is_none());
    let one = alice.verify_user(two.bob.client.user_id()).await.unwrap();
    let mut changes = pin!(one.changes());
    assert_eq!(changes.next().await, Some(VerificationState::Requested));
    assert!(changes.next().now_or_never().is_none());
    two.settle().await;
    let theirs = requests.next().await.unwrap();
    assert!(requests.next().now_or_never().is_none(), "each once");
    theirs.accept().await.unwrap();
    two.settle().await;
    assert!(matches!(changes.next().await, Some(VerificationState::Ready { .. })));
    assert_eq!(alice.verifications().len(), 1);
    theirs.cancel().await.unwrap();
    two.settle().await;
    assert!(matches!(changes.next().await, Some(VerificationState::Ended(_))));
    assert_eq!(changes.next().await, None);
    assert!(alice.verifications().is_empty());
    let at = one.wait_until(|_| false).await;
    assert!(matches!(at, Some(VerificationState::Ended(_))));
}
