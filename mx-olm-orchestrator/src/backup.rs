//! The server-side key backup: made, used, filled in the background, restored.
//!
//! # Why
//! Whoever runs the homeserver can show another backup with another key, and read from then on every room key that is put
//! into it; the engine encrypts for whatever key it is given. A backup is used here only when the private key that we hold
//! belongs to it, and such a key comes from ourselves, from secret storage whose key was proven, or from a verified device.
//! What comes out of a backup proves nothing about who made it: its algorithm has no authentication (reference: cases,
//! EX-07), so that it counts as imported.

mod error;
mod fetch;
mod given;
mod restore;
mod status;
mod upload;
mod version;

pub use self::{
    error::BackupError,
    status::{BackupHalt, BackupOnServer, BackupStatus},
};
pub(crate) use self::{status::is_active, upload::BackupPace};
