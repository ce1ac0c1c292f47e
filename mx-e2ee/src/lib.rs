#![doc = include_str!("../README.md")]

mod builder;
mod client;
mod error;
mod room;
mod session;

pub use mx_crypto_store as store;
pub use mx_olm_orchestrator as orchestrator;
pub use mx_olm_orchestrator::{
    Clock, DeviceOutcome, DeviceReceipt, Encryption, Event, Explanation, Gap, Invite, KeyStatus, Lost, LostBecause,
    Malformed, Message, Options, Recipients, Rejected, RejectedReason, SendReceipt, Trust, Undecryptable,
    UndecryptableReason, WaitingCounts,
};
pub use mx_transport as transport;
pub use ruma;

pub use self::{
    builder::ClientBuilder,
    client::Client,
    error::{Error, Result},
    room::{Member, Room},
    session::Session,
};
