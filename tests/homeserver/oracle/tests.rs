//! Each invariant is shown to catch its violation, and to leave what is right alone.

mod recipients;

use bytes::Bytes;
use ruma::{OwnedUserId, device_id};
use serde_json::{Value, json};
use vodozemac::{
    megolm::{GroupSession, SessionConfig as MegolmConfig},
    olm::{Account, OlmMessage, Session, SessionConfig},
};

use super::Invariant;
use crate::{Fault, Homeserver};

/// A device whose requests are written by hand.
struct Device {
    server: Homeserver,
    user: OwnedUserId,
    token: String,
}

impl Device {
    fn new(server: &Homeserver, name: &str) -> Self {
        let user = server.register(name, "password");
        let token = server.token(&user, "DEVICE");
        let server = server.clone();
        Self { server, user, token }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://localhost/_matrix/client/v3{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .body(Bytes::from(body.to_string()))
            .unwrap();
        serde_json::from_slice(self.server.handle(&request).body()).unwrap_or_default()
    }

    fn event(&self, room: &str, transaction: &str, content: &Value) {
        self.ask(
            "PUT",
            &format!("/rooms/{room}/send/m.room.encrypted/{transaction}"),
            content,
        );
    }

    fn to_device(&self, transaction: &str, to: &Self, content: &Value) {
        let body = json!({"messages": {to.user.as_str(): {"DEVICE": content}}});
        self.ask("PUT", &format!("/sendToDevice/m.room.encrypted/{transaction}"), &body);
    }

    fn sync(&self, since: Option<&str>) -> String {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let answer = self.ask("GET", &format!("/sync?timeout=0{since}"), &json!({}));
        answer["next_batch"].as_str().unwrap_or_default().to_owned()
    }

    fn room_with(&self, others: &[&Self]) -> String {
        let encryption = json!({"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
        let invite: Vec<&OwnedUserId> = others.iter().map(|other| &other.user).collect();
        let body = json!({"invite": invite, "initial_state": [encryption]});
        let room = self.ask("POST", "/createRoom", &body)["room_id"]
            .as_str()
            .unwrap()
            .to_owned();
        for other in others {
            other.ask("POST", &format!("/join/{room}"), &json!({}));
        }
        room
    }
}

/// Three devices, two of them in an encrypted room.
struct Cast {
    server: Homeserver,
    alice: Device,
    bob: Device,
    eve: Device,
    room: String,
}

fn cast() -> Cast {
    let server = Homeserver::new();
    let (alice, bob, eve) = (
        Device::new(&server, "alice"),
        Device::new(&server, "bob"),
        Device::new(&server, "eve"),
    );
    let room = alice.room_with(&[&bob]);
    Cast {
        server,
        alice,
        bob,
        eve,
        room,
    }
}

fn found(server: &Homeserver) -> Vec<Invariant> {
    server
        .violations()
        .into_iter()
        .map(|violation| violation.invariant)
        .collect()
}

fn megolm(session: &mut GroupSession, text: &str) -> Value {
    let ciphertext = session.encrypt(text).to_base64();
    json!({"algorithm": "m.megolm.v1.aes-sha2", "session_id": session.session_id(), "ciphertext": ciphertext})
}

fn group() -> GroupSession {
    GroupSession::new(MegolmConfig::version_1())
}

fn copy(session: &GroupSession) -> GroupSession {
    GroupSession::from_pickle(session.pickle())
}

fn olm_session() -> (Session, String) {
    let (ours, mut theirs) = (Account::new(), Account::new());
    theirs.generate_one_time_keys(1);
    let one_time_key = *theirs.one_time_keys().values().next().unwrap();
    let config = SessionConfig::version_1();
    let session = ours
        .create_outbound_session(config, theirs.curve25519_key(), one_time_key)
        .unwrap();
    (session, ours.curve25519_key().to_base64())
}

fn olm(session: &mut Session, sender: &str, text: &str) -> Value {
    let (kind, bytes) = match session.encrypt(text).unwrap() {
        OlmMessage::PreKey(message) => (0, message.to_base64()),
        OlmMessage::Normal(message) => (1, message.to_base64()),
    };
    let ciphertext = json!({"their-key": {"type": kind, "body": bytes}});
    json!({"algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": sender, "ciphertext": ciphertext})
}

#[test]
fn i1_an_index_of_megolm_with_two_ciphertexts() {
    let Cast {
        server, alice, room, ..
    } = cast();
    let mut session = group();
    let mut rolled_back = copy(&session);
    let first = megolm(&mut session, "one");
    alice.event(&room, "1", &first);
    alice.event(&room, "1", &first);
    alice.event(&room, "2", &megolm(&mut session, "two"));
    assert_eq!(found(&server), []);
    alice.event(&room, "3", &megolm(&mut rolled_back, "another one"));
    assert_eq!(found(&server), [Invariant::I1]);
    assert!(server.violations()[0].to_string().contains("index 0"));
}

#[test]
fn i2_an_index_of_olm_with_two_ciphertexts() {
    let Cast { server, alice, bob, .. } = cast();
    let (mut session, sender) = olm_session();
    let mut rolled_back = Session::from_pickle(session.pickle());
    let first = olm(&mut session, &sender, "one");
    alice.to_device("1", &bob, &first);
    alice.to_device("2", &bob, &first);
    alice.to_device("3", &bob, &olm(&mut session, &sender, "two"));
    assert_eq!(found(&server), []);
    alice.to_device("4", &bob, &olm(&mut rolled_back, &sender, "another one"));
    assert_eq!(found(&server), [Invariant::I2]);
}

#[test]
fn i3_plaintext_anywhere_and_plaintext_in_an_encrypted_room() {
    let Cast {
        server, alice, room, ..
    } = cast();
    server.guard_plaintext("the eagle lands");
    alice.ask(
        "POST",
        "/keys/query",
        &json!({"device_keys": {}, "why": "the eagle lands"}),
    );
    alice.ask("GET", "/rooms/the%20eagle%20lands/members", &json!({}));
    alice.ask("PUT", &format!("/rooms/{room}/send/m.reaction/1"), &json!({}));
    assert_eq!(found(&server), [Invariant::I3, Invariant::I3]);
    alice.ask(
        "PUT",
        &format!("/rooms/{room}/send/m.room.message/2"),
        &json!({"body": "x"}),
    );
    assert_eq!(found(&server), [Invariant::I3; 3]);
}

#[test]
fn i4_a_token_or_a_guarded_key_in_a_body_or_an_address() {
    let Cast { server, alice, bob, .. } = cast();
    server.guard_secret("c3RvcmUga2V5");
    alice.sync(None);
    assert_eq!(found(&server), [], "in its header a token is where it belongs");
    alice.ask("GET", &format!("/sync?access_token={}", bob.token), &json!({}));
    alice.ask("POST", "/keys/upload", &json!({"note": alice.token}));
    alice.ask("POST", "/keys/upload", &json!({"note": "c3RvcmUga2V5"}));
    assert_eq!(found(&server), [Invariant::I4; 3]);
    assert!(
        !format!("{:?}", server.violations()).contains(&bob.token),
        "a violation quotes no secret"
    );
}

#[test]
fn i5_two_pairs_of_identity_keys_unless_the_first_life_has_ended() {
    let Cast { server, alice, .. } = cast();
    let upload = |device: &Device, key: &str| {
        device.ask(
            "POST",
            "/keys/upload",
            &json!({"device_keys": {"keys": {"ed25519:DEVICE": key}}}),
        );
    };
    upload(&alice, "one");
    upload(&alice, "one");
    server.delete_device(&alice.user, device_id!("DEVICE"));
    let again = Device::new(&server, "alice");
    upload(&again, "two");
    assert_eq!(found(&server), []);
    server.fault(Fault::drop_before("/keys/upload"));
    upload(&again, "three");
    assert_eq!(found(&server), [Invariant::I5], "also when it did not arrive");
}

#[test]
fn i6_one_id_with_two_contents() {
    let Cast { server, alice, bob, .. } = cast();
    let upload = |device: &Device, section: &str, key: &str| {
        device.ask(
            "POST",
            "/keys/upload",
            &json!({section: {"signed_curve25519:A": {"key": key}}}),
        );
    };
    upload(&alice, "one_time_keys", "one");
    upload(&alice, "one_time_keys", "one");
    upload(&bob, "one_time_keys", "another device's");
    upload(&bob, "fallback_keys", "another counter's");
    assert_eq!(found(&server), []);
    upload(&alice, "one_time_keys", "two");
    upload(&bob, "fallback_keys", "three");
    assert_eq!(found(&server), [Invariant::I6; 2]);
}

#[test]
fn i9_a_transaction_id_with_other_bytes_and_an_event_under_two_of_them() {
    let Cast {
        server,
        alice,
        bob,
        room,
        ..
    } = cast();
    let mut session = group();
    let first = megolm(&mut session, "one");
    alice.event(&room, "1", &first);
    bob.event(&room, "1", &megolm(&mut group(), "of another device"));
    assert_eq!(found(&server), []);
    alice.event(&room, "1", &megolm(&mut session, "two"));
    assert_eq!(found(&server), [Invariant::I9]);
    alice.event(&room, "3", &first);
    assert_eq!(
        found(&server),
        [Invariant::I9; 2],
        "the same ciphertext makes two events"
    );
}

#[test]
fn i11_a_token_that_was_not_given() {
    let Cast { server, alice, bob, .. } = cast();
    let token = alice.sync(None);
    alice.sync(Some(&token));
    assert_eq!(found(&server), []);
    bob.sync(Some(&token));
    assert_eq!(found(&server), [Invariant::I11], "it was given to somebody else");
    server.inject(ruma::room_id!("!r:localhost"), &alice.user, "m.test", json!({}));
    server.fault(Fault::drop_after("/sync"));
    alice.sync(Some(&token));
    let lost: u64 = token.trim_start_matches('s').parse::<u64>().unwrap() + 1;
    alice.sync(Some(&format!("s{lost}")));
    assert_eq!(found(&server), [Invariant::I11; 2], "the answer with it did not arrive");
}

#[test]
fn who_is_exempt_is_not_looked_at_and_what_is_excused_is_not_told() {
    let Cast {
        server,
        alice,
        bob,
        room,
        ..
    } = cast();
    server.exempt(&bob.user, device_id!("DEVICE"));
    let session = group();
    for (transaction, text) in [("1", "one"), ("2", "two")] {
        bob.event(&room, transaction, &megolm(&mut copy(&session), text));
    }
    assert_eq!(found(&server), []);
    let session = group();
    for (transaction, text) in [("1", "one"), ("2", "two"), ("3", "three")] {
        alice.event(&room, transaction, &megolm(&mut copy(&session), text));
    }
    assert_eq!(found(&server), [Invariant::I1; 2]);
    server.excuse(Invariant::I1);
    assert_eq!(found(&server), []);
}
