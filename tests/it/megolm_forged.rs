//! Room events that are replayed, moved, forged or broken: rows MG of the catalogue about what must not be believed.

use mx_e2ee::{Event, RejectedReason, Trust, UndecryptableReason};
use mx_test_homeserver::{EvilPeer, peer};
use serde_json::{Value, json};

use crate::{
    edits::edit_timelines,
    evil::{Evil, evil, messages, rejected, text},
};

fn reasons(events: &[Event]) -> Vec<&UndecryptableReason> {
    events
        .iter()
        .filter_map(|event| {
            if let Event::Undecryptable(event) = event {
                Some(&event.reason)
            } else {
                None
            }
        })
        .collect()
}

#[tokio::test]
async fn mg_01_a_message_is_delivered_with_its_origin() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "honest"));
    let id = evil.put(&content);
    let events = evil.alice.events().await;
    let [message] = messages(&events)[..] else {
        panic!("{events:?}")
    };
    let sent = evil.server.timeline(evil.room.id()).pop().unwrap();
    assert_eq!(message.event_id, id);
    assert_eq!(message.room_id, evil.room.id());
    assert_eq!(message.sender, evil.bob.user());
    assert_eq!(sent["origin_server_ts"], message.origin_server_ts);
    assert_eq!(message.body(), Some("honest"));
    let encryption = message.encryption.as_ref().unwrap();
    assert_eq!(encryption.sender_device.as_deref(), Some(evil.bob.device()));
    assert_eq!(encryption.session_id, session.session_id());
    assert_eq!((encryption.trust, encryption.waited_ms), (Trust::Unsigned, None));
    assert!(!message.plaintext_in_encrypted_room);
}

#[tokio::test]
async fn mg_08_a_ciphertext_of_another_room_is_never_opened() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let invited = [evil.bob.user().to_owned()];
    let other = evil.alice.client.create_room(None, &invited).await.unwrap();
    evil.bob.join(other.id());
    evil.bodies().await;
    let content = session.encrypt(text(&session, "for the first room"));
    evil.bob.send_event(other.id(), "m.room.encrypted", &content);
    assert!(evil.alice.events().await.is_empty());
    let waiting = evil.alice.client.waiting(0, 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (&waiting[0].reason, waiting[0].room_id.as_ref()),
        (&UndecryptableReason::MissingRoomKey, other.id())
    );
    // The sibling: the payload names another room than the session's.
    let mut payload = session.payload("m.room.message", json!({"msgtype": "m.text", "body": "moved"}));
    payload["room_id"] = other.id().as_str().into();
    let content = session.encrypt(payload.to_string());
    evil.put(&content);
    let events = evil.alice.events().await;
    assert!(messages(&events).is_empty(), "{events:?}");
    assert_eq!(reasons(&events).len(), 1, "{events:?}");
}

#[tokio::test]
async fn mg_10_a_payload_that_is_no_event_is_broken_and_its_index_is_used() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let room = evil.room.id().to_owned();
    let payloads = [
        json!({"type": "m.room.message", "content": {"body": "no room"}}).to_string(),
        json!({"room_id": room, "content": {"body": "no type"}}).to_string(),
        json!({"room_id": room, "type": "m.room.message"}).to_string(),
        json!({"room_id": room, "type": "m.room.message", "content": "text"}).to_string(),
        json!([1, 2]).to_string(),
        json!("a string").to_string(),
        "not json".to_owned(),
        String::new(),
        r#"{"type":"m.room.message","content":{"body":"\ud800"}}"#.to_owned(),
    ];
    for payload in &payloads {
        let content = session.encrypt(payload);
        evil.put(&content);
        let events = evil.alice.events().await;
        assert_eq!((events.len(), reasons(&events).len()), (1, 1), "{payload}: {events:?}");
        assert!(!reasons(&events)[0].may_still_come(), "{payload}");
        evil.put(&content);
        let events = evil.alice.events().await;
        assert!(messages(&events).is_empty(), "{payload}");
        assert_eq!(events.len(), 1, "{payload}: {events:?}");
    }
    let content = session.encrypt(text(&session, "good"));
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["good"]);
}

#[tokio::test]
async fn mg_11_a_message_in_another_members_name_is_rejected_and_says_whose_it_is() {
    let mut evil = evil().await;
    let mut carol = EvilPeer::new(&evil.server, "carol", "CDEV");
    carol.publish();
    evil.room.invite(carol.user()).await.unwrap();
    carol.join(evil.room.id());
    evil.bodies().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "not carol's"));
    let id = carol.send_event(evil.room.id(), "m.room.encrypted", &content);
    let events = evil.alice.events().await;
    let [Event::Rejected(rejected)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (&rejected.event_id.to_string(), rejected.sender.as_ref()),
        (&id, carol.user())
    );
    let owner = Some(evil.bob.user().to_owned());
    assert_eq!(rejected.reason, RejectedReason::SenderMismatch { owner });
}

#[tokio::test]
async fn mg_12_no_flipped_bit_is_taken_and_the_true_event_is() {
    let mut evil = evil().await;
    let mut session = evil.session();
    evil.bodies().await;
    let content = session.encrypt(text(&session, "x"));
    let ciphertext = content["ciphertext"].as_str().unwrap().to_owned();
    let bits = 8 * vodozemac::base64_decode(&ciphertext).unwrap().len();
    for bit in 0..bits {
        let mut forged = content.clone();
        forged["ciphertext"] = peer::flip_bit(&ciphertext, bit).into();
        let bob = evil.bob.user().to_owned();
        evil.server.inject(evil.room.id(), &bob, "m.room.encrypted", forged);
        if bit % 90 == 89 || bit + 1 == bits {
            let events = evil.alice.events().await;
            assert!(
                messages(&events).is_empty() && rejected(&events).is_empty(),
                "before bit {bit}"
            );
            let broken = |reason: &&UndecryptableReason| {
                matches!(
                    reason,
                    UndecryptableReason::BadCiphertext | UndecryptableReason::Malformed
                )
            };
            assert_eq!(
                reasons(&events).iter().copied().filter(broken).count(),
                events.len(),
                "before bit {bit}"
            );
            assert_eq!(events.len(), bit % 90 + 1);
        }
    }
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["x"], "nothing forged used its place");
}

#[tokio::test]
async fn mg_13_cut_empty_and_huge_ciphertexts_are_malformed() {
    let mut evil = evil().await;
    let mut session = evil.session();
    evil.bodies().await;
    let content = session.encrypt(text(&session, "x"));
    let ciphertext = content["ciphertext"].as_str().unwrap().to_owned();
    let bytes = vodozemac::base64_decode(&ciphertext).unwrap();
    let mut version = bytes.clone();
    version[0] = 4;
    let mut wrong = vec![
        String::new(),
        "AwgA".to_owned(),
        "%%%".to_owned(),
        "A".repeat(2 * 1024 * 1024),
        vodozemac::base64_encode(version),
    ];
    wrong.extend((1..bytes.len()).map(|length| vodozemac::base64_encode(&bytes[..length])));
    let count = wrong.len();
    for (place, ciphertext) in wrong.into_iter().enumerate() {
        let mut forged = content.clone();
        forged["ciphertext"] = ciphertext.into();
        let bob = evil.bob.user().to_owned();
        evil.server.inject(evil.room.id(), &bob, "m.room.encrypted", forged);
        if place % 90 == 89 || place + 1 == count {
            let events = evil.alice.events().await;
            assert_eq!((events.len(), reasons(&events).len()), (place % 90 + 1, place % 90 + 1));
        }
    }
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["x"]);
}

#[tokio::test]
async fn mg_14_and_16_a_message_far_ahead_in_its_session_is_opened() {
    for index in [50_000, u32::MAX - 1] {
        let mut evil = evil().await;
        let mut session = evil.session();
        let content = session.encrypt(text(&session, "zero"));
        evil.put(&content);
        session.go_to(index);
        let content = session.encrypt(text(&session, "far ahead"));
        evil.put(&content);
        assert_eq!(evil.bodies().await, ["zero", "far ahead"], "index {index}");
    }
}

#[tokio::test]
async fn mg_16_a_gap_of_fifty_thousand_messages_is_jumped() {
    let mut evil = evil().await;
    let mut session = evil.session();
    session.go_to(50_000);
    let content = session.encrypt(text(&session, "far ahead"));
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["far ahead"]);
}

#[tokio::test]
async fn mg_24_state_inside_an_encrypted_event_changes_nothing() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let before = evil.room.send_text("before").await.unwrap();
    let leave = json!({"membership": "leave"});
    let mut payloads = vec![
        session.payload("m.room.member", leave),
        session.payload(
            "m.room.encryption",
            json!({"algorithm": "none", "rotation_period_msgs": 1}),
        ),
        session.payload("m.room.power_levels", json!({"users_default": 100})),
        session.payload("org.example.keyed", json!({})),
    ];
    for payload in &mut payloads {
        payload["state_key"] = evil.alice.client.user_id().as_str().into();
    }
    payloads.push(session.payload("m.room.encryption", json!({"algorithm": "none"})));
    payloads.push(session.payload("m.room.encrypted", json!({"algorithm": "m.megolm.v1.aes-sha2"})));
    let count = payloads.len();
    for payload in payloads {
        let content = session.encrypt(payload.to_string());
        evil.put(&content);
    }
    let events = evil.alice.events().await;
    assert_eq!(rejected(&events).len(), count, "{events:?}");
    assert_eq!(events.len(), count);
    assert_eq!(rejected(&events)[count - 1].reason, RejectedReason::NestedEncryption);
    assert!(evil.room.is_encrypted().await.unwrap());
    let after = evil.room.send_text("after").await.unwrap();
    assert_eq!(
        after.session_id, before.session_id,
        "nobody left and no rotation was set"
    );
}

#[tokio::test]
async fn mg_26_what_an_event_relates_to_is_what_its_outside_says() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let inner = json!({"rel_type": "m.replace", "event_id": "$inner"});
    let payload = session.payload(
        "m.room.message",
        json!({"msgtype": "m.text", "body": "* edit", "m.relates_to": inner}),
    );
    let mut content = session.encrypt(payload.to_string());
    content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": "$outer"});
    evil.put(&content);
    let events = evil.alice.events().await;
    assert_eq!(messages(&events)[0].content["m.relates_to"]["event_id"], "$outer");
}

#[tokio::test]
async fn mg_28_unknown_algorithms_and_wrong_shapes_are_named() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let good = session.encrypt(text(&session, "x"));
    let with = |field: &str, value: Value| {
        let mut content = good.clone();
        content[field] = value;
        content
    };
    let unsupported = [
        with("algorithm", json!("org.evil.none")),
        with("algorithm", json!("m.olm.v1.curve25519-aes-sha2")),
        with("algorithm", json!("m.megolm.v2.aes-sha2")),
    ];
    let malformed = [
        with("algorithm", Value::Null),
        with("algorithm", json!(7)),
        with("ciphertext", json!({"key": {"type": 0, "body": "x"}})),
        with("ciphertext", Value::Null),
        with("session_id", Value::Null),
        json!({}),
    ];
    for content in unsupported.iter().chain(&malformed) {
        evil.put(content);
    }
    let events = evil.alice.events().await;
    let reasons = reasons(&events);
    assert_eq!(reasons.len(), unsupported.len() + malformed.len(), "{events:?}");
    for (content, reason) in unsupported.iter().zip(&reasons) {
        let algorithm = content["algorithm"].as_str().unwrap().to_owned();
        assert_eq!(**reason, UndecryptableReason::UnsupportedAlgorithm { algorithm });
    }
    for (content, reason) in malformed.iter().zip(&reasons[unsupported.len()..]) {
        assert_eq!(**reason, UndecryptableReason::Malformed, "{content}");
    }
}

#[tokio::test]
async fn mg_29_the_deprecated_fields_outside_prove_nothing() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let mut content = session.encrypt(text(&session, "honest"));
    content["device_id"] = "FORGED".into();
    content["sender_key"] = "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw".into();
    evil.put(&content);
    let events = evil.alice.events().await;
    for message in messages(&events) {
        let encryption = message.encryption.as_ref().unwrap();
        assert_eq!(encryption.sender_device.as_deref(), Some(evil.bob.device()));
    }
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn mg_33_times_that_are_none_stop_nothing() {
    for time in [
        json!(0),
        json!(1_u64 << 53),
        json!(-1),
        json!("yesterday"),
        json!(1.5),
        Value::Null,
    ] {
        let mut evil = evil().await;
        let mut session = evil.session();
        let content = session.encrypt(text(&session, "when?"));
        evil.put(&content);
        let odd = time.clone();
        edit_timelines(&evil.server, move |event| event["origin_server_ts"] = odd.clone());
        let events = evil.alice.events().await;
        let read: Vec<_> = messages(&events)
            .into_iter()
            .filter(|message| message.body() == Some("when?"))
            .collect();
        assert_eq!(read.len(), 1, "{time}: {events:?}");
        assert_eq!(read[0].origin_server_ts, 0, "{time}");
    }
}

#[tokio::test]
async fn mg_35_the_message_of_a_deleted_device_says_so() {
    let Evil {
        server,
        alice,
        mut bob,
        olm,
        room,
    } = evil().await;
    let mut session = bob.megolm_session(room.id());
    bob.share_room_key(&olm, &session);
    let content = session.encrypt(text(&session, "last words"));
    bob.send_event(room.id(), "m.room.encrypted", &content);
    server.delete_device(bob.user(), bob.device());
    let events = alice.events().await;
    let message = messages(&events)[0];
    assert_eq!(message.body(), Some("last words"));
    let trust = message.encryption.as_ref().unwrap().trust;
    assert!(matches!(trust, Trust::Unknown | Trust::Unsigned), "{trust:?}");
    assert_ne!(trust, Trust::Verified);
}
