//! What can go wrong in the orchestrator, as the caller's next step.

mod code;
mod engine;
mod words;

use std::collections::BTreeSet;

use mx_crypto_store::StoreError;
use mx_transport::RequestError;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedTransactionId, OwnedUserId};

use self::words::{at, colliding, listed, reasons};
use crate::{
    BackupError, DehydrationError, DeviceReceipt, HistoryError, IdentityError, KeyFileError, ManifestError,
    SecretStorageError, VerificationError,
};

/// Shorthand of this crate.
///
/// ```no_run
/// use mx_olm_orchestrator::{Orchestrator, Outgoing, SendReceipt};
///
/// async fn send_carefully(device: &Orchestrator, what: Outgoing) -> mx_olm_orchestrator::Result<SendReceipt> {
///     device.send(what).await
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every variant has a stable [`code`](Self::code) and a sentence that says what to do.
///
/// ```no_run
/// # use mx_olm_orchestrator::{Error, Orchestrator, Outgoing};
/// # async fn example(device: Orchestrator, outgoing: Outgoing) -> Result<(), Error> {
/// match device.send(outgoing).await {
///     Ok(receipt) => println!("{}", receipt.event_id),
///     Err(Error::SendPending { transaction_id, .. }) => println!("{transaction_id} is safe, and is sent later"),
///     Err(Error::RecipientsUnknown { users, .. }) => println!("nothing was sent, for the devices of {users:?} are unknown"),
///     Err(error) => println!("{error} [{}]", error.code()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),

    /// The homeserver could not be reached, or refused.
    #[error(transparent)]
    Request(#[from] RequestError),

    /// A key file cannot be made or taken.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),

    /// Our own identity cannot be made, recovered or used.
    #[error(transparent)]
    Identity(#[from] IdentityError),

    /// Secret storage cannot be used.
    #[error(transparent)]
    SecretStorage(#[from] SecretStorageError),

    /// The key backup cannot be used.
    #[error(transparent)]
    Backup(#[from] BackupError),

    /// A dehydrated device cannot be made or opened.
    #[error(transparent)]
    Dehydration(#[from] DehydrationError),

    /// The history of a room cannot be shared.
    #[error(transparent)]
    History(#[from] HistoryError),

    /// The trust manifest cannot be used, or what there is differs from it.
    #[error(transparent)]
    Manifest(#[from] ManifestError),

    /// The recovery key could not be kept, and is not used.
    #[error("the recovery key could not be kept, and nothing depends on it: see to where it goes, and try again")]
    Kept {
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// A step of a verification was not taken.
    #[error(transparent)]
    Verification(#[from] VerificationError),

    /// The room's events are not encrypted.
    #[error("room {room} is not encrypted: mark it as encrypted first, or send plaintext on purpose")]
    RoomNotEncrypted {
        /// The room.
        room: OwnedRoomId,
    },

    /// The room's state cannot be read by us, so that nothing can be sent to it.
    #[error("not in room {room}, or there is no such room: join it first, and check the room id")]
    NotInRoom {
        /// The room.
        room: OwnedRoomId,
    },

    /// Plaintext was to be sent to a room that is known as encrypted.
    #[error("room {room} is encrypted: plaintext is never sent to it")]
    RoomIsEncrypted {
        /// The room.
        room: OwnedRoomId,
    },

    /// The room asks for an encryption that no audited engine offers.
    #[error(
        "room {room} asks for the encryption algorithm {algorithm:?}, which is not supported: only m.megolm.v1.aes-sha2 is"
    )]
    UnsupportedAlgorithm {
        /// The room.
        room: OwnedRoomId,
        /// What the room's state names.
        algorithm: String,
    },

    /// The room was replaced by another one. Nothing was sent.
    #[error(
        "room {room} was replaced{}, nothing was sent: send there, or say that you mean the old room",
        replacement.as_ref().map(|room| format!(" by {room}")).unwrap_or_default()
    )]
    RoomTombstoned {
        /// The room.
        room: OwnedRoomId,
        /// Where people went, where the room says so.
        replacement: Option<OwnedRoomId>,
    },

    /// Who is in the room is not known for certain. Nothing was sent.
    #[error("the list of members of room {room} is not complete ({reason}), nothing was sent: try again later")]
    MembersIncomplete {
        /// The room.
        room: OwnedRoomId,
        /// What is wrong with the list.
        reason: &'static str,
        /// Why the homeserver did not give it, where that is the reason.
        #[source]
        source: Option<RequestError>,
    },

    /// Members are not among those who are allowed to read. Nothing was sent.
    #[error(
        "{} member(s) of room {room} are not among the allowed recipients ({}), nothing was sent: remove them from the \
         room, or allow them", users.len(), listed(users)
    )]
    RecipientNotAllowed {
        /// The room.
        room: OwnedRoomId,
        /// Who is not allowed.
        users: BTreeSet<OwnedUserId>,
    },

    /// The device has another fingerprint than the one that was to be trusted. Nothing was changed.
    #[error(
        "device {device} of {user} has the fingerprint {found}, which is not the one that was given: do not trust it \
         before its owner has told you why"
    )]
    FingerprintMismatch {
        /// Whose device.
        user: OwnedUserId,
        /// The device.
        device: OwnedDeviceId,
        /// The Ed25519 key that it has.
        found: String,
    },

    /// The devices of some members are unknown, which is not the same as absent. Nothing was sent.
    #[error(
        "the devices of {} member(s) of room {room} are unknown ({}), nothing was sent: try again when their \
         servers answer, or send with best effort",
        users.len(), listed(users)
    )]
    RecipientsUnknown {
        /// The room.
        room: OwnedRoomId,
        /// Whose devices are unknown.
        users: BTreeSet<OwnedUserId>,
        /// Servers that our homeserver could not reach, where it named them.
        servers: BTreeSet<OwnedServerName>,
    },

    /// The room key would reach nobody else. Nothing was sent.
    #[error(
        "none of the {} other device(s) in room {room} can be given the room key, nothing was sent{}: \
         verify those that are not trusted; wait until others publish good keys, or ask their owners to sign in again",
        devices.len(), reasons(devices)
    )]
    NoUsableRecipients {
        /// The room.
        room: OwnedRoomId,
        /// The devices that the homeserver named, each with what is wrong with it.
        devices: Vec<DeviceReceipt>,
        /// Who may read and has no device at all.
        users_without_devices: Vec<OwnedUserId>,
    },

    /// No one-time keys could be had for the devices that have no session with us. Nothing was sent.
    #[error("one-time keys could not be claimed, nothing was sent: try again later, or send with best effort")]
    ClaimFailed {
        /// Why the last attempt did not end.
        #[source]
        source: RequestError,
    },

    /// The room key could not be brought to all of its readers. The event was not sent; what is missing is put, as it is,
    /// by the next send.
    #[error(
        "only {delivered} of {} parts of the key of room {room} could be delivered, and the event was not sent: send it \
         again, which delivers the rest", delivered + outstanding
    )]
    KeyShareIncomplete {
        /// The room.
        room: OwnedRoomId,
        /// How many requests were delivered now.
        delivered: usize,
        /// How many were not.
        outstanding: usize,
        /// Why one of them was not.
        #[source]
        source: Box<RequestError>,
    },

    /// Verified users have another cross-signing identity than the one that was verified. Nothing was sent.
    #[error(
        "the identity of {} verified user(s) was replaced ({}), nothing was sent: verify them again, or withdraw \
         their verification", users.len(), listed(users)
    )]
    IdentityChanged {
        /// Whose identity.
        users: BTreeSet<OwnedUserId>,
    },

    /// The store belongs to another device.
    #[error(
        "this store belongs to {} device {}, and the login is {} device {}: use the store of this login, \
         or log in again with an empty store", found.0, found.1, expected.0, expected.1
    )]
    StoreOfAnotherDevice {
        /// Who we are logged in as.
        expected: (OwnedUserId, OwnedDeviceId),
        /// Whose store it is.
        found: (OwnedUserId, OwnedDeviceId),
    },

    /// The homeserver holds other identity keys for our device id than the store does.
    #[error(
        "the homeserver already holds other identity keys for device {device}: the store of that device was \
         lost or replaced, so log out and log in again for a new device"
    )]
    DeviceKeysMismatch {
        /// Our device id.
        device: OwnedDeviceId,
    },

    /// Our device is not among our user's devices any more. Nothing is uploaded or sent; the store is kept.
    #[error(
        "device {device} was deleted on the homeserver, and its keys with it: log out, and log in again for a new device"
    )]
    OwnDeviceDeleted {
        /// Our device id.
        device: OwnedDeviceId,
    },

    /// What devices a user has is not known.
    #[error("the devices of {user} are not known: their homeserver did not answer, or left them out; try again later")]
    DevicesUnknown {
        /// Whose.
        user: OwnedUserId,
    },

    /// The device left this store, and goes on where a copy of it arrived.
    #[error(
        "device {device} was moved away from here, and goes on there: two copies of one device lose messages of both, so \
         this one is not opened"
    )]
    DeviceMoved {
        /// Our device id.
        device: OwnedDeviceId,
        /// Since when, in milliseconds since the Unix epoch.
        since_ms: u64,
    },

    /// Events wait in the outbox of a store whose device is to leave it.
    #[error(
        "{count} event(s) wait to be sent: open the device once more, with the homeserver in reach, and then move it"
    )]
    UnsentEvents {
        /// How many.
        count: usize,
    },

    /// The homeserver holds other one-time keys than ours under our names: another store publishes as this device.
    /// Nothing is sent until that is acknowledged; receiving goes on.
    #[error(
        "the homeserver knows {} of this device with another content: its store was restored from a backup, or a copy \
         of it is running elsewhere. Stop the copy; then log in again for a new device, or acknowledge the conflict",
        colliding(ids)
    )]
    OneTimeKeyConflict {
        /// The key ids that the homeserver named. Empty: it named none.
        ids: BTreeSet<String>,
    },

    /// An event of this device was seen that its store has not sent: the store was set back, or another copy of it runs.
    /// Nothing is sent until that is acknowledged; receiving goes on.
    #[error(
        "event {event} in room {room} was sent as this device and not from this store: the store was restored from a \
         backup, or a copy of it is running elsewhere. Stop the copy; then log in again for a new device, or acknowledge \
         the rollback"
    )]
    StoreRolledBack {
        /// The room.
        room: OwnedRoomId,
        /// The event.
        event: OwnedEventId,
    },

    /// The event would be larger than a homeserver accepts. The ratchet did not move.
    #[error(
        "the content of the event would take {bytes} bytes and at most {max} are accepted in this room: send less, or send \
         a file"
    )]
    TooLarge {
        /// What the content would take, encrypted where the room is, in bytes.
        bytes: usize,
        /// The most that leaves room for what a homeserver adds, in bytes.
        max: usize,
    },

    /// The content is not what a Matrix event may hold. The ratchet did not move.
    #[error("the content cannot be sent: {reason}{}", at(path))]
    BadContent {
        /// What is wrong with it.
        reason: &'static str,
        /// Where, as a JSON pointer. Keys that are no names as events have them are shown as `*`. Empty: all of it.
        path: String,
    },

    /// The event is encrypted and in the outbox; whether the homeserver has it is not known.
    #[error(
        "the event is safe in the outbox (transaction {transaction_id}) and was not confirmed by the homeserver: \
         it is sent again, once, with the next send or sync"
    )]
    SendPending {
        /// The transaction id, the same at every attempt.
        transaction_id: OwnedTransactionId,
        /// Why the last attempt did not end.
        #[source]
        source: RequestError,
    },

    /// An earlier event of the room is in the outbox and goes first. Nothing of this one was kept.
    #[error(
        "an earlier event of the room (transaction {transaction_id}) is still not confirmed by the homeserver and goes first: \
         nothing of this one was kept, send it again later"
    )]
    EarlierSendPending {
        /// The transaction id of the earlier event.
        transaction_id: OwnedTransactionId,
        /// Why its last attempt did not end.
        #[source]
        source: RequestError,
    },

    /// The homeserver answered a sync with something that is not one. Nothing was taken from it.
    #[error("the homeserver's answer to /sync cannot be read: {reason}; nothing was lost, try again")]
    MalformedSync {
        /// What is wrong with it.
        reason: String,
    },

    /// The engine refused. Nothing was changed.
    #[error("the encryption engine refused: {reason}")]
    Engine {
        /// In the engine's words.
        reason: String,
    },

    /// The engine stopped in the middle of a unit of work, which was undone.
    #[error("the encryption engine stopped unexpectedly; the work was undone and it may be tried again")]
    EngineStopped,
}
