//! Whose a room key is: what the other client remembered, held against what its sender's devices publish.

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk_crypto::{
    DeviceData,
    types::DeviceKeys,
    vodozemac::{Ed25519PublicKey, megolm::InboundGroupSessionPickle},
};
use mx_olm_orchestrator::{AdoptedDevice, AdoptedRoomKey, AdoptedSender};
use mx_transport::{Call, Homeserver};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, api::client::keys::get_keys};

use super::ImportError;
use crate::Result;

/// How many users are asked about at a time.
const USERS: usize = 250;

/// A room key as the other client held it.
pub(super) struct FoundRoomKey {
    pub(super) room_id: OwnedRoomId,
    pub(super) pickle: InboundGroupSessionPickle,
    /// Who gave it, with which fingerprint, if that was proven when it came.
    pub(super) sender: Option<(OwnedUserId, Ed25519PublicKey)>,
    /// A fingerprint that was not proven.
    pub(super) claimed: Option<Ed25519PublicKey>,
}

/// The devices of everybody who gave room keys, by fingerprint, and the servers of whose users nobody could say.
pub(super) struct Senders {
    devices: BTreeMap<(OwnedUserId, String), DeviceKeys>,
    unreachable: BTreeSet<OwnedServerName>,
}

impl Senders {
    /// Ask for them, and for our own device, whose published keys must be the ones that were found.
    pub(super) async fn of(homeserver: &Homeserver, ours: &AdoptedDevice, keys: &[FoundRoomKey]) -> Result<Self> {
        let mut users: BTreeSet<OwnedUserId> = keys
            .iter()
            .filter_map(|key| Some(key.sender.as_ref()?.0.clone()))
            .collect();
        users.insert(ours.user_id.clone());
        let users: Vec<OwnedUserId> = users.into_iter().collect();
        let mut found = BTreeMap::new();
        let mut unreachable = BTreeSet::new();
        for users in users.chunks(USERS) {
            let mut request = get_keys::v3::Request::new();
            request.device_keys = users.iter().map(|user| (user.clone(), Vec::new())).collect();
            let answer = homeserver.send_with(request, Call::repeatable()).await?;
            // Who is not in the answer, or of a server that could not be asked, is unknown, and not without devices.
            let unknown = users.iter().filter(|user| {
                !answer.device_keys.contains_key(*user) || answer.failures.contains_key(user.server_name().as_str())
            });
            unreachable.extend(
                unknown
                    .filter(|user| **user != ours.user_id)
                    .map(|user| user.server_name().to_owned()),
            );
            for (user, devices) in answer.device_keys {
                for (id, keys) in devices {
                    let Ok(keys) = keys.deserialize_as_unchecked::<DeviceKeys>() else {
                        continue;
                    };
                    // Under the name that it gives itself, and signed by itself.
                    if keys.user_id != user || keys.device_id != id || DeviceData::try_from(&keys).is_err() {
                        continue;
                    }
                    if let Some(fingerprint) = keys.ed25519_key() {
                        found.insert((user.clone(), fingerprint.to_base64()), keys);
                    }
                }
            }
        }
        let senders = Self {
            devices: found,
            unreachable,
        };
        senders.has_published(ours)?;
        Ok(senders)
    }

    /// Refuse while there is a server that can still be asked one day: what is taken as nobody's now stays so.
    pub(super) fn are_known(&self) -> Result<()> {
        if self.unreachable.is_empty() {
            return Ok(());
        }
        Err(ImportError::Unreachable {
            servers: self.unreachable.iter().cloned().collect(),
        }
        .into())
    }

    fn has_published(&self, ours: &AdoptedDevice) -> Result<()> {
        let (ed25519, curve25519) = ours.identity_keys();
        let published = self.devices.get(&(ours.user_id.clone(), ed25519.to_base64()));
        let is_ours =
            published.is_some_and(|keys| keys.device_id == ours.device_id && keys.curve25519_key() == Some(curve25519));
        if is_ours {
            return Ok(());
        }
        Err(ImportError::OtherDevice {
            wanted: format!("device {} with the fingerprint {}", ours.device_id, ed25519.to_base64()),
            found: "a device without keys, or with other ones".to_owned(),
        }
        .into())
    }

    /// Say of each key whose it is.
    pub(super) fn resolve(&self, keys: Vec<FoundRoomKey>) -> Vec<AdoptedRoomKey> {
        let resolved = keys.into_iter().map(|key| {
            let proven = key.sender.as_ref();
            let device =
                proven.and_then(|(user, fingerprint)| self.devices.get(&(user.clone(), fingerprint.to_base64())));
            let fingerprint = key.sender.as_ref().map(|(_, fingerprint)| *fingerprint).or(key.claimed);
            AdoptedRoomKey {
                room_id: key.room_id,
                pickle: key.pickle,
                sender: device.map_or(AdoptedSender::Unknown(fingerprint), |keys| {
                    AdoptedSender::Device(Box::new(keys.clone()))
                }),
            }
        });
        resolved.collect()
    }
}

pub(super) fn of_unknown_devices(device: &AdoptedDevice) -> usize {
    let unknown = device
        .room_keys
        .iter()
        .filter(|key| matches!(key.sender, AdoptedSender::Unknown(_)));
    unknown.count() + device.kept_room_keys.iter().filter(|key| key.imported).count()
}
