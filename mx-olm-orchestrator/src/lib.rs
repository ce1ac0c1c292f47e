//! What makes the Matrix encryption engine safe to run unattended.
//!
//! [`Orchestrator`] holds one device: it publishes and tops up keys, discovers devices, opens sessions, shares room
//! keys, encrypts and decrypts, and remembers everything through units of work of `mx-crypto-store`, so that a crash
//! at any instruction loses nothing and uses no key twice. Requests go through a `mx_transport::Homeserver`.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use mx_crypto_store::{KeySource, PickleStore, backend::Memory};
//! # use mx_olm_orchestrator::{Event, Options, Orchestrator, Outgoing, Recipients};
//! # use mx_transport::Homeserver;
//! # async fn example(homeserver: Homeserver, key: KeySource) -> Result<(), Box<dyn std::error::Error>> {
//! let store = PickleStore::open(Arc::new(Memory::new()), key).await?;
//! let user = ruma::user_id!("@bot:example.org");
//! let device = Orchestrator::open(homeserver, store, user, "BOT".into(), Options::default()).await?;
//! device.publish_keys().await?;
//!
//! let receipt = device.send(Outgoing {
//!     room_id: ruma::room_id!("!abc:example.org").to_owned(),
//!     event_type: "m.room.message".into(),
//!     content: serde_json::json!({"msgtype": "m.text", "body": "the eagle lands at noon"}),
//!     recipients: Some(Recipients::Strict),
//!     into_tombstoned: false,
//! }).await?;
//! println!("{} can be read by {} devices", receipt.event_id, receipt.readable_by());
//!
//! device.sync(Duration::from_secs(30)).await?;
//! for delivery in device.inbox(None, 100).await? {
//!     if let Event::Message(message) = &delivery.event {
//!         println!("{}: {}", message.sender, message.body().unwrap_or("…"));
//!     }
//!     device.acknowledge(&[delivery]).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! # What is absent on purpose
//! No code here opens a socket or a file, and none of it does cryptography: the engine does, and only
//! `machine.rs`, `outgoing.rs`, `rollback.rs`, `error.rs`, `imported.rs`, `adopt.rs`, and `keys.rs`, `devices.rs`, `claims.rs`,
//! `receive.rs`, `send.rs`, `identity.rs`, `secrets.rs`, `backup.rs`, `history.rs`, `dehydrated.rs`, `trust_manifest.rs`,
//! `key_export.rs` and
//! `verification.rs` with their parts name it.

mod adopt;
mod backup;
mod claims;
mod clock;
mod dehydrated;
mod departure;
mod devices;
mod ended;
mod error;
mod event;
mod health;
mod history;
mod identity;
mod imported;
mod key_export;
mod keys;
mod machine;
mod members;
mod orchestrator;
mod outgoing;
mod receive;
mod rollback;
mod rooms;
mod secrets;
mod send;
mod sync_response;
mod trust_manifest;
mod unusable;
mod verification;

pub use self::{
    adopt::{AdoptedDevice, AdoptedRoomKey, AdoptedSender, AdoptedSession, KnownOthers},
    backup::{BackupError, BackupHalt, BackupOnServer, BackupStatus},
    clock::Clock,
    dehydrated::{DehydrationError, DehydrationStatus, Rehydrated},
    departure::Departure,
    devices::{DeviceTrust, ListedDevice, UserDevices, UserIdentityStatus},
    error::{Error, Result},
    event::{
        BackupStopped, DehydratedDeviceNotOpened, DeviceRejected, Encryption, EncryptionTampered, Event, Gap,
        HistoryNotShared, HistoryReceived, HistoryRefused, HistoryRefusedReason, IdentityChanged, Invite, Lost,
        LostBecause, Malformed, MembershipChanged, Message, OwnIdentity, Rejected, RejectedReason, SendRefused, Sent,
        Trust, TrustDrift, Undecryptable, UndecryptableReason,
    },
    health::{Health, Problem},
    history::{HistoryError, HistoryShared},
    identity::{
        IdentityError, IdentityProblem, IdentityStanding, IdentityStatus, KeepRecoveryKey, Recovered,
        SecretStorageStatus, SetUp, SetUpIdentity,
    },
    key_export::{KeyFile, KeyFileError, RoomKeyImport},
    keys::{KeyInspection, KeyStatus, ShownDevice},
    orchestrator::{Options, Orchestrator},
    receive::{
        Accept, Delivery, Explanation, KeyRequests, SyncSource, SyncSummary, ToDeviceRejected, ToDeviceRejectedReason,
        WaitingCounts,
    },
    rooms::EncryptionChange,
    secrets::{SecretStorage, SecretStorageError},
    send::{
        Device, DeviceOutcome, DeviceReceipt, Outgoing, Outlook, Progress, ProgressStep, Reader, ReaderDevice,
        ReaderIdentity, ReaderTrust, Readership, Recipients, Refusal, RoomKeyStatus, RoomPolicy, RotationReason,
        SendReceipt, Warning,
    },
    trust_manifest::{Drift, ListedUser, ManifestError, ManifestFile, TrustManifest, Unlisted},
    unusable::UnusableReason,
    verification::{
        SasEmoji, VerificationEnded, VerificationError, VerificationId, VerificationKeys, VerificationOutcome,
        VerificationQr, VerificationRequested, VerificationShown, VerificationState, VerifiedBy,
    },
};
