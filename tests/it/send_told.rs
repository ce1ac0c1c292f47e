//! What a sender is told, when some hear nothing: what is new reaches somebody, and what fails for all fails once.

use futures_util::future::join_all;
use mx_e2ee::{DeviceOutcome, RotationReason};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::user_id;

use crate::{
    keys_cast::Cast,
    send_rotation::{joined, outcome_of},
};

/// A homeserver that takes the first event with a stranger and does not say so would else hide the stranger from every
/// receipt.
#[tokio::test]
async fn sn_24_what_is_new_is_told_by_the_first_receipt_that_reaches_somebody() {
    let cast = Cast::acquainted().await;
    let _evil = joined(&cast, "evil").await;
    cast.server
        .fault(Fault::status("/send/m.room.encrypted/", 504, "<html>").times(2));
    let error = cast.server.say(&cast.room, "nobody hears").await.unwrap_err();
    assert_eq!(error.code(), "send_pending");
    cast.server.behave();
    let receipt = cast.send("the first that is heard").await;
    assert_eq!(receipt.recipients_added, [user_id!("@evil:localhost")]);
    let receipt = cast.send("the second").await;
    assert!(receipt.recipients_added.is_empty());
    // The same with a key that is new.
    cast.room.rotate_key().await.unwrap();
    cast.server.fault(Fault::status(
        "/send/m.room.encrypted/",
        403,
        r#"{"errcode":"M_FORBIDDEN","error":"no"}"#,
    ));
    let error = cast.server.say(&cast.room, "refused for good").await.unwrap_err();
    assert_eq!(error.code(), "forbidden");
    let receipt = cast.send("with the new key").await;
    assert_eq!(receipt.rotation, Some(RotationReason::ByHand));
    assert_eq!(cast.send("again").await.rotation, None);
}

/// A device had no one-time key, and being told so failed; then it has one. Were the engine to hear last that nothing was
/// given, it would not make a new key when the device is blocked.
#[tokio::test]
async fn sn_18_a_device_that_was_first_told_that_it_gets_no_key_is_shut_out_when_it_is_blocked() {
    for _ in 0..8 {
        let cast = Cast::acquainted().await;
        let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
        carol.publish();
        cast.server.exhaust_keys(carol.user(), carol.device());
        cast.room.invite(carol.user()).await.unwrap();
        carol.join(cast.room.id());
        cast.sync().await;
        cast.server
            .fault(Fault::status("/sendToDevice/m.room_key.withheld/", 500, "{}"));
        let error = cast.server.say(&cast.room, "not sent").await.unwrap_err();
        assert_eq!(error.code(), "key_share_incomplete");
        carol.publish();
        cast.pass(3_600);
        let mark = cast.mark().await;
        let receipt = cast.send("with carol").await;
        let outcome = outcome_of(&receipt, "CDEV");
        assert!(
            matches!(outcome, Some(DeviceOutcome::Reached | DeviceOutcome::AlreadyHad)),
            "{outcome:?}"
        );
        let order: Vec<bool> = cast
            .requests(&mark, "PUT", "/sendToDevice/")
            .iter()
            .map(|request| request.path.contains("withheld"))
            .collect();
        assert!(order.is_sorted_by(|before, after| before >= after), "{order:?}");
        cast.room
            .client()
            .block_device(carol.user(), carol.device())
            .await
            .unwrap();
        let receipt = cast.send("without carol").await;
        assert_eq!(receipt.rotation, Some(RotationReason::DeviceBlocked));
        assert_eq!(cast.read_by(&mut carol), ["with carol"]);
    }
}

#[tokio::test]
async fn what_fails_for_all_that_wait_is_asked_once_and_told_to_all() {
    let cast = Cast::acquainted().await.reopen().await;
    cast.server.fault(Fault::status("/members", 502, "<html>").for_ever());
    let mark = cast.mark().await;
    let sends = (0..20).map(|number| {
        cast.server
            .say(&cast.room, if number % 2 == 0 { "even" } else { "odd" })
    });
    for sent in join_all(sends).await {
        assert_eq!(sent.unwrap_err().code(), "members_incomplete");
    }
    let asked = cast.requests(&mark, "GET", "/members").len();
    assert!((1..=2).contains(&asked), "the list was asked for {asked} times");
    cast.assert_refused(&mark).await;
    cast.server.behave();
    assert_eq!(cast.send("now").await.readable_by(), 1);
}
