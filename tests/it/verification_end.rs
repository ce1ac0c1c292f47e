//! Verifications that end before anybody confirmed: too late, killed in the middle, or lost with a unit of work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use mx_e2ee::{Clock, Options, VerificationId, VerificationOutcome, VerificationState};
use mx_test_homeserver::Fault;

use crate::{
    verification_cast::{Two, code, ended, has_signed, is_done, settle, state, two, with},
    world::Device,
};

/// Alice with her clock in hand.
async fn with_clock(mut two: Two) -> (Two, Arc<AtomicU64>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let clock = Arc::new(AtomicU64::new(u64::try_from(now).unwrap()));
    let mut options = Options::default();
    let hands = Arc::clone(&clock);
    options.clock = Clock::from_fn(move || hands.load(Ordering::SeqCst));
    two.alice = two.alice.kill_and_open_with(options).await;
    (two, clock)
}

fn pass(clock: &AtomicU64, seconds: u64) {
    clock.fetch_add(seconds * 1000, Ordering::SeqCst);
}

/// `asker` asks the other one's device. Returns what each calls it.
async fn asked(asker: &Device, other: &Device) -> (VerificationId, VerificationId) {
    let id = asker
        .client
        .orchestrator()
        .verify_device(other.client.user_id(), other.client.device_id())
        .await
        .unwrap();
    settle(&[other]).await;
    (id, with(other, asker.client.user_id()))
}

/// Alice asks bob, and the two have something to compare.
async fn comparing(two: &Two) -> (VerificationId, VerificationId) {
    let (asked, answered) = asked(&two.alice, &two.bob).await;
    two.bob
        .client
        .orchestrator()
        .accept_verification(&answered)
        .await
        .unwrap();
    two.settle().await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    assert!(matches!(state(&two.bob, &answered), VerificationState::Compare { .. }));
    (asked, answered)
}

#[tokio::test]
async fn what_nobody_accepts_in_two_minutes_is_let_go_without_a_word() {
    let (two, clock) = with_clock(two().await).await;
    let (asked, answered) = asked(&two.bob, &two.alice).await;
    pass(&clock, 119);
    two.settle().await;
    assert_eq!(state(&two.alice, &answered), VerificationState::Requested);
    pass(&clock, 1);
    two.settle().await;
    assert_eq!(code(&two.alice, &answered), "m.timeout");
    assert_eq!(ended(&two.alice).await.len(), 1);
    assert_eq!(
        state(&two.bob, &asked),
        VerificationState::Requested,
        "another device may accept it"
    );
    let late = two.alice.client.orchestrator().accept_verification(&answered).await;
    assert_eq!(late.unwrap_err().code(), "verification_unknown");
}

#[tokio::test]
async fn after_ten_minutes_it_is_cancelled_on_both_sides() {
    let (two, clock) = with_clock(two().await).await;
    let (asked, answered) = comparing(&two).await;
    pass(&clock, 599);
    two.settle().await;
    assert!(matches!(state(&two.alice, &asked), VerificationState::Compare { .. }));
    pass(&clock, 1);
    two.settle().await;
    assert_eq!(code(&two.alice, &asked), "m.timeout");
    assert_eq!(code(&two.bob, &answered), "m.timeout");
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_cancels_it_when_it_is_back() {
    for confirm in [false, true] {
        let mut two = two().await;
        let (asked, answered) = comparing(&two).await;
        if confirm {
            two.alice
                .client
                .orchestrator()
                .confirm_verification(&asked)
                .await
                .unwrap();
        }
        two.alice = two.alice.kill_and_open().await;
        two.alice.client.sync().await.unwrap();
        assert_eq!(code(&two.alice, &asked), "m.unknown_transaction", "{confirm}");
        two.settle().await;
        assert_eq!(code(&two.bob, &answered), "m.unknown_transaction");
        let told = ended(&two.alice).await;
        assert_eq!(told.len(), 1);
        assert!(matches!(
            &told[0].outcome,
            VerificationOutcome::Cancelled { by_us: true, .. }
        ));
        assert!(!has_signed(&two.alice, two.bob.client.user_id()).await);
        assert!(!has_signed(&two.bob, two.alice.client.user_id()).await);
        let trust = two.alice.client.device_trust(two.bob.client.user_id()).await.unwrap();
        assert!(trust.is_empty());
        two.alice = two.alice.kill_and_open().await;
        two.settle().await;
        assert!(ended(&two.alice).await.is_empty(), "told once");
    }
}

#[tokio::test]
async fn the_last_word_survives_a_second_kill() {
    let mut two = two().await;
    let (_, answered) = comparing(&two).await;
    two.alice = two.alice.kill_and_open().await;
    let cancel = "/sendToDevice/m.key.verification.cancel";
    two.server.fault(Fault::drop_before(cancel).for_ever());
    two.alice.client.sync().await.unwrap();
    two.alice = two.alice.kill_and_open().await;
    two.server.behave();
    assert!(!matches!(state(&two.bob, &answered), VerificationState::Ended(_)));
    two.settle().await;
    assert_eq!(code(&two.bob, &answered), "m.unknown_transaction");
}

#[tokio::test]
async fn an_error_that_costs_the_engine_its_memory_is_told_on_both_sides() {
    let two = two().await;
    let (asked, answered) = comparing(&two).await;
    let bob = &two.bob.client;
    let alice = two.alice.client.orchestrator();
    let wrong = alice.trust_device(bob.user_id(), bob.device_id(), "not this one").await;
    assert_eq!(wrong.unwrap_err().code(), "fingerprint_mismatch");
    let late = alice.confirm_verification(&asked).await;
    assert!(late.is_err(), "what was compared is gone");
    two.settle().await;
    assert_eq!(code(&two.alice, &asked), "m.unknown_transaction");
    assert_eq!(code(&two.bob, &answered), "m.unknown_transaction");
    assert!(!is_done(&two.alice, &asked));
    // And a new one begins.
    let (again, _) = comparing(&two).await;
    assert!(matches!(state(&two.alice, &again), VerificationState::Compare { .. }));
}

#[tokio::test]
async fn signatures_that_do_not_arrive_are_brought_by_the_next_process() {
    let mut two = two().await;
    let (asked, answered) = comparing(&two).await;
    two.server
        .fault(Fault::drop_before("/keys/signatures/upload").for_ever());
    two.alice
        .client
        .orchestrator()
        .confirm_verification(&asked)
        .await
        .unwrap();
    two.bob
        .client
        .orchestrator()
        .confirm_verification(&answered)
        .await
        .unwrap();
    two.settle().await;
    assert!(is_done(&two.alice, &asked));
    assert!(!has_signed(&two.alice, two.bob.client.user_id()).await);
    two.alice = two.alice.kill_and_open().await;
    two.server.behave();
    two.settle().await;
    assert!(has_signed(&two.alice, two.bob.client.user_id()).await);
    assert!(has_signed(&two.bob, two.alice.client.user_id()).await);
}
