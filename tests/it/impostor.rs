//! A device is its key, and not its name: who comes under a trusted device's name is not that device.

use mx_e2ee::{Accept, Options, Trust, Undecryptable, UndecryptableReason};
use mx_test_homeserver::EvilPeer;

use crate::evil::{Evil, evil, messages};

/// What a homeserver can do: keys of its own, signed by themselves, under the name of somebody's device.
///
/// The room key goes to alice, and then a message into the room.
fn in_the_name_of(evil: &Evil, localpart: &str, device: &str, text: &str) {
    let mut impostor = EvilPeer::impostor(&evil.server, localpart, device);
    let keys = impostor.device_keys();
    let alice = &evil.alice.client;
    let olm = impostor.olm_session_with(alice.user_id(), alice.device_id());
    let mut session = impostor.megolm_session(evil.room.id());
    let key = impostor
        .envelope(&olm, "m.room_key", session.room_key())
        .with("sender_device_keys", keys);
    impostor.send_olm(&olm, &key);
    impostor.send_text(&mut session, text);
}

#[tokio::test]
async fn another_device_under_a_trusted_name_is_not_trusted() {
    let mut evil = evil().await;
    let fingerprint = evil.bob.ed25519().to_base64();
    let alice = &evil.alice.client;
    alice
        .trust_device(evil.bob.user(), evil.bob.device(), &fingerprint)
        .await
        .unwrap();
    let mut session = evil.session();
    evil.bob.send_text(&mut session, "from the device itself");
    in_the_name_of(&evil, "bob", "BDEV", "from somebody else");

    let events = evil.alice.events().await;
    let of = |body: &str| {
        let message = messages(&events).into_iter().find(|of| of.body() == Some(body));
        message.and_then(|message| Some(message.encryption.as_ref()?.trust))
    };
    assert_eq!(of("from the device itself"), Some(Trust::Verified));
    assert_eq!(
        of("from somebody else"),
        Some(Trust::Unsigned),
        "its keys are signed by themselves"
    );
}

#[tokio::test]
async fn a_message_under_our_own_devices_name_is_not_ours() {
    let mut options = Options::default();
    options.accept = Accept::Verified;
    let evil = evil().await.kill_alice_with(options).await;
    let device = evil.alice.client.device_id().to_owned();
    in_the_name_of(&evil, "alice", device.as_str(), "from ourselves?");

    let events = evil.alice.events().await;
    assert!(messages(&events).is_empty(), "{events:?}");
    let waiting = evil.alice.client.waiting(0, 10).await.unwrap();
    assert!(
        matches!(
            waiting.as_slice(),
            [Undecryptable {
                reason: UndecryptableReason::NotAccepted { .. },
                ..
            }]
        ),
        "{waiting:?}"
    );
}
