#![doc = include_str!("../README.md")]

mod attachment;
mod builder;
mod client;
mod content;
mod error;
mod fleet;
mod login;
mod private_file;
mod room;
mod session;
mod verification;
#[cfg(feature = "reqwest")]
mod way;

pub use mx_crypto_store as store;
pub use mx_olm_orchestrator as orchestrator;
pub use mx_olm_orchestrator::{
    Accept, BackupError, BackupHalt, BackupOnServer, BackupStatus, BackupStopped, Clock, Device, DeviceOutcome,
    DeviceReceipt, DeviceRejected, DeviceTrust, Drift, Encryption, EncryptionChange, EncryptionTampered, Event,
    Explanation, Gap, Health, IdentityChanged, IdentityError, IdentityProblem, IdentityStanding, IdentityStatus,
    Invite, KeyFile, KeyFileError, KeyRequests, KeyStatus, ListedUser, Lost, LostBecause, Malformed, ManifestError,
    Message, Options, OwnIdentity, Problem, Progress, ProgressStep, Recipients, Recovered, Rejected, RejectedReason,
    RoomKeyImport, RoomPolicy, RotationReason, SasEmoji, SecretStorageError, SecretStorageStatus, SendReceipt,
    SendRefused, SetUp, SetUpIdentity, SyncSource, Trust, TrustDrift, TrustManifest, Undecryptable,
    UndecryptableReason, Unlisted, UnusableReason, UserIdentityStatus, VerificationEnded, VerificationError,
    VerificationId, VerificationKeys, VerificationOutcome, VerificationQr, VerificationRequested, VerificationState,
    WaitingCounts, Warning,
};
pub use mx_transport as transport;
pub use ruma;

#[cfg(feature = "pictures")]
pub use self::verification::{qr_from_picture, qr_to_png, qr_to_text};
pub use self::{
    attachment::{Attachment, AttachmentKind, download::Files, error::AttachmentError, received::ReceivedFile},
    builder::ClientBuilder,
    client::{Client, RecoveryKeeping, invites::Invites},
    content::Content,
    error::{Error, Result},
    fleet::Fleet,
    login::{LoginKinds, sso::SsoListener},
    private_file::write_private_file,
    room::{Member, Room, SendOptions, say::EventHead},
    session::Session,
    verification::{Decision, Verification, VerificationPolicy},
};
