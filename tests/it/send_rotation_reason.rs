//! A new key by hand or after an import, and a reason that outlives a send that failed.

use mx_e2ee::{DeviceOutcome, RotationReason};
use mx_test_homeserver::Fault;

use crate::{
    keys_cast::{Cast, outcomes},
    send_rotation::{joined, leave},
};

#[tokio::test]
async fn a_key_is_renewed_by_hand_and_the_receipt_says_so() {
    let cast = Cast::fresh().await;
    assert!(!cast.room.rotate_key().await.unwrap(), "there is none yet");
    let mut bob = cast.bob.clone();
    bob.publish();
    cast.sync().await;
    let first = cast.send("one").await;
    assert_eq!(first.rotation, Some(RotationReason::FirstKey));
    assert!(cast.room.rotate_key().await.unwrap());
    let cast = cast.reopen().await;
    let second = cast.send("two").await;
    assert_eq!(second.rotation, Some(RotationReason::ByHand));
    assert_ne!(second.session_id, first.session_id);
    assert_eq!(cast.send("three").await.rotation, None);
}

#[tokio::test]
async fn an_import_begins_a_new_key_and_the_receipt_says_why() {
    let cast = Cast::acquainted().await;
    let before = cast.send("before").await;
    let cast = cast.imported().await;
    let after = cast.send("after").await;
    assert_eq!(after.rotation, Some(RotationReason::SessionLost));
    assert_ne!(after.session_id, before.session_id);
    assert_eq!(cast.send("again").await.rotation, None);
}

#[tokio::test]
async fn a_reason_outlives_a_send_that_failed() {
    let cast = Cast::acquainted().await;
    let carol = joined(&cast, "carol").await;
    cast.send("to both").await;
    leave(&cast, &carol);
    cast.sync().await;
    cast.server.fault(Fault::status("/sendToDevice/", 500, "{}"));
    let error = cast
        .server
        .say(&cast.room, "the key is not delivered")
        .await
        .unwrap_err();
    assert_eq!(error.code(), "key_share_incomplete");
    let receipt = cast.send("now").await;
    assert_eq!(
        receipt.rotation,
        Some(RotationReason::MemberLeft),
        "it is the first message of that key"
    );
    assert_eq!(outcomes(&receipt), [("BDEV".to_owned(), DeviceOutcome::Reached)]);
}
