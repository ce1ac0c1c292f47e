//! Histories that nobody should take: of strangers, of devices without an identity, with keys that are not what they say.

use std::io::Read;

use matrix_sdk_crypto::{AttachmentEncryptor, store::CryptoStore};
use mx_e2ee::{Event, HistoryRefused, HistoryRefusedReason, Trust};
use mx_test_homeserver::{
    EvilPeer, Fault,
    peer::{CrossSigning, MegolmSession},
};
use ruma::{OwnedMxcUri, OwnedRoomId, RoomId};
use serde_json::{Value, json};

use crate::{
    history::{came_in, held_clock, past, what_came},
    verification_cast::with_identity,
    world::{Device, World},
};

/// Mallory, who can write any bundle, has an encrypted room and invites bob into it.
struct Offer {
    server: World,
    bob: Device,
    mallory: EvilPeer,
    identity: CrossSigning,
    room: OwnedRoomId,
}

async fn offer() -> Offer {
    let server = World::new();
    let bob = with_identity(Device::new(&server, "bob").await).await;
    let mut mallory = EvilPeer::new(&server, "mallory", "MDEV");
    mallory.publish();
    let identity = mallory.new_cross_signing();
    mallory.publish_cross_signing(&identity);
    let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    let body = json!({"initial_state": [{"type": "m.room.encryption", "state_key": "", "content": encryption}]});
    let room = mallory.ask("POST", "/createRoom", &body)["room_id"]
        .as_str()
        .unwrap()
        .to_owned();
    Offer {
        server,
        bob,
        mallory,
        identity,
        room: room.as_str().try_into().unwrap(),
    }
}

impl Offer {
    fn sign(&self) {
        let keys = self.mallory.unsigned_device_keys();
        let mut keys = keys;
        self.mallory.sign(&mut keys);
        self.mallory
            .publish_signed_device(&self.identity, self.mallory.device(), &keys);
    }

    fn invite(&self) {
        let path = format!("/rooms/{}/invite", self.room);
        self.mallory
            .ask("POST", &path, &json!({"user_id": self.bob.client.user_id()}));
    }

    /// Upload some bytes as a bundle, and say where it is.
    fn send(&mut self, room: &RoomId, plaintext: &[u8]) -> OwnedMxcUri {
        let (uri, file) = put(&self.server, plaintext);
        let olm = self
            .mallory
            .olm_session_with(self.bob.client.user_id(), self.bob.client.device_id());
        let mut keys = self.mallory.device_keys();
        self.identity.sign_device(&mut keys);
        let envelope = self
            .mallory
            .envelope(
                &olm,
                "io.element.msc4268.room_key_bundle",
                json!({"room_id": room, "file": file}),
            )
            .with("sender_device_keys", keys);
        self.mallory.send_olm(&olm, &envelope);
        uri
    }

    /// A session that says to be alice's.
    fn session(&mut self, room: &RoomId) -> (MegolmSession, Value) {
        let mut session = self.mallory.megolm_session(room);
        let key = entry(&mut session, 0);
        (session, key)
    }
}

/// A session as a bundle has it.
fn entry(session: &mut MegolmSession, index: u32) -> Value {
    let curve = "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw";
    let mut key = session.forwarded_room_key(index, curve, curve);
    key["sender_claimed_keys"] = json!({"ed25519": curve});
    key
}

fn bundle(keys: &[Value]) -> Vec<u8> {
    json!({"room_keys": keys, "withheld": []}).to_string().into_bytes()
}

fn put(server: &World, plaintext: &[u8]) -> (OwnedMxcUri, Value) {
    let mut reader = plaintext;
    let mut encryptor = AttachmentEncryptor::new(&mut reader);
    let mut ciphertext = Vec::new();
    encryptor.read_to_end(&mut ciphertext).unwrap();
    let uri: OwnedMxcUri = format!("mxc://localhost/bundle{}", server.files().len()).into();
    server.put_file(&uri, ciphertext);
    let mut file = serde_json::to_value(encryptor.finish()).unwrap();
    file["url"] = uri.as_str().into();
    (uri, file)
}

fn refused(events: &[Event]) -> Vec<HistoryRefusedReason> {
    let all = events.iter().filter_map(|event| match event {
        Event::HistoryRefused(HistoryRefused { reason, .. }) => Some(*reason),
        _ => None,
    });
    all.collect()
}

fn fetched(server: &World) -> usize {
    let log = server.log();
    log.iter()
        .filter(|request| request.path.contains("/media/download/"))
        .count()
}

#[tokio::test]
async fn what_a_bundles_keys_open_is_on_the_givers_word_only() {
    let mut offer = offer().await;
    offer.sign();
    let room = offer.room.clone();
    let (mut session, key) = offer.session(&room);
    let plain = session.payload("m.room.message", json!({"msgtype": "m.text", "body": "pay mallory"}));
    let content = session.encrypt(plain.to_string());
    offer.send(&room, &bundle(&[key]));
    offer.invite();
    offer
        .server
        .inject(&room, offer.mallory.user(), "m.room.encrypted", content);
    let client_room = offer.bob.client.room(&room);
    let (read, others) = came_in(&offer.bob, &client_room).await;
    assert_eq!(read, [("pay mallory".to_owned(), Trust::Imported)]);
    assert!(
        matches!(&others[..], [Event::HistoryReceived(report)] if report.room_keys == 1),
        "{others:?}"
    );
}

#[tokio::test]
async fn of_a_device_that_no_identity_has_signed_nothing_is_taken_or_fetched() {
    let mut offer = offer().await;
    let room = offer.room.clone();
    let (_, key) = offer.session(&room);
    offer.send(&room, &bundle(&[key]));
    offer.invite();
    let client_room = offer.bob.client.room(&room);
    let (_, others) = came_in(&offer.bob, &client_room).await;
    assert_eq!(refused(&others), [HistoryRefusedReason::Untrusted]);
    assert_eq!((offer.bob.room_keys().await.len(), fetched(&offer.server)), (0, 0));
    // It may be signed, and offer again.
    offer.sign();
    let (_, key) = offer.session(&room);
    offer.send(&room, &bundle(&[key]));
    offer.bob.client.sync().await.unwrap();
    what_came(&offer.bob).await;
    assert_eq!(offer.bob.room_keys().await.len(), 1);
}

#[tokio::test]
async fn of_somebody_who_did_not_invite_us_nothing_is_taken_or_fetched() {
    let mut offer = offer().await;
    offer.sign();
    // Alice invites, and mallory offers.
    let alice = with_identity(Device::new(&offer.server, "alice").await).await;
    let room = alice.client.create_room(None, &[]).await.unwrap();
    let (_, key) = offer.session(room.id());
    offer.send(room.id(), &bundle(&[key]));
    room.invite(offer.bob.client.user_id()).await.unwrap();
    let (_, others) = came_in(&offer.bob, &room).await;
    assert!(others.is_empty(), "{others:?}");
    assert_eq!((offer.bob.room_keys().await.len(), fetched(&offer.server)), (0, 0));
    // Nor into a room that we do not go into.
    let mallorys = offer.room.clone();
    let (_, key) = offer.session(&mallorys);
    offer.send(&mallorys, &bundle(&[key]));
    offer.invite();
    what_came(&offer.bob).await;
    assert_eq!((offer.bob.room_keys().await.len(), fetched(&offer.server)), (0, 0));
}

/// Keys of another room, under another session's name, and in the way of the real one.
#[tokio::test]
async fn keys_that_are_not_what_they_say_are_left_out() {
    let mut offer = offer().await;
    offer.sign();
    let room = offer.room.clone();
    let elsewhere = ruma::room_id!("!elsewhere:localhost");
    let (_, good) = offer.session(&room);
    let (_, other_room) = offer.session(elsewhere);
    let (_, mut renamed) = offer.session(&room);
    renamed["session_id"] = good["session_id"].clone();
    // Of a session whose messages wait, a key that does not open them.
    let (mut real, mut forged) = offer.session(&room);
    let content = real.encrypt(
        real.payload("m.room.message", json!({"msgtype": "m.text", "body": "x"}))
            .to_string(),
    );
    let mut bytes = vodozemac::base64_decode(forged["session_key"].as_str().unwrap()).unwrap();
    bytes[9] ^= 1;
    forged["session_key"] = vodozemac::base64_encode(bytes).into();
    offer.send(
        &room,
        &bundle(&[other_room, renamed, forged, good, json!({"nothing": 7})]),
    );
    offer.invite();
    offer
        .server
        .inject(&room, offer.mallory.user(), "m.room.encrypted", content);
    let client_room = offer.bob.client.room(&room);
    let (read, others) = came_in(&offer.bob, &client_room).await;
    assert!(read.is_empty(), "{read:?}");
    let counts = others.iter().find_map(|event| match event {
        Event::HistoryReceived(report) => Some((report.room_keys, report.unusable)),
        _ => None,
    });
    assert_eq!(counts, Some((1, 4)), "{others:?}");
    assert_eq!(offer.bob.room_keys().await.len(), 1);
    assert_eq!(
        offer.bob.client.waiting_counts().await.unwrap().waiting,
        1,
        "it waits on"
    );
    // The real key comes, and opens it.
    let olm = offer
        .mallory
        .olm_session_with(offer.bob.client.user_id(), offer.bob.client.device_id());
    real.go_to(0);
    offer.mallory.share_room_key(&olm, &real);
    let (read, _) = what_came(&offer.bob).await;
    assert_eq!(read.len(), 1);
}

/// A key that came from its sender stays, when somebody gives one that reaches as far or less.
#[tokio::test]
async fn a_bundle_takes_nothing_away_from_what_is_here() {
    let past = past().await;
    let bob = past.bob.client.user_id().to_owned();
    past.room.invite(&bob).await.unwrap();
    past.bob.client.sync().await.unwrap();
    past.bob.client.join(past.room.id().as_str()).await.unwrap();
    past.alice.client.sync().await.unwrap();
    past.room.rotate_key().await.unwrap();
    past.room.send_text("to bob, too").await.unwrap();
    let (read, _) = what_came(&past.bob).await;
    assert_eq!(read.len(), 1);
    assert_ne!(read[0].1, Trust::Imported);
    past.room.share_history(&bob).await.unwrap();
    what_came(&past.bob).await;
    past.room.send_text("again").await.unwrap();
    let (read, _) = what_came(&past.bob).await;
    assert_eq!(read.len(), 1);
    assert_ne!(read[0].1, Trust::Imported, "still the sender's own");
}

#[tokio::test]
async fn garbage_and_giants_are_refused_and_told() {
    let giant = vec![b' '; 33 * 1024 * 1024];
    let cases: [(&[u8], HistoryRefusedReason); 4] = [
        (b"not json", HistoryRefusedReason::Malformed),
        (b"{\"room_keys\": {}}", HistoryRefusedReason::Malformed),
        (b"", HistoryRefusedReason::Malformed),
        (&giant, HistoryRefusedReason::TooLarge),
    ];
    for (plaintext, reason) in cases {
        let mut offer = offer().await;
        offer.sign();
        let room = offer.room.clone();
        offer.send(&room, plaintext);
        offer.invite();
        let client_room = offer.bob.client.room(&room);
        let (_, others) = came_in(&offer.bob, &client_room).await;
        assert_eq!(refused(&others), [reason], "{others:?}");
        let before = fetched(&offer.server);
        what_came(&offer.bob).await;
        assert_eq!(fetched(&offer.server), before, "not a second time");
    }
}

/// The homeserver gives other bytes than those whose hash was told, each time it is asked.
#[tokio::test]
async fn other_bytes_are_never_looked_at_and_not_asked_for_without_end() {
    let mut offer = offer().await;
    offer.sign();
    let room = offer.room.clone();
    let (_, key) = offer.session(&room);
    let uri = offer.send(&room, &bundle(&[key]));
    offer.server.put_file(&uri, bundle(&[]));
    offer.invite();
    let (clock, options) = held_clock();
    offer.bob = offer.bob.kill_and_open_with(options).await;
    let client_room = offer.bob.client.room(&room);
    let (_, mut others) = came_in(&offer.bob, &client_room).await;
    assert_eq!(fetched(&offer.server), 1);
    for _ in 0..20 {
        clock.fetch_add(60 * 60 * 1000, std::sync::atomic::Ordering::SeqCst);
        others.extend(what_came(&offer.bob).await.1);
    }
    assert_eq!(refused(&others), [HistoryRefusedReason::Corrupt]);
    assert!((2..=8).contains(&fetched(&offer.server)), "{}", fetched(&offer.server));
    assert_eq!(offer.bob.room_keys().await.len(), 0);
}

/// Anybody can offer anything: what is remembered of it has an end.
#[tokio::test]
async fn a_flood_of_offers_is_forgotten() {
    let mut offer = offer().await;
    offer.sign();
    let rooms: Vec<OwnedRoomId> = (0..30)
        .map(|number| format!("!flood{number}:localhost").as_str().try_into().unwrap())
        .collect();
    for room in &rooms {
        offer.send(room, b"x");
    }
    offer.bob.client.sync().await.unwrap();
    let store = offer.bob.client.orchestrator().store().clone();
    let mut kept = 0;
    for room in &rooms {
        let known = store
            .get_received_room_key_bundle_data(room, offer.mallory.user())
            .await
            .unwrap();
        kept += usize::from(known.is_some());
    }
    assert_eq!(kept, 20);
    let newest = store
        .get_received_room_key_bundle_data(&rooms[29], offer.mallory.user())
        .await
        .unwrap();
    assert!(newest.is_some(), "the newest stay");
}

/// Anybody in the room can say what no key opens, under the name of a key that does not know it.
#[tokio::test]
async fn what_no_key_opens_keeps_no_key_away() {
    let past = past().await;
    let mut carol = EvilPeer::new(&past.server, "carol", "CDEV");
    carol.publish();
    past.room.invite(carol.user()).await.unwrap();
    carol.join(past.room.id());
    let timeline = past.server.timeline(past.room.id());
    let genuine = timeline
        .iter()
        .rfind(|event| event["type"] == "m.room.encrypted")
        .unwrap();
    let mut garbage = genuine["content"].clone();
    let ciphertext = garbage["ciphertext"].as_str().unwrap();
    let (head, tail) = ciphertext.split_at(ciphertext.len() - 8);
    garbage["ciphertext"] = format!("{head}{}", if tail == "AAAAAAAA" { "BBBBBBBB" } else { "AAAAAAAA" }).into();
    carol.send_event(past.room.id(), "m.room.encrypted", &garbage);

    past.room.invite_with_history(past.bob.client.user_id()).await.unwrap();
    let (read, others) = came_in(&past.bob, &past.room).await;
    let read: Vec<&str> = read.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(read, ["one", "two"], "{others:?}");
}

/// What was encrypted for somebody is delivered later, and to nobody who was turned away since.
#[tokio::test]
async fn who_was_turned_away_is_not_given_what_was_ready() {
    let past = past().await;
    let bob = past.bob.client.user_id().to_owned();
    past.server.fault(Fault::drop_before("/sendToDevice/").for_ever());
    past.room.invite_with_history(&bob).await.unwrap_err();
    assert_eq!(past.server.files().len(), 1, "it is ready");
    past.server.behave();
    past.bob.client.sync().await.unwrap();
    past.bob.client.room(past.room.id()).leave().await.unwrap();
    let told = past.alice.events().await;
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::HistoryNotShared(not) if not.code == "history_not_invited")),
        "{told:?}"
    );
    let mut bobs = past.bob.events().await;
    bobs.extend(past.bob.events().await);
    let log = past.server.log();
    let given = log
        .iter()
        .filter(|request| request.path.contains("/sendToDevice/") && request.status == Some(200));
    assert_eq!(given.count(), 0, "{bobs:?}");
}
