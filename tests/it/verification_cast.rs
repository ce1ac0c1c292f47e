//! The cast of the tests of verification: devices with identities, and what they see of each other.

use std::sync::Arc;

use matrix_sdk_crypto::{OlmMachine, store::CryptoStore};
use mx_e2ee::{Event, VerificationEnded, VerificationId, VerificationOutcome, VerificationState};
use ruma::{
    UserId,
    api::client::keys::{get_keys, upload_signatures, upload_signing_keys},
    serde::Raw,
};

use crate::world::{Device, World};

/// Give the device's user a cross-signing identity, as `mx identity setup` does it.
pub(crate) async fn with_identity(device: Device) -> Device {
    let store = device.client.orchestrator().store().clone();
    let (user, id) = (device.client.user_id().to_owned(), device.client.device_id().to_owned());
    let unit = store.begin().await.unwrap();
    let machine = Box::pin(OlmMachine::with_store(&user, &id, store.clone(), None))
        .await
        .unwrap();
    let requests = Box::pin(machine.bootstrap_cross_signing(true)).await.unwrap();
    unit.commit().await.unwrap();
    drop((machine, store));
    let device = device.kill_and_open().await;
    let keys = requests.upload_signing_keys_req;
    let mut upload = upload_signing_keys::v3::Request::new();
    upload.master_key = keys.master_key.map(|key| Raw::new(&key).unwrap().cast_unchecked());
    upload.self_signing_key = keys
        .self_signing_key
        .map(|key| Raw::new(&key).unwrap().cast_unchecked());
    upload.user_signing_key = keys
        .user_signing_key
        .map(|key| Raw::new(&key).unwrap().cast_unchecked());
    let homeserver = device.client.homeserver();
    homeserver.send(upload).await.unwrap();
    let signatures: upload_signatures::v3::Request = requests.upload_signatures_req;
    homeserver.send(signatures).await.unwrap();
    device.client.sync().await.unwrap();
    device
}

/// Alice and bob, with identities, who know each other from an encrypted room.
pub(crate) struct Two {
    pub(crate) server: World,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) room: ruma::OwnedRoomId,
}

pub(crate) async fn two() -> Two {
    let server = World::new();
    let alice = with_identity(Device::new(&server, "alice").await).await;
    let bob = with_identity(Device::new(&server, "bob").await).await;
    let with = [bob.client.user_id().to_owned()];
    let room = alice.client.create_room(None, &with).await.unwrap();
    let bobs = bob.client.join(room.id().as_str()).await.unwrap();
    alice.client.sync().await.unwrap();
    room.send_text("hello").await.unwrap();
    bob.client.sync().await.unwrap();
    bobs.send_text("hello").await.unwrap();
    let room = room.id().to_owned();
    let two = Two {
        server,
        alice,
        bob,
        room,
    };
    two.settle().await;
    two.alice.events().await;
    two.bob.events().await;
    two
}

impl Two {
    /// Everything that is on its way arrives.
    pub(crate) async fn settle(&self) {
        settle(&[&self.alice, &self.bob]).await;
    }
}

/// Everything that is on its way arrives.
pub(crate) async fn settle(devices: &[&Device]) {
    for _ in 0..4 {
        for device in devices {
            device.client.sync().await.unwrap();
        }
    }
}

/// The one that is under way with this user.
pub(crate) fn with(device: &Device, user: &UserId) -> VerificationId {
    let shown = device.client.orchestrator().verifications();
    let shown = shown.borrow();
    let mut live = shown
        .values()
        .filter(|one| one.id.user_id == user && !one.state.is_ended());
    let id = live.next().unwrap().id.clone();
    assert!(live.next().is_none(), "only one");
    id
}

pub(crate) fn state(device: &Device, id: &VerificationId) -> VerificationState {
    let shown = device.client.orchestrator().verifications();
    let shown = shown.borrow();
    shown.get(id).unwrap().state.clone()
}

/// How the verification ended, by code.
pub(crate) fn code(device: &Device, id: &VerificationId) -> String {
    match state(device, id) {
        VerificationState::Ended(VerificationOutcome::Cancelled { code, .. }) => code,
        other => format!("{other:?}"),
    }
}

pub(crate) fn is_done(device: &Device, id: &VerificationId) -> bool {
    matches!(
        state(device, id),
        VerificationState::Ended(VerificationOutcome::Done { .. })
    )
}

/// What the app was told of verifications that ended.
pub(crate) async fn ended(device: &Device) -> Vec<VerificationEnded> {
    let events = device.events().await;
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::VerificationEnded(ended) => Some(ended),
            _ => None,
        })
        .collect()
}

/// Whether the homeserver shows `signer`'s signature of `user`'s master key.
pub(crate) async fn has_signed(signer: &Device, user: &UserId) -> bool {
    let mut query = get_keys::v3::Request::new();
    query.device_keys.insert(user.to_owned(), Vec::new());
    let answer = signer.client.homeserver().send(query).await.unwrap();
    let master = answer.master_keys.get(user).unwrap().json().get().to_owned();
    let master: serde_json::Value = serde_json::from_str(&master).unwrap();
    master["signatures"][signer.client.user_id().as_str()].is_object()
}

/// How many of the three cross-signing secrets the device has.
pub(crate) async fn secrets(device: &Device) -> usize {
    let store = Arc::new(device.client.orchestrator().store().clone());
    let identity = store.load_identity().await.unwrap();
    let Some(identity) = identity else { return 0 };
    let status = identity.status().await;
    [status.has_master, status.has_self_signing, status.has_user_signing]
        .into_iter()
        .filter(|has| *has)
        .count()
}
