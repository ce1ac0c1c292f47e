#![doc = include_str!("../README.md")]

mod builder;
mod client;
mod error;
mod room;
mod session;

pub use mx_crypto_store as store;
pub use mx_olm_orchestrator as orchestrator;
pub use mx_olm_orchestrator::{
    Clock, DeviceOutcome, DeviceReceipt, DeviceRejected, Encryption, Event, Explanation, Gap, Health, IdentityChanged,
    Invite, KeyStatus, Lost, LostBecause, Malformed, Message, Options, Problem, Progress, ProgressStep, Recipients,
    Rejected, RejectedReason, SendReceipt, SendRefused, Trust, Undecryptable, UndecryptableReason, UnusableReason,
    WaitingCounts,
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
