//! When a room gets a new key, why, and when it does not. Rows SN-08, SN-09, SN-12, SN-13, SN-16 to SN-20 of the catalogue.

use mx_e2ee::{DeviceOutcome, RotationReason, SendReceipt};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    keys_cast::{Cast, outcomes},
    send_state::set_state,
};

const WEEK_S: u64 = 7 * 24 * 3600;

/// Another user in the room, who is given the key with the next message.
pub(crate) async fn joined(cast: &Cast, name: &str) -> EvilPeer {
    let mut peer = EvilPeer::new(&cast.server, name, &format!("{}DEV", name.to_uppercase()));
    peer.publish();
    cast.room.invite(peer.user()).await.unwrap();
    peer.join(cast.room.id());
    cast.sync().await;
    peer
}

fn moderate(cast: &Cast, what: &str, user: &UserId) {
    let path = format!("/rooms/{}/{what}", cast.room.id());
    cast.bob.ask("POST", &path, &json!({"user_id": user}));
}

pub(crate) fn leave(cast: &Cast, peer: &EvilPeer) {
    peer.ask("POST", &format!("/rooms/{}/leave", cast.room.id()), &json!({}));
}

pub(crate) fn outcome_of(receipt: &SendReceipt, device: &str) -> Option<DeviceOutcome> {
    let found = outcomes(receipt).into_iter().find(|(id, _)| id == device);
    found.map(|(_, outcome)| outcome)
}

#[tokio::test]
async fn sn_08_a_key_ends_with_its_last_message() {
    for limit in [5, 100] {
        let cast = Cast::fresh().await;
        let mut bob = cast.bob.clone();
        bob.publish();
        let content = json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": limit});
        set_state(&cast, "m.room.encryption", "", &content);
        cast.sync().await;
        let first = cast.send("1").await;
        assert_eq!(first.rotation, Some(RotationReason::FirstKey));
        for number in 2..=limit {
            let receipt = cast.send(&number.to_string()).await;
            assert_eq!(
                (receipt.rotation, &receipt.session_id),
                (None, &first.session_id),
                "{number}"
            );
        }
        let mark = cast.mark().await;
        let next = cast.send("the first of the next").await;
        assert_eq!(next.rotation, Some(RotationReason::Messages));
        assert_eq!(
            cast.room_key().await,
            Some((next.session_id.clone(), 1)),
            "index 0 was used"
        );
        let puts: Vec<String> = cast
            .requests(&mark, "PUT", "")
            .into_iter()
            .map(|exchange| exchange.path)
            .collect();
        assert_eq!(puts.len(), 2);
        assert!(
            puts[0].contains("/sendToDevice/") && puts[1].contains("/send/m.room.encrypted/"),
            "{puts:?}"
        );
        assert_eq!(outcome_of(&next, "BDEV"), Some(DeviceOutcome::Reached));
        bob.receive();
        assert_eq!(bob.reads_from(&next.session_id), Some(0));
    }
}

#[tokio::test]
async fn sn_09_a_key_ends_with_its_time_and_a_clock_that_jumps_costs_one_key() {
    let cast = Cast::acquainted().await;
    cast.pass(WEEK_S - 1);
    assert_eq!(cast.send("a second before").await.rotation, None);
    cast.pass(1);
    assert_eq!(cast.send("a week").await.rotation, Some(RotationReason::Time));
    assert_eq!(cast.send("again").await.rotation, None);
    for jump_s in [-86_400_i64, -30 * 365 * 86_400, 100 * 365 * 86_400, -100 * 365 * 86_400] {
        let before = cast.clock.load(std::sync::atomic::Ordering::SeqCst);
        let after = before.saturating_add_signed(jump_s * 1000);
        cast.clock.store(after, std::sync::atomic::Ordering::SeqCst);
        let rotations: Vec<_> = [cast.send("1").await, cast.send("2").await, cast.send("3").await]
            .iter()
            .map(|receipt| receipt.rotation)
            .collect();
        let expected = (jump_s.unsigned_abs() >= WEEK_S).then_some(RotationReason::Time);
        assert_eq!(rotations, [expected, None, None], "{jump_s}");
    }
}

#[tokio::test]
async fn sn_12_who_leaves_is_put_out_or_banned_reads_nothing_after() {
    for how in ["leave", "kick", "ban"] {
        let cast = Cast::acquainted().await;
        let mut carol = joined(&cast, "carol").await;
        let both = cast.send("to both").await;
        assert_eq!((both.rotation, both.readable_by()), (None, 2));
        if how == "leave" {
            leave(&cast, &carol);
        } else {
            moderate(&cast, how, carol.user());
        }
        cast.sync().await;
        let after = cast.send("to bob").await;
        assert_eq!(after.rotation, Some(RotationReason::MemberLeft), "{how}");
        assert_ne!(after.session_id, both.session_id);
        assert_eq!(outcomes(&after), [("BDEV".to_owned(), DeviceOutcome::Reached)]);
        assert_eq!(cast.read_by(&mut carol), ["to both"]);
        assert_eq!(carol.reads_from(&after.session_id), None);
        assert_eq!(cast.send("again").await.rotation, None, "once is enough");
    }
}

#[tokio::test]
async fn sn_13_who_leaves_and_comes_back_cannot_read_what_was_said_meanwhile() {
    // Between two syncs; and inside a gap that is filled, or stays.
    for (between, fillable, reason) in [
        (0, true, RotationReason::Rejoined),
        (120, true, RotationReason::Rejoined),
        (120, false, RotationReason::EventsMissed),
    ] {
        let mut cast = Cast::acquainted().await;
        let carol = joined(&cast, "carol").await;
        let before = cast.send("to both").await;
        leave(&cast, &carol);
        cast.room.invite(carol.user()).await.unwrap();
        carol.join(cast.room.id());
        let room = cast.room.id().to_owned();
        for number in 0..between {
            let text = json!({"msgtype": "m.notice", "body": number.to_string()});
            cast.bob.send_event(&room, "org.example.note", &text);
        }
        if !fillable {
            let refusal = r#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
            cast.server.fault(Fault::status("/messages", 403, refusal).for_ever());
        }
        cast.sync().await;
        let after = cast.send("both are here").await;
        assert_eq!(after.rotation, Some(reason), "{between}, {fillable}");
        assert_ne!(after.session_id, before.session_id);
        assert_eq!(after.readable_by(), 2);
        assert_eq!(
            after.recipients_added,
            Vec::<ruma::OwnedUserId>::new(),
            "the same people"
        );
        assert_eq!(cast.send("again").await.rotation, None);
    }
}

#[tokio::test]
async fn sn_13_we_ourselves_leave_and_come_back() {
    let cast = Cast::acquainted().await;
    let before = cast.send("before").await;
    cast.room.leave().await.unwrap();
    cast.sync().await;
    assert_eq!(cast.refused().await.code(), "not_in_room");
    moderate(&cast, "invite", cast.alice.user_id());
    cast.alice.join(cast.room.id().as_str()).await.unwrap();
    cast.sync().await;
    let after = cast.send("after").await;
    assert_eq!(after.rotation, Some(RotationReason::OwnRejoined));
    assert_ne!(after.session_id, before.session_id);
}

#[tokio::test]
async fn sn_16_a_device_that_was_removed_reads_nothing_after() {
    let cast = Cast::acquainted().await;
    let mut second = EvilPeer::new(&cast.server, "bob", "BOLD");
    second.publish();
    cast.sync().await;
    let both = cast.send("to both devices").await;
    assert_eq!(both.readable_by(), 2);
    let mut memory = second.clone();
    memory.receive();
    cast.server.delete_device(second.user(), second.device());
    cast.sync().await;
    let after = cast.send("to one").await;
    assert_eq!(after.rotation, Some(RotationReason::DeviceRemoved));
    assert_eq!(outcomes(&after), [("BDEV".to_owned(), DeviceOutcome::Reached)]);
    assert_eq!(memory.reads_from(&both.session_id), Some(1));
    let event = cast.server.timeline(cast.room.id()).pop().unwrap();
    assert!(memory.decrypt_event(&event).is_none());
    assert_eq!(cast.send("again").await.rotation, None);
}

#[tokio::test]
async fn sn_17_a_new_device_is_given_the_key_from_here_on() {
    let mut cast = Cast::acquainted().await;
    let before = cast.send("before").await;
    let mut second = EvilPeer::new(&cast.server, "bob", "BNEW");
    second.publish();
    cast.sync().await;
    let after = cast.send("after").await;
    assert_eq!((after.rotation, &after.session_id), (None, &before.session_id));
    let (bdev, bnew) = (outcome_of(&after, "BDEV"), outcome_of(&after, "BNEW"));
    assert_eq!(
        (bdev, bnew),
        (Some(DeviceOutcome::AlreadyHad), Some(DeviceOutcome::Reached))
    );
    assert_eq!(
        json!(after.new_devices),
        json!([{"user_id": "@bob:localhost", "device_id": "BNEW"}])
    );
    assert_eq!(cast.read_by(&mut second), ["after"]);
    assert_eq!(
        second.reads_from(&after.session_id),
        Some(2),
        "the index of this message"
    );
    let mut first = std::mem::replace(&mut cast.bob, second);
    assert_eq!(cast.read_by(&mut first), ["hello", "before", "after"]);
    let next = cast.send("next").await;
    assert!(next.new_devices.is_empty() && next.rotation.is_none(), "it is new once");
}

/// What a device was told without encryption since it last looked.
fn withheld(peer: &mut EvilPeer) -> Vec<(String, String)> {
    let received = peer.receive().into_iter().map(|received| received.event);
    received
        .filter(|event| event["type"] == "m.room_key.withheld")
        .map(|event| {
            let text = |name: &str| event["content"][name].as_str().unwrap_or_default().to_owned();
            (text("code"), text("session_id"))
        })
        .collect()
}

#[tokio::test]
async fn sn_18_a_device_that_is_blocked_reads_nothing_after_and_is_told() {
    let cast = Cast::acquainted().await;
    let mut stolen = EvilPeer::new(&cast.server, "bob", "STOLEN");
    stolen.publish();
    cast.sync().await;
    cast.send("to both").await;
    stolen.receive();
    cast.alice.block_device(stolen.user(), stolen.device()).await.unwrap();
    let blocked = DeviceOutcome::Withheld {
        code: "m.blacklisted".to_owned(),
    };
    let after = cast.send("to one").await;
    assert_eq!(after.rotation, Some(RotationReason::DeviceBlocked));
    assert_eq!(outcome_of(&after, "STOLEN"), Some(blocked.clone()));
    assert_eq!(outcome_of(&after, "BDEV"), Some(DeviceOutcome::Reached));
    let told = ("m.blacklisted".to_owned(), after.session_id.clone());
    assert_eq!(withheld(&mut stolen), [told]);
    assert_eq!(stolen.reads_from(&after.session_id), None);

    // It is remembered, and a homeserver that hides the device for a moment does not unblock it.
    let cast = cast.reopen().await;
    assert_eq!(
        outcome_of(&cast.send("after a restart").await, "STOLEN"),
        Some(blocked.clone())
    );
    cast.rewrite("/keys/query", |body| {
        if let Some(devices) = body
            .pointer_mut("/device_keys/@bob:localhost")
            .and_then(Value::as_object_mut)
        {
            devices.remove("STOLEN");
        }
    });
    changed(&cast).await;
    assert_eq!(outcome_of(&cast.send("hidden").await, "STOLEN"), None);
    cast.server.behave();
    changed(&cast).await;
    let shown = cast.send("shown again").await;
    assert_eq!(outcome_of(&shown, "STOLEN"), Some(blocked));

    // Unblocked, it reads from here on.
    cast.alice.unblock_device(stolen.user(), stolen.device()).await.unwrap();
    let trusted = cast.send("to both again").await;
    assert_eq!(trusted.rotation, None);
    assert_eq!(outcome_of(&trusted, "STOLEN"), Some(DeviceOutcome::Reached));
    assert_eq!(cast.read_by(&mut stolen), ["to both", "to both again"]);
}

/// Alice is told that bob's devices changed, and looks at them.
async fn changed(cast: &Cast) {
    let mut another = EvilPeer::new(&cast.server, "bob", "PASSING");
    another.publish();
    cast.server.delete_device(another.user(), another.device());
    cast.sync().await;
}

#[tokio::test]
async fn sn_19_names_powers_and_other_rooms_cost_no_key() {
    let cast = Cast::acquainted().await;
    let first = cast.send("first").await;
    let other = cast
        .alice
        .create_room(None, &[cast.bob.user().to_owned()])
        .await
        .unwrap();
    cast.bob.join(other.id());
    let bob = cast.bob.user().to_string();
    for (event_type, key, content) in [
        (
            "m.room.member",
            bob.as_str(),
            json!({"membership": "join", "displayname": "Robert"}),
        ),
        (
            "m.room.member",
            bob.as_str(),
            json!({"membership": "join", "avatar_url": "mxc://localhost/x"}),
        ),
        ("m.room.power_levels", "", json!({"users": {"@bob:localhost": 50}})),
        ("m.room.name", "", json!({"name": "another"})),
        ("m.room.topic", "", json!({"topic": "another"})),
        ("m.room.history_visibility", "", json!({"history_visibility": "shared"})),
        ("org.example.state", "key", json!({})),
    ] {
        set_state(&cast, event_type, key, &content);
        cast.sync().await;
        let receipt = cast.send("the same").await;
        assert_eq!(
            (receipt.rotation, &receipt.session_id),
            (None, &first.session_id),
            "{event_type}"
        );
        assert!(receipt.recipients_added.is_empty() && receipt.new_devices.is_empty());
    }
    cast.bob
        .ask("POST", &format!("/rooms/{}/leave", other.id()), &json!({}));
    cast.sync().await;
    assert_eq!(cast.send("the same").await.session_id, first.session_id);
}

#[tokio::test]
async fn sn_20_a_restart_costs_no_key_and_no_index() {
    let cast = Cast::acquainted().await;
    let before = cast.send("before").await;
    let cast = cast.reopen().await;
    let mark = cast.mark().await;
    let after = cast.send("after").await;
    assert_eq!((after.rotation, &after.session_id), (None, &before.session_id));
    assert_eq!(outcomes(&after), [("BDEV".to_owned(), DeviceOutcome::AlreadyHad)]);
    assert_eq!(
        cast.requests(&mark, "PUT", "/sendToDevice/").len(),
        0,
        "nobody needs a new key"
    );
    assert_eq!(cast.room_key().await, Some((after.session_id, 3)));
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["hello", "before", "after"]);
}
