//! Room keys between our own devices: only to verified ones, only where it is allowed, and only what was asked for.

use std::{
    collections::BTreeSet,
    time::{Duration, UNIX_EPOCH},
};

use mx_e2ee::{KeyRequests, Options, TrustManifest, Undecryptable};
use mx_test_homeserver::EvilPeer;
use serde_json::json;

use crate::{
    verification_cast::{settle, with, with_identity},
    world::{Device, World},
};

/// Alice's two devices, and bob, whose message the new one was not given the key of.
struct Family {
    server: World,
    old: Device,
    new: Device,
    waiting: Undecryptable,
}

/// The new device is verified by the old one, which answers requests for keys as it is told.
async fn family(verify: bool, answers: impl FnOnce(&Device) -> KeyRequests) -> Family {
    let server = World::new();
    let old = with_identity(Device::new(&server, "alice").await).await;
    let new = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let room = bob
        .client
        .create_room(None, &[old.client.user_id().to_owned()])
        .await
        .unwrap();
    old.client.join(room.id().as_str()).await.unwrap();
    settle(&[&old, &new, &bob]).await;
    if verify {
        let asked = new.client.orchestrator().verify_own_devices().await.unwrap();
        settle(&[&old]).await;
        let answered = with(&old, new.client.user_id());
        old.client.orchestrator().accept_verification(&answered).await.unwrap();
        settle(&[&new, &old]).await;
        new.client.orchestrator().start_sas(&asked).await.unwrap();
        settle(&[&new, &old]).await;
        new.client.orchestrator().confirm_verification(&asked).await.unwrap();
        old.client.orchestrator().confirm_verification(&answered).await.unwrap();
        settle(&[&new, &old, &new, &old]).await;
    }
    let mut options = Options::default();
    options.key_requests = answers(&new);
    let old = old.kill_and_open_with(options).await;
    bob.client
        .block_device(new.client.user_id(), new.client.device_id())
        .await
        .unwrap();
    room.send_text("the eagle lands at noon").await.unwrap();
    settle(&[&old, &new]).await;
    assert_eq!(old.bodies().await, ["the eagle lands at noon"]);
    assert!(new.bodies().await.is_empty());
    let waiting = new.client.waiting(0, 10).await.unwrap().pop().unwrap();
    Family {
        server,
        old,
        new,
        waiting,
    }
}

impl Family {
    async fn asked(&self) -> Vec<String> {
        assert!(self.new.client.request_key(&self.waiting).await.unwrap());
        settle(&[&self.old, &self.new]).await;
        self.new.bodies().await
    }
}

#[tokio::test]
async fn a_verified_device_is_given_the_key_that_it_asks_for() {
    let family = family(true, |_| KeyRequests::Verified).await;
    assert_eq!(family.asked().await, ["the eagle lands at noon"]);
    let again = family.new.client.request_key(&family.waiting).await.unwrap();
    assert!(!again, "it does not wait any more");
}

#[tokio::test]
async fn a_device_on_the_list_is_given_it_and_another_one_is_not() {
    let family_of = |device: Option<&str>| {
        let device = device.map(str::to_owned);
        family(true, move |new| {
            let listed = device.unwrap_or_else(|| new.client.device_id().to_string());
            KeyRequests::Only(BTreeSet::from([listed.as_str().into()]))
        })
    };
    assert_eq!(family_of(None).await.asked().await.len(), 1);
    assert!(family_of(Some("OTHER")).await.asked().await.is_empty());
}

#[tokio::test]
async fn a_device_that_the_trust_manifest_does_not_mean_is_given_none() {
    for is_meant in [false, true] {
        let mut family = family(true, |_| KeyRequests::Verified).await;
        let fingerprint = family.new.client.key_status().await.unwrap().ed25519;
        let device = match is_meant {
            true => family.new.client.device_id().as_str(),
            false => "ANOTHER",
        };
        let users = json!({family.new.client.user_id().as_str(): {"devices": {device: fingerprint}}});
        let manifest = json!({"version": 1, "unlisted": "allow", "users": users});
        let mut options = Options::default();
        options.key_requests = KeyRequests::Verified;
        options.trust_manifest = Some(TrustManifest::parse(&manifest.to_string()).unwrap().into());
        family.old = family.old.kill_and_open_with(options).await;
        assert_eq!(!family.asked().await.is_empty(), is_meant);
    }
}

#[tokio::test]
async fn nobody_is_given_a_key_by_default() {
    let family = family(true, |_| KeyRequests::default()).await;
    assert!(family.asked().await.is_empty());
}

#[tokio::test]
async fn a_device_that_is_not_verified_is_given_none() {
    let family = family(false, |_| KeyRequests::Verified).await;
    assert!(family.asked().await.is_empty());
}

impl Family {
    /// The old device sees a message in its own name that it has not sent.
    async fn set_back(&self) {
        let (old, room) = (&self.old.client, &self.waiting.room_id);
        let now = u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        self.server.set_clock(now + 3_600_000);
        let copy = EvilPeer::new(&self.server, "mallory", "MDEV");
        let mut content = copy.megolm_session(room).encrypt("x");
        content["device_id"] = old.device_id().as_str().into();
        self.server.inject(room, old.user_id(), "m.room.encrypted", content);
        old.sync().await.unwrap();
        let refused = old.room(room).send_text("never").await.unwrap_err();
        assert_eq!(refused.code(), "store_set_back");
    }

    /// How much the old device has encrypted for other devices.
    fn given(&self) -> usize {
        let log = self.server.log();
        log.iter()
            .filter(|exchange| exchange.device.as_deref() == Some(self.old.client.device_id().as_str()))
            .filter(|exchange| exchange.path.contains("/sendToDevice/m.room.encrypted/"))
            .count()
    }
}

/// It holds Olm sessions that were used since: nothing is encrypted with them, whoever asks.
#[tokio::test]
async fn a_store_that_was_set_back_answers_nothing() {
    let family = family(true, |_| KeyRequests::Verified).await;
    family.set_back().await;
    let (old, new) = (&family.old.client, &family.new.client);
    let before = family.given();
    let request = json!({
        "type": "m.secret.request",
        "sender": new.user_id(),
        "content": {
            "action": "request",
            "name": "m.cross_signing.master",
            "request_id": "r1",
            "requesting_device_id": new.device_id(),
        },
    });
    family
        .server
        .queue_to_device(old.user_id(), old.device_id(), vec![request.clone()]);
    let summary = old.orchestrator().sync(Duration::ZERO).await.unwrap();
    let codes: Vec<_> = summary.rejected.iter().map(|rejected| rejected.reason.code()).collect();
    assert!(family.asked().await.is_empty());
    assert_eq!(family.given(), before);
    assert_eq!(codes, ["not_answered"]);
    // Whoever asks again afterwards is answered.
    old.orchestrator().acknowledge_rollback().await.unwrap();
    let again = json!({
        "type": "m.room_key_request",
        "sender": new.user_id(),
        "content": {
            "action": "request",
            "body": {
                "algorithm": "m.megolm.v1.aes-sha2",
                "room_id": family.waiting.room_id,
                "sender_key": "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw",
                "session_id": family.waiting.session_id,
            },
            "request_id": "r2",
            "requesting_device_id": new.device_id(),
        },
    });
    family
        .server
        .queue_to_device(old.user_id(), old.device_id(), vec![request, again]);
    settle(&[&family.old, &family.new]).await;
    assert_eq!(family.given(), before + 2);
    assert_eq!(family.new.bodies().await, ["the eagle lands at noon"]);
}
