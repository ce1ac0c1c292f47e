//! Our own cross-signing identity: made, uploaded, recovered, watched.
//!
//! # Why
//! The engine makes and checks keys; when each step happens, and what a process that died between two of them left behind,
//! is the business of its caller. Private keys are on the disk before their public halves are uploaded, and every step
//! may be repeated until all of it is done.

mod bundle;
mod create;
mod error;
pub(crate) mod own;
mod recover;
mod set_up;
mod status;

pub(crate) use self::{create::backup_not_kept, own::note_own_identity};
pub use self::{
    error::IdentityError,
    own::IdentityStanding,
    recover::Recovered,
    set_up::{KeepRecoveryKey, SetUp, SetUpIdentity},
    status::{IdentityProblem, IdentityStatus, SecretStorageStatus},
};
