//! How the bare engine writes: in pieces, with its memory ahead of the disk.
//!
//! B20 is about the sqlite store that comes with the engine's SDK, which nothing here depends on: it was read, not run.

use std::sync::Arc;

use matrix_sdk_crypto::{OlmMachine, store::CryptoStore as _, types::requests::ToDeviceRequest};
use mx_test_homeserver::{
    EvilPeer,
    peer::{MessageParts, OlmBody, PreKeyParts},
};
use ruma::{device_id, user_id};
use serde_json::{Value, json};
use vodozemac::Curve25519PublicKey;

use crate::{
    engine_disk::Disk,
    engine_machine::{Bare, bare_and_peer},
};

/// A key of the bare device that the peer claims, to be used as often as it likes.
fn claimed(peer: &EvilPeer, bare: &Bare) -> Curve25519PublicKey {
    let (_, key) = peer.claim(bare.user(), bare.device()).unwrap();
    Curve25519PublicKey::from_base64(key["key"].as_str().unwrap()).unwrap()
}

/// We commit sessions, keys, token and account at once.
#[tokio::test]
async fn b03_a_sync_saves_its_token_before_the_account() {
    for killed in [false, true] {
        let (_, mut bare, mut peer) = bare_and_peer().await;
        let key = claimed(&peer, &bare);
        let olm = peer.olm_session_on(bare.user(), bare.device(), key);
        let envelope = peer.envelope(&olm, "m.dummy", json!({}));
        peer.send_olm(&olm, &envelope);
        if killed {
            bare.disk.fail("save_pending_changes", 0);
        }
        let before = bare.since.clone();
        assert_eq!(bare.sync().await.is_err(), killed);
        let written = bare.disk.written();
        let token = written.iter().position(|write| write.contains("next_batch"));
        let account = written.iter().position(|write| write == "save_pending_changes account");
        assert_eq!(account.is_some(), !killed, "{written:?}");
        assert!(killed || token < account, "{written:?}");
        bare.restart().await;
        assert_ne!(bare.since, before, "the event will not come again");
        // The one-time key is gone only where the account was written: a second message with it is a new session.
        let second = peer.olm_session_on(bare.user(), bare.device(), key);
        let event = peer.olm_event(&second, &envelope);
        assert_eq!(
            bare.give(vec![event]).await.unwrap().undecryptable(),
            usize::from(!killed),
            "killed: {killed}"
        );
    }
}

/// We commit the account with the sessions that were made from it.
#[tokio::test]
async fn b03_new_sessions_are_saved_after_the_account() {
    let (_, bare, peer) = bare_and_peer().await;
    assert!(bare.claim(&[peer.user()]).await);
    let written = bare.disk.written();
    let account = written.iter().position(|write| write == "save_pending_changes account");
    let sessions = written.iter().position(|write| write == "save_changes olm");
    assert!(account.is_some() && account < sessions, "{written:?}");
}

/// The place of an Olm message in its ratchet, and the whole of it.
fn place(message: &Value, recipient: &EvilPeer) -> ((Vec<u8>, u64), Vec<u8>) {
    let body = OlmBody::of(message, &recipient.curve25519().to_base64()).unwrap();
    let parts = PreKeyParts::parse(&body.bytes).unwrap();
    let message = MessageParts::parse(&parts.message).unwrap();
    ((message.ratchet_key, message.chain_index), body.bytes)
}

/// After any error we drop the machine and build it again from the disk.
#[tokio::test]
async fn b05_after_a_failed_save_a_retry_sends_what_is_not_on_the_disk() {
    let (_, mut bare, peer) = bare_and_peer().await;
    assert!(bare.claim(&[peer.user()]).await);
    bare.disk.fail("save_changes", 0);
    let users = [peer.user()];
    let shared = bare.share_only(&users).await;
    assert!(shared.is_err());
    bare.disk.mend();
    bare.disk.written();
    let message = |requests: Vec<Arc<ToDeviceRequest>>| -> Value {
        let [request] = requests.as_slice() else {
            panic!("{requests:?}")
        };
        let messages = &request.messages[peer.user()];
        messages.values().next().unwrap().deserialize_as_unchecked().unwrap()
    };
    let retry = bare.share_only(&users).await;
    let first = message(retry.unwrap());
    let written = bare.disk.written();
    assert!(!written.iter().any(|write| write.contains("olm")), "{written:?}");
    // It was sent, and the process is killed.
    bare.restart().await;
    let again = bare.share_only(&users).await;
    let second = message(again.unwrap());
    let ((first_place, first), (second_place, second)) = (place(&first, &peer), place(&second, &peer));
    assert_eq!(first_place, second_place, "one key of the ratchet");
    assert_ne!(first, second, "two messages");
}

/// We write the account and its device in one commit, and refuse a store that was begun and has no account.
#[tokio::test]
async fn b14_a_crash_while_a_store_is_begun_leaves_a_device_without_account() {
    let disk = Arc::new(Disk::default());
    let (user, device) = (user_id!("@bare:localhost"), device_id!("BARE"));
    disk.die_after(1);
    assert!(
        OlmMachine::with_store(user, device, Arc::clone(&disk), None)
            .await
            .is_err()
    );
    assert_eq!(disk.written(), ["save_changes devices"]);
    disk.mend();
    let orphan = disk.get_device(user, device).await.unwrap().unwrap();
    assert!(disk.load_account().await.unwrap().is_none());
    // Nothing is said about it: another identity takes its place.
    let machine = OlmMachine::with_store(user, device, Arc::clone(&disk), None)
        .await
        .unwrap();
    assert_ne!(Some(machine.identity_keys().ed25519), orphan.ed25519_key());
}
