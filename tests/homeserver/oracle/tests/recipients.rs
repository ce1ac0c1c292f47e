//! Who was given which key: I10 and I14.

use ruma::device_id;
use serde_json::json;

use super::{Cast, cast, found, group, megolm, olm, olm_session};
use crate::{Fault, Invariant};

#[test]
fn i10_an_event_before_its_key_was_taken() {
    let Cast {
        server,
        alice,
        bob,
        room,
        ..
    } = cast();
    let (mut session, sender) = olm_session();
    let key = olm(&mut session, &sender, "a room key");
    server.fault(Fault::drop_after("/sendToDevice/"));
    alice.to_device("k", &bob, &key);
    let mut room_session = group();
    alice.event(&room, "1", &megolm(&mut room_session, "too early"));
    assert_eq!(found(&server), [Invariant::I10]);
    alice.to_device("k", &bob, &key);
    alice.event(&room, "2", &megolm(&mut room_session, "now"));
    assert_eq!(found(&server), [Invariant::I10]);
}

#[test]
fn i14_a_session_whose_key_somebody_holds_who_left() {
    let Cast {
        server,
        alice,
        bob,
        eve,
        room,
    } = cast();
    alice.ask("POST", &format!("/rooms/{room}/invite"), &json!({"user_id": eve.user}));
    eve.ask("POST", &format!("/join/{room}"), &json!({}));
    let since = alice.sync(None);
    let (mut session, sender) = olm_session();
    for (transaction, reader) in [("kb", &bob), ("ke", &eve)] {
        alice.to_device(transaction, reader, &olm(&mut session, &sender, "a room key"));
    }
    let mut old = group();
    alice.event(&room, "1", &megolm(&mut old, "all three"));
    eve.ask("POST", &format!("/rooms/{room}/leave"), &json!({}));
    alice.event(&room, "2", &megolm(&mut old, "nobody told alice"));
    assert_eq!(found(&server), []);
    alice.sync(Some(&since));
    server.expect_late_event(&alice.user, device_id!("DEVICE"));
    alice.event(&room, "3", &megolm(&mut old, "encrypted before, as the test says"));
    assert_eq!(found(&server), []);
    alice.event(&room, "4", &megolm(&mut old, "with the old key"));
    assert_eq!(found(&server), [Invariant::I14]);
    alice.to_device("kb2", &bob, &olm(&mut session, &sender, "a room key"));
    alice.event(&room, "5", &megolm(&mut group(), "with a new one"));
    assert_eq!(found(&server), [Invariant::I14]);
}

#[test]
fn i14_a_session_whose_key_is_on_a_deleted_device() {
    let Cast {
        server,
        alice,
        bob,
        room,
        ..
    } = cast();
    let (mut session, sender) = olm_session();
    alice.sync(None);
    alice.to_device("k", &bob, &olm(&mut session, &sender, "a room key"));
    let mut old = group();
    alice.event(&room, "1", &megolm(&mut old, "both"));
    server.delete_device(&bob.user, device_id!("DEVICE"));
    alice.event(&room, "2", &megolm(&mut old, "nobody told alice"));
    assert_eq!(found(&server), []);
    alice.ask("POST", "/keys/query", &json!({"device_keys": {bob.user.as_str(): []}}));
    alice.event(&room, "3", &megolm(&mut old, "with the old key"));
    assert_eq!(found(&server), [Invariant::I14]);
}

#[test]
fn a_key_that_was_shared_for_the_session_before_is_not_one_of_the_next() {
    let Cast {
        server,
        alice,
        bob,
        eve,
        room,
    } = cast();
    alice.ask("POST", &format!("/rooms/{room}/invite"), &json!({"user_id": eve.user}));
    eve.ask("POST", &format!("/join/{room}"), &json!({}));
    let since = alice.sync(None);
    let (mut session, sender) = olm_session();
    alice.to_device("kb", &bob, &olm(&mut session, &sender, "a room key"));
    let mut old = group();
    alice.event(&room, "1", &megolm(&mut old, "to bob"));
    // Eve is given the same key later, and leaves; then there is a new one, without her.
    alice.to_device("ke", &eve, &olm(&mut session, &sender, "a room key"));
    alice.event(&room, "2", &megolm(&mut old, "to both"));
    eve.ask("POST", &format!("/rooms/{room}/leave"), &json!({}));
    alice.sync(Some(&since));
    alice.to_device("kb2", &bob, &olm(&mut session, &sender, "a room key"));
    let mut new = group();
    alice.event(&room, "3", &megolm(&mut new, "to bob"));
    alice.event(&room, "4", &megolm(&mut new, "to bob again"));
    assert_eq!(found(&server), []);
    // The old one is still hers.
    alice.event(&room, "5", &megolm(&mut old, "with the old key"));
    assert_eq!(found(&server), [Invariant::I14]);
}

#[test]
fn i14_a_key_for_a_stranger_and_an_answer_to_one() {
    let Cast { server, alice, eve, .. } = cast();
    let (mut session, sender) = olm_session();
    alice.to_device("k", &eve, &olm(&mut session, &sender, "a room key"));
    assert_eq!(found(&server), [Invariant::I14]);
    eve.sync(None);
    eve.to_device("back", &alice, &olm(&mut session, &sender, "an answer"));
    assert_eq!(found(&server), [Invariant::I14], "who was written to may answer");
}
