#![doc = include_str!("../README.md")]

mod attachment;
mod builder;
mod client;
mod content;
mod error;
mod fleet;
mod login;
mod room;
mod session;
#[cfg(feature = "reqwest")]
mod way;

pub use mx_crypto_store as store;
pub use mx_olm_orchestrator as orchestrator;
pub use mx_olm_orchestrator::{
    Clock, Device, DeviceOutcome, DeviceReceipt, DeviceRejected, DeviceTrust, Encryption, EncryptionChange,
    EncryptionTampered, Event, Explanation, Gap, Health, IdentityChanged, Invite, KeyStatus, Lost, LostBecause,
    Malformed, Message, Options, Problem, Progress, ProgressStep, Recipients, Rejected, RejectedReason, RoomPolicy,
    RotationReason, SendReceipt, SendRefused, SyncSource, Trust, Undecryptable, UndecryptableReason, UnusableReason,
    WaitingCounts, Warning,
};
pub use mx_transport as transport;
pub use ruma;

pub use self::{
    attachment::{Attachment, AttachmentKind, download::Files, error::AttachmentError, received::ReceivedFile},
    builder::ClientBuilder,
    client::{Client, invites::Invites},
    content::Content,
    error::{Error, Result},
    fleet::Fleet,
    login::{LoginKinds, sso::SsoListener},
    room::{Member, Room, SendOptions, say::EventHead},
    session::Session,
};
