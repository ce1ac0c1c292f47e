//! A device that another client held, taken over into an empty store: its keys, its Olm sessions, its room keys.
//!
//! # Why
//! A device is its keys. Logging in anew would make another one, which nobody has verified and which reads nothing of
//! before; keys that go on are known to everybody, and sessions that are in use go on where they are.
//!
//! Outbound room keys are not taken: who got them is not known well enough, and the first message makes a new one.

use matrix_sdk_crypto::{
    DeviceData, LocalTrust, Session, UserIdentityData,
    olm::{
        Account, Curve25519PublicKey, InboundGroupSession, PickledAccount, PickledCrossSigningIdentity,
        PickledInboundGroupSession, PickledSession, PrivateCrossSigningIdentity, SenderData,
    },
    store::{
        CryptoStore as _,
        types::{Changes, PendingChanges},
    },
    types::{DeviceKeys, EventEncryptionAlgorithm, SigningKeys},
    vodozemac::{
        Ed25519PublicKey,
        megolm::InboundGroupSessionPickle,
        olm::{Account as OlmAccount, AccountPickle, SessionPickle},
    },
};
use mx_crypto_store::PickleStore;
use ruma::{
    DeviceKeyAlgorithm, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedRoomId, OwnedUserId, SecondsSinceUnixEpoch,
    UInt,
};

use crate::{Error, Result};

/// A device as another client held it.
///
/// ```no_run
/// # use mx_crypto_store::PickleStore;
/// # use matrix_sdk_crypto::vodozemac::olm::AccountPickle;
/// # async fn example(store: PickleStore, account: AccountPickle) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::AdoptedDevice;
/// use ruma::{owned_device_id, owned_user_id};
///
/// let mut adopted = AdoptedDevice::new(owned_user_id!("@bot:example.org"), owned_device_id!("BOT"), account);
/// adopted.since = Some("the token of its last sync".to_owned());
/// println!("its fingerprint stays {}", adopted.identity_keys().0.to_base64());
/// adopted.put_into(&store).await?;
/// # Ok(()) }
/// ```
pub struct AdoptedDevice {
    /// Whose device it is.
    pub user_id: OwnedUserId,
    /// Its id.
    pub device_id: OwnedDeviceId,
    account: OlmAccount,
    /// Its sessions with other devices, of each device the one that it sends with last.
    pub sessions: Vec<AdoptedSession>,
    /// The room keys that it was given.
    pub room_keys: Vec<AdoptedRoomKey>,
    /// Room keys that were kept by this engine, with what is known of whose they are.
    pub kept_room_keys: Vec<PickledInboundGroupSession>,
    /// Other devices and identities, as this engine knew them: what was decided about them goes on, too.
    pub known: KnownOthers,
    /// The private keys of our identity, as far as the device has them.
    pub identity: Option<PickledCrossSigningIdentity>,
    /// Up to where it has seen what the homeserver has for it. `None`: from the beginning.
    pub since: Option<String>,
}

/// What an engine knows of devices and identities.
///
/// ```no_run
/// # use matrix_sdk_crypto::{DeviceData, UserIdentityData};
/// # fn example(mut adopted: mx_olm_orchestrator::AdoptedDevice, devices: Vec<DeviceData>, identities: Vec<UserIdentityData>) {
/// use mx_olm_orchestrator::KnownOthers;
///
/// // As another store of this engine has them: who was verified there is verified here.
/// adopted.known = KnownOthers { devices, identities };
/// # }
/// ```
#[derive(Debug, Default)]
pub struct KnownOthers {
    /// Devices, our own as well.
    pub devices: Vec<DeviceData>,
    /// Identities, our own as well.
    pub identities: Vec<UserIdentityData>,
}

impl std::fmt::Debug for AdoptedDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptedDevice")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .field("sessions", &self.sessions.len())
            .field("room_keys", &(self.room_keys.len() + self.kept_room_keys.len()))
            .finish_non_exhaustive()
    }
}

/// An Olm session with another device.
///
/// ```no_run
/// # use matrix_sdk_crypto::vodozemac::{Curve25519PublicKey, olm::SessionPickle};
/// # fn example(mut adopted: mx_olm_orchestrator::AdoptedDevice, curve25519: Curve25519PublicKey, pickle: SessionPickle) {
/// use mx_olm_orchestrator::AdoptedSession;
///
/// // Without it, the first message to that device takes one of its one-time keys.
/// adopted.sessions.push(AdoptedSession { curve25519, pickle });
/// # }
/// ```
pub struct AdoptedSession {
    /// The other device's key.
    pub curve25519: Curve25519PublicKey,
    /// The session.
    pub pickle: SessionPickle,
}

impl std::fmt::Debug for AdoptedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptedSession")
            .field("curve25519", &self.curve25519)
            .finish_non_exhaustive()
    }
}

/// Whose a room key is.
///
/// ```no_run
/// # fn example(looked_up: Option<matrix_sdk_crypto::types::DeviceKeys>) -> mx_olm_orchestrator::AdoptedSender {
/// use mx_olm_orchestrator::AdoptedSender;
///
/// match looked_up {
///     Some(keys) => AdoptedSender::Device(Box::new(keys)),
///     // Its messages are read, and nobody vouches for who wrote them.
///     None => AdoptedSender::Unknown(None),
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub enum AdoptedSender {
    /// A device whose keys were looked up and are signed by itself.
    Device(Box<DeviceKeys>),
    /// What the other client knew: a fingerprint, or nothing. Its messages are read, and marked as those of a key that was
    /// imported.
    Unknown(Option<Ed25519PublicKey>),
}

/// A room key that the device was given.
///
/// ```no_run
/// # use matrix_sdk_crypto::vodozemac::megolm::InboundGroupSessionPickle;
/// # fn example(mut adopted: mx_olm_orchestrator::AdoptedDevice, pickle: InboundGroupSessionPickle) {
/// use mx_olm_orchestrator::{AdoptedRoomKey, AdoptedSender};
///
/// let room_id = ruma::owned_room_id!("!alerts:example.org");
/// adopted.room_keys.push(AdoptedRoomKey { room_id, sender: AdoptedSender::Unknown(None), pickle });
/// # }
/// ```
pub struct AdoptedRoomKey {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Whose it is.
    pub sender: AdoptedSender,
    /// The key.
    pub pickle: InboundGroupSessionPickle,
}

impl std::fmt::Debug for AdoptedRoomKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptedRoomKey")
            .field("room_id", &self.room_id)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl AdoptedDevice {
    /// A device with its account, and nothing else yet.
    ///
    /// What the other client made and did not mark as published counts as published: it may have been, and a one-time key
    /// must not be given out twice.
    #[must_use]
    pub fn new(user_id: OwnedUserId, device_id: OwnedDeviceId, account: AccountPickle) -> Self {
        let mut account = OlmAccount::from_pickle(account);
        account.mark_keys_as_published();
        Self {
            user_id,
            device_id,
            account,
            sessions: Vec::new(),
            room_keys: Vec::new(),
            kept_room_keys: Vec::new(),
            known: KnownOthers::default(),
            identity: None,
            since: None,
        }
    }

    /// The keys that everybody knows the device by: its fingerprint (Ed25519), and the other one (Curve25519).
    #[must_use]
    pub fn identity_keys(&self) -> (Ed25519PublicKey, Curve25519PublicKey) {
        let keys = self.account.identity_keys();
        (keys.ed25519, keys.curve25519)
    }

    /// Put it into an empty store, in which [`Orchestrator::open`](crate::Orchestrator::open) finds it. The other client
    /// must not run any more: two that use one device lose messages of both.
    ///
    /// # Errors
    /// [`Error::StoreOfAnotherDevice`] when there is a device in the store; of the store.
    ///
    /// # Cancel safety
    /// The device itself comes last: a store of which this was interrupted holds none, and is given it again.
    pub async fn put_into(self, store: &PickleStore) -> Result<()> {
        if let Some(found) = store.device().await? {
            return Err(Error::StoreOfAnotherDevice {
                expected: (self.user_id, self.device_id),
                found,
            });
        }
        let account = Account::from_pickle(PickledAccount {
            user_id: self.user_id,
            device_id: self.device_id,
            pickle: self.account.pickle(),
            shared: true,
            dehydrated: false,
            // The homeserver says so with the first sync.
            uploaded_signed_key_count: 0,
            creation_local_time: MilliSecondsSinceUnixEpoch::now(),
            fallback_key_creation_timestamp: None,
        })
        .map_err(refused)?;
        let keys = account.device_keys();
        let mut changes = Changes {
            next_batch_token: self.since,
            ..Changes::default()
        };
        let ours = (account.user_id(), account.device_id());
        changes.devices.new = self.known.devices;
        changes
            .devices
            .new
            .retain(|device| (device.user_id(), device.device_id()) != ours);
        changes
            .devices
            .new
            .push(DeviceData::new(keys.clone(), LocalTrust::Verified));
        changes.identities.new = self.known.identities;
        if let Some(identity) = self.identity {
            changes.private_identity = Some(PrivateCrossSigningIdentity::from_pickle(identity).map_err(refused)?);
        }
        changes.sessions = sessions(&keys, self.sessions)?;
        let kept = self.kept_room_keys.into_iter();
        let kept = kept.map(|key| InboundGroupSession::from_pickle(key).map_err(refused));
        let room_keys = self.room_keys.into_iter().map(room_key);
        changes.inbound_group_sessions = room_keys.chain(kept).collect::<Result<_>>()?;
        store.save_changes(changes).await?;
        let account = Some(account);
        store.save_pending_changes(PendingChanges { account }).await?;
        Ok(())
    }
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Engine {
        reason: error.to_string(),
    }
}

/// The engine sends with the session of a device that is newest.
fn sessions(ours: &DeviceKeys, adopted: Vec<AdoptedSession>) -> Result<Vec<Session>> {
    let first = u64::from(SecondsSinceUnixEpoch::now().get()).saturating_sub(adopted.len() as u64);
    adopted
        .into_iter()
        .zip(first..)
        .map(|(adopted, time)| {
            let time = SecondsSinceUnixEpoch(UInt::try_from(time).unwrap_or_default());
            let pickled = PickledSession {
                pickle: adopted.pickle,
                sender_key: adopted.curve25519,
                created_using_fallback_key: false,
                creation_time: time,
                last_use_time: time,
            };
            Session::from_pickle(ours.clone(), pickled).map_err(refused)
        })
        .collect()
}

fn room_key(adopted: AdoptedRoomKey) -> Result<InboundGroupSession> {
    let (device, fingerprint) = match adopted.sender {
        AdoptedSender::Device(keys) => {
            let fingerprint = keys.ed25519_key();
            (Some(keys), fingerprint)
        }
        AdoptedSender::Unknown(fingerprint) => (None, fingerprint),
    };
    let mut signing_key = SigningKeys::new();
    if let Some(key) = fingerprint {
        signing_key.insert(DeviceKeyAlgorithm::Ed25519, key.into());
    }
    let curve25519 = device.as_ref().and_then(|keys| keys.curve25519_key());
    InboundGroupSession::from_pickle(PickledInboundGroupSession {
        pickle: adopted.pickle,
        // The engine wants one; whose key this is nobody knows, and the key says so: it is imported.
        sender_key: curve25519.unwrap_or_else(|| Curve25519PublicKey::from_bytes([0; 32])),
        signing_key,
        imported: curve25519.is_none(),
        sender_data: device.map_or_else(SenderData::unknown, |keys| SenderData::device_info(*keys)),
        forwarder_data: None,
        room_id: adopted.room_id,
        backed_up: false,
        history_visibility: None,
        algorithm: EventEncryptionAlgorithm::MegolmV1AesSha2,
        shared_history: false,
    })
    .map_err(refused)
}
