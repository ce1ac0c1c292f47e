//! What the bare engine does with what it is sent: replays, crashes, errors, forgeries, floods.

use mx_test_homeserver::EvilPeer;
use ruma::UserId;
use serde_json::{Value, json};

use crate::engine_machine::{ProcessedToDeviceEvent, bare_and_peer, event, room};

/// We keep a replay index by room, session and message index, in the unit that delivers.
#[tokio::test]
async fn b01_a_replayed_event_is_decrypted_again() {
    let (_, bare, mut peer) = bare_and_peer().await;
    let olm = peer.olm_session_with(bare.user(), bare.device());
    let mut megolm = peer.megolm_session(&room());
    let key = peer.envelope(&olm, "m.room_key", megolm.room_key());
    bare.give(vec![peer.olm_event(&olm, &key)]).await.unwrap();
    let payload = megolm.payload("m.room.message", json!({"msgtype": "m.text", "body": "pay 10"}));
    let content = megolm.encrypt(payload.to_string());
    for id in ["$first", "$second"] {
        let read = bare.read(&room(), &event(id, peer.user(), &content)).await;
        assert_eq!(read.as_deref(), Ok("pay 10"), "{id}");
    }
}

/// We run the whole sync in one unit of work, and commit once.
///
/// The first write is a list of no users; then one write for each new Olm session, and one for the keys and the token.
#[tokio::test]
async fn b02_a_kill_while_a_sync_is_taken_loses_room_keys_for_good() {
    for (writes, kept) in [(0, 3), (1, 3), (2, 2), (3, 1), (4, 0), (5, 3)] {
        let (server, mut bare, _) = bare_and_peer().await;
        let mut sessions = Vec::new();
        for name in ["one", "two", "three"] {
            let mut peer = EvilPeer::new(&server, name, "PEER");
            peer.publish();
            let olm = peer.olm_session_with(bare.user(), bare.device());
            let megolm = peer.megolm_session(&room());
            peer.share_room_key(&olm, &megolm);
            sessions.push(megolm.session_id());
        }
        bare.disk.die_after(writes);
        let died = bare.sync().await;
        bare.restart().await;
        // The same events come again, because the token was not confirmed.
        bare.sync().await.unwrap();
        let mut found = 0;
        for session in &sessions {
            found += usize::from(bare.has_room_key(session).await);
        }
        assert_eq!(
            found,
            kept,
            "after {writes} writes: {:?} {:?}",
            died.err(),
            bare.disk.written()
        );
    }
}

/// We fail the whole unit when the store fails, so that the token stays where it was.
#[tokio::test]
async fn b04_a_store_error_becomes_an_undecryptable_event_and_the_token_advances() {
    for operation in ["get_sessions", "get_own_device"] {
        let (_, mut bare, mut peer) = bare_and_peer().await;
        let olm = peer.olm_session_with(bare.user(), bare.device());
        let megolm = peer.megolm_session(&room());
        peer.share_room_key(&olm, &megolm);
        bare.restart().await;
        let before = bare.since.clone();
        bare.disk.fail(operation, 0);
        let news = bare.sync().await.unwrap();
        assert_eq!(news.undecryptable(), 1, "{operation}");
        bare.restart().await;
        assert_ne!(bare.since, before, "{operation}: the event will not come again");
        assert!(!bare.has_room_key(&megolm.session_id()).await, "{operation}");
    }
}

/// We commit the list of changed devices with the token, or neither.
#[tokio::test]
async fn b04_a_store_error_while_a_device_list_changes_is_swallowed() {
    for failing in [false, true] {
        let (_, mut bare, peer) = bare_and_peer().await;
        let mut response = bare.fetch().await;
        response.device_lists.changed.push(peer.user().to_owned());
        if failing {
            bare.disk.fail("save_tracked_users", 0);
        }
        bare.take(&response).await.unwrap();
        bare.restart().await;
        assert_eq!(bare.since, Some(response.next_batch), "the change will not come again");
        let queries = bare.queries().await;
        let asked = queries
            .iter()
            .any(|(_, query)| query.device_keys.contains_key(peer.user()));
        assert_eq!(asked, !failing, "failing: {failing}");
    }
}

/// We reduce the map to our own entry before the engine sees it.
#[tokio::test]
async fn b12_only_the_first_entry_of_the_ciphertext_map_is_read() {
    let (_, bare, mut peer) = bare_and_peer().await;
    let ours = bare.machine.identity_keys().curve25519.to_base64();
    // Before every other key in the order of a map, and after every one; and something that is no key.
    let (before, after) = (format!("{}A", "+".repeat(42)), format!("{}A", "z".repeat(42)));
    for (other, expected) in [
        (before.as_str(), "undecryptable"),
        (&after, "decrypted"),
        ("!", "invalid"),
    ] {
        let olm = peer.olm_session_with(bare.user(), bare.device());
        let envelope = peer.envelope(&olm, "m.dummy", json!({}));
        let mut event = peer.olm_event(&olm, &envelope);
        event["content"]["ciphertext"][other] = event["content"]["ciphertext"][&ours].clone();
        let news = bare.give(vec![event]).await.unwrap();
        let [event] = news.events.as_slice() else {
            panic!("{:?}", news.events)
        };
        let became = match event {
            ProcessedToDeviceEvent::Decrypted { .. } => "decrypted",
            ProcessedToDeviceEvent::UnableToDecrypt { .. } => "undecryptable",
            ProcessedToDeviceEvent::Invalid(_) => "invalid",
            ProcessedToDeviceEvent::PlainText(_) => "plaintext",
        };
        assert_eq!(became, expected, "{other}");
    }
}

/// We compare the sender with the owner of the session, and reject.
#[tokio::test]
async fn b16_an_event_in_another_users_name_is_decrypted() {
    let (_, bare, mut peer) = bare_and_peer().await;
    let olm = peer.olm_session_with(bare.user(), bare.device());
    let mut megolm = peer.megolm_session(&room());
    let key = peer.envelope(&olm, "m.room_key", megolm.room_key());
    bare.give(vec![peer.olm_event(&olm, &key)]).await.unwrap();
    let payload = megolm.payload("m.room.message", json!({"msgtype": "m.text", "body": "not carol's"}));
    let content = megolm.encrypt(payload.to_string());
    let carol = <&UserId>::try_from("@carol:localhost").unwrap();
    let read = bare.read(&room(), &event("$forged", carol, &content)).await;
    assert_eq!(read.as_deref(), Ok("not carol's"));
}

/// We count what each sender gives us, and take no more than a quota a day.
#[tokio::test]
async fn b22_one_sender_may_store_any_number_of_room_keys_and_sessions() {
    let (_, bare, mut peer) = bare_and_peer().await;
    let olm = peer.olm_session_with(bare.user(), bare.device());
    let mut events = Vec::new();
    for number in 0..500 {
        let room = ruma::RoomId::parse(format!("!room-{number}:localhost")).unwrap();
        let key = peer.megolm_session(&room).room_key();
        let envelope = peer.envelope(&olm, "m.room_key", key);
        events.push(peer.olm_event(&olm, &envelope));
    }
    let news = bare.give(events).await.unwrap();
    assert_eq!(news.room_keys.len(), 500);
    let events: Vec<Value> = (0..45)
        .map(|_| {
            let olm = peer.olm_session_with(bare.user(), bare.device());
            let envelope = peer.envelope(&olm, "m.dummy", json!({}));
            peer.olm_event(&olm, &envelope)
        })
        .collect();
    assert_eq!(bare.give(events).await.unwrap().undecryptable(), 0);
    let sessions = bare.machine.store().get_sessions(&peer.curve25519().to_base64()).await;
    assert_eq!(sessions.unwrap().unwrap().len(), 46);
}
