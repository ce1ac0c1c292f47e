#![doc = include_str!("../README.md")]

mod attachment;
mod builder;
mod client;
mod content;
mod doctor;
mod error;
mod fleet;
mod import;
mod login;
#[cfg(feature = "sqlite")]
mod moving;
mod private_file;
mod room;
mod session;
mod staging;
mod verification;
#[cfg(feature = "reqwest")]
mod way;

pub use mx_crypto_store as store;
pub use mx_olm_orchestrator as orchestrator;
pub use mx_olm_orchestrator::{
    Accept, BackupError, BackupHalt, BackupOnServer, BackupStatus, BackupStopped, Clock, DehydratedDeviceNotOpened,
    DehydrationError, DehydrationStatus, Device, DeviceOutcome, DeviceReceipt, DeviceRejected, DeviceTrust, Drift,
    Encryption, EncryptionChange, EncryptionTampered, Event, Explanation, Gap, Health, HistoryError, HistoryNotShared,
    HistoryReceived, HistoryRefused, HistoryRefusedReason, HistoryShared, IdentityChanged, IdentityError,
    IdentityProblem, IdentityStanding, IdentityStatus, Invite, KeyFile, KeyFileError, KeyRequests, KeyStatus,
    ListedDevice, ListedUser, Lost, LostBecause, Malformed, ManifestError, ManifestFile, MembershipChanged, Message,
    Options, Outlook, OwnIdentity, Problem, Progress, ProgressStep, Reader, ReaderDevice, ReaderIdentity, ReaderTrust,
    Readership, Recipients, Recovered, Refusal, Rehydrated, Rejected, RejectedReason, RoomKeyImport, RoomKeyStatus,
    RoomPolicy, RotationReason, SasEmoji, SecretStorageError, SecretStorageStatus, SendReceipt, SendRefused, Sent,
    SetUp, SetUpIdentity, SyncSource, Trust, TrustDrift, TrustManifest, Undecryptable, UndecryptableReason, Unlisted,
    UnusableReason, UserDevices, UserIdentityStatus, VerificationEnded, VerificationError, VerificationId,
    VerificationKeys, VerificationOutcome, VerificationQr, VerificationRequested, VerificationShown, VerificationState,
    VerifiedBy, WaitingCounts, Warning,
};
pub use mx_transport as transport;
pub use ruma;

#[cfg(feature = "foreign-stores")]
pub use self::import::ImportLogin;
#[cfg(feature = "sqlite")]
pub use self::moving::MovedDevice;
#[cfg(feature = "pictures")]
pub use self::verification::{qr_from_picture, qr_to_png, qr_to_text};
pub use self::{
    attachment::{Attachment, AttachmentKind, download::Files, error::AttachmentError, received::ReceivedFile},
    builder::ClientBuilder,
    client::{Client, RecoveryKeeping, invites::Invites},
    content::Content,
    doctor::{Check, Checkup, Facts, Finding, FindingCode, Findings, Looked, Severity},
    error::{Error, Result},
    fleet::Fleet,
    import::{ImportError, ImportedDevice},
    login::{LoginKinds, sso::SsoListener},
    private_file::write_private_file,
    room::{Room, SendOptions, people::Member, say::EventHead},
    session::Session,
    verification::{Decision, Verification, VerificationPolicy},
};
