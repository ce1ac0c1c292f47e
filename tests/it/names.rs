//! Odd names of users and devices, and the forms of base64. Rows LM of the catalogue.

use std::sync::Arc;

use mx_crypto_store::backend::{Memory, MemoryDisk};
use mx_e2ee::{Attachment, Client, DeviceOutcome, Error, ReceivedFile};
use mx_test_homeserver::Homeserver;
use ruma::{
    OwnedUserId, UserId,
    serde::{
        Base64,
        base64::{Standard, UrlSafe},
    },
};
use serde_json::Value;
use vodozemac::Curve25519PublicKey;

use crate::world::{Pair, World, key, leaks::Watched, pair};

/// A device of this id, on a disk of its own.
async fn device(server: &Homeserver, user: &UserId, device: &str) -> Client {
    let token = server.token(user, device);
    let memory = Memory::open(&MemoryDisk::new()).unwrap();
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .backend(Arc::new(Watched(memory)), key())
        .login_with_token(&token)
        .await
        .unwrap()
}

/// One says something, and all others read it: each device by its own name.
async fn all_read(speaker: &Client, others: &[Client], text: &str) {
    let users: std::collections::BTreeSet<OwnedUserId> =
        others.iter().map(|client| client.user_id().to_owned()).collect();
    let invited: Vec<OwnedUserId> = users.into_iter().filter(|user| user != speaker.user_id()).collect();
    let room = speaker.create_room(None, &invited).await.unwrap();
    for other in others {
        other.join(room.id().as_str()).await.unwrap();
    }
    let receipt = room.send_text(text).await.unwrap();
    assert_eq!(receipt.devices.len(), others.len(), "{:?}", receipt.devices);
    for other in others {
        let found = receipt
            .devices
            .iter()
            .find(|device| device.user_id == other.user_id() && device.device_id == other.device_id());
        assert_eq!(found.unwrap().outcome, DeviceOutcome::Reached);
        let events = other.receive(std::time::Duration::ZERO).await.unwrap();
        let bodies: Vec<Option<&str>> = events
            .iter()
            .filter_map(|event| match event {
                mx_e2ee::Event::Message(message) => Some(message.body()),
                _ => None,
            })
            .collect();
        assert_eq!(bodies, [Some(text)], "{} {}", other.user_id(), other.device_id());
    }
}

#[tokio::test]
async fn lm_10_users_with_historical_and_long_names_are_told_apart() {
    for server_name in ["localhost", "localhost:8448", "[2001:db8::1]:8448", "192.0.2.1"] {
        let server = World::of(Homeserver::named(server_name));
        let room_for = 255 - server_name.len() - 2;
        let longest = "l".repeat(room_for);
        let names = [
            "alice",
            "Alice",
            "ALICE",
            "älice",
            "алиса",
            "a!b#c$d",
            "__proto__",
            &longest,
        ];
        let speaker = device(&server, &server.register("speaker", "password"), "SPEAKER").await;
        let mut others = Vec::new();
        for name in names {
            let user = server.register(name, "password");
            assert_eq!(user.localpart(), name);
            others.push(device(&server, &user, "DEVICE").await);
        }
        all_read(&speaker, &others, "to each by name").await;
    }
}

#[tokio::test]
async fn lm_11_devices_of_any_name_are_reached_by_it() {
    let server = World::new();
    let alice = server.register("alice", "password");
    let bob = server.register("bob", "password");
    let long = "x".repeat(1024);
    let names = [
        "a:b",
        "a/b",
        "../../etc",
        "%2F%00",
        "?x=1#y",
        "📱",
        "a\nb\u{1b}[31m\u{202e}",
        "\"\\",
        "__proto__",
        " ",
        &long,
    ];
    let speaker = device(&server, &alice, "a/b").await;
    let mut others = Vec::new();
    for name in names {
        others.push(device(&server, &bob, name).await);
        assert_eq!(others.last().unwrap().device_id().as_str(), name);
    }
    all_read(&speaker, &others, "to each by name").await;
    // A path or an address of the log holds no raw control and no second meaning.
    for exchange in server.log() {
        assert!(
            exchange.path.bytes().all(|byte| byte.is_ascii_graphic()),
            "{}",
            exchange.path
        );
    }
    // No homeserver gives out such a login, and nothing could be signed for it.
    let token = server.token(&bob, "");
    let login = Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .in_memory()
        .login_with_token(&token)
        .await;
    assert!(matches!(login, Ok(_) | Err(Error::TokenWithoutDevice)));
}

#[tokio::test]
async fn lm_12_base64_is_written_without_padding_and_read_by_rule() {
    // Bytes whose encodings differ in every way that there is.
    let bytes = [0xfb_u8; 32];
    let standard = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s";
    let (padded, url, spaced) = (
        format!("{standard}="),
        standard.replace('+', "-").replace('/', "_"),
        format!(" {standard}"),
    );
    for (form, key, hash, jwk) in [
        (standard, true, true, false),
        (&padded, true, true, false),
        (&url, false, false, true),
        (&format!("{url}="), false, false, true),
        (&spaced, false, false, false),
    ] {
        let read = Curve25519PublicKey::from_base64(form).ok().map(|key| key.to_bytes());
        assert_eq!(read, key.then_some(bytes), "an identity key {form:?}");
        let read = Base64::<Standard, [u8; 32]>::parse(form).ok().map(Base64::into_inner);
        assert_eq!(read, hash.then_some(bytes), "a hash {form:?}");
        let read = Base64::<UrlSafe, [u8; 32]>::parse(form).ok().map(Base64::into_inner);
        assert_eq!(read, jwk.then_some(bytes), "the key of a file {form:?}");
    }

    // What we write, in keys, signatures, messages and files.
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("x", b"x")).await.unwrap();
    let file = bob.messages().await.remove(0).content;
    assert!(ReceivedFile::of_content(&file).unwrap().is_some());
    let plain = |text: &str| !text.contains(['=', '-', '_', ' ']);
    for pointer in ["/file/iv", "/file/hashes/sha256"] {
        assert!(plain(file.pointer(pointer).unwrap().as_str().unwrap()), "{pointer}");
    }
    let k = file.pointer("/file/key/k").unwrap().as_str().unwrap();
    assert!(!k.contains(['=', '+', '/']), "the key of a file is base64url");
    let mut seen = 0;
    for exchange in server.log() {
        let keys = &exchange.request_body;
        let is_upload = exchange.path.ends_with("/keys/upload");
        let uploaded = keys["one_time_keys"]
            .as_object()
            .filter(|_| is_upload)
            .into_iter()
            .flatten();
        for key in uploaded
            .map(|(_, key)| &key["key"])
            .chain(values(&keys["device_keys"]["keys"]))
        {
            assert!(plain(key.as_str().unwrap()), "{key}");
            seen += 1;
        }
        let ciphertext = keys["ciphertext"].as_str().into_iter();
        seen += ciphertext.inspect(|text| assert!(plain(text), "{text}")).count();
    }
    assert!(seen > 100, "{seen}");
}

fn values(object: &Value) -> impl Iterator<Item = &Value> {
    object.as_object().into_iter().flat_map(serde_json::Map::values)
}
