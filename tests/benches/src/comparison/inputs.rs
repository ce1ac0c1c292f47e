//! Sessions, devices and rooms of real keys, made once for all variants.

use std::{collections::BTreeMap, ops::Range, sync::Arc, thread};

use anyhow::Context as _;
use matrix_sdk_crypto::{
    Account, DeviceData, EncryptionSettings,
    olm::{
        InboundGroupSession, OutboundGroupSession, PickledOutboundGroupSession, SenderData, ShareInfo,
        StaticAccountData,
    },
    types::EventEncryptionAlgorithm,
    vodozemac::{
        Curve25519PublicKey, Curve25519SecretKey, Ed25519SecretKey,
        megolm::{GroupSession, SessionConfig},
    },
};
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, SecondsSinceUnixEpoch, events::AnyMessageLikeEventContent,
    serde::Raw,
};
use serde_json::json;

/// How many sessions a sending device has.
pub(crate) const SESSIONS_A_SENDER: usize = 10;

/// A device that sends room keys.
struct Sender {
    key: Curve25519PublicKey,
    data: SenderData,
}

/// Sessions as they come with room keys: one room for each hundred. Of half of the senders the device is known and
/// signed, as it is of nearly all in the long run; of the other half it is still unknown.
pub(crate) fn inbound_sessions(count: usize) -> anyhow::Result<Vec<InboundGroupSession>> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(workers).next_multiple_of(SESSIONS_A_SENDER);
    let made: anyhow::Result<Vec<Vec<_>>> = thread::scope(|scope| {
        let start = |worker: usize| scope.spawn(move || some_sessions(worker * share..count.min((worker + 1) * share)));
        let work: Vec<_> = (0..workers).map(start).collect();
        let joined = work
            .into_iter()
            .map(|work| work.join().ok().context("a worker ended early")?);
        joined.collect()
    });
    Ok(made?.into_iter().flatten().collect())
}

fn some_sessions(numbers: Range<usize>) -> anyhow::Result<Vec<InboundGroupSession>> {
    let mut sessions = Vec::with_capacity(numbers.len());
    let mut sender = new_sender(0)?;
    for number in numbers {
        if number.is_multiple_of(SESSIONS_A_SENDER) {
            sender = new_sender(number / SESSIONS_A_SENDER)?;
        }
        sessions.push(inbound_session(&sender, &room(number / 100)?)?);
    }
    Ok(sessions)
}

fn new_sender(number: usize) -> anyhow::Result<Sender> {
    let id = OwnedUserId::try_from(format!("@sender{number}:example.org"))?;
    let data = match number.is_multiple_of(2) {
        true => SenderData::sender_unverified(&id, "SENDER".into(), Ed25519SecretKey::new().public_key()),
        false => SenderData::unknown(),
    };
    Ok(Sender {
        key: Curve25519PublicKey::from(&Curve25519SecretKey::new()),
        data,
    })
}

fn inbound_session(sender: &Sender, room: &RoomId) -> anyhow::Result<InboundGroupSession> {
    let key = GroupSession::new(SessionConfig::version_1()).session_key();
    Ok(InboundGroupSession::new(
        sender.key,
        Ed25519SecretKey::new().public_key(),
        room,
        &key,
        sender.data.clone(),
        None,
        EventEncryptionAlgorithm::MegolmV1AesSha2,
        None,
        false,
    )?)
}

fn room(number: usize) -> anyhow::Result<OwnedRoomId> {
    Ok(OwnedRoomId::try_from(format!("!room{number}:example.org"))?)
}

/// A session whose key went to so many devices, two a user, and which never expires by itself.
pub(crate) fn outbound_session(
    account: &StaticAccountData,
    room: &RoomId,
    devices: usize,
) -> anyhow::Result<OutboundGroupSession> {
    let mut shared_with_set: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, ShareInfo>> = BTreeMap::new();
    for number in 0..devices {
        let user = OwnedUserId::try_from(format!("@member{}:example.org", number / 2))?;
        let device = OwnedDeviceId::from(format!("DEVICE{number:04}"));
        let key = Curve25519PublicKey::from(&Curve25519SecretKey::new());
        let share = ShareInfo::new_shared(key, 0, Default::default());
        shared_with_set.entry(user).or_default().insert(device, share);
    }
    let pickle = PickledOutboundGroupSession {
        pickle: GroupSession::new(SessionConfig::version_1()).pickle(),
        settings: Arc::new(EncryptionSettings {
            rotation_period_msgs: u64::MAX,
            ..EncryptionSettings::default()
        }),
        room_id: room.to_owned(),
        creation_time: SecondsSinceUnixEpoch::now(),
        message_count: 0,
        shared: true,
        invalidated: false,
        shared_with_set,
        requests: BTreeMap::new(),
    };
    let keys = Arc::clone(&account.identity_keys);
    Ok(OutboundGroupSession::from_pickle(
        account.device_id.clone(),
        keys,
        pickle,
    )?)
}

/// After so many messages the engine wants another session, whatever the settings say.
pub(crate) const MESSAGES_A_SESSION: u64 = 9_999;

/// Devices as a key query gives them, two a user.
pub(crate) fn devices(count: usize) -> anyhow::Result<Vec<DeviceData>> {
    let device = |number: usize| {
        let user = OwnedUserId::try_from(format!("@member{}:example.org", number / 2))?;
        let id = OwnedDeviceId::from(format!("DEVICE{number:04}"));
        Ok(DeviceData::from_account(&Account::with_device_id(&user, &id)))
    };
    (0..count).map(device).collect()
}

/// A message of 100 bytes.
pub(crate) fn message() -> anyhow::Result<Raw<AnyMessageLikeEventContent>> {
    let content = json!({ "msgtype": "m.text", "body": "x".repeat(100) });
    Ok(Raw::new(&content)?.cast_unchecked())
}
