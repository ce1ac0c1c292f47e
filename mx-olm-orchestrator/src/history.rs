//! History shared on invitation: room keys for who comes later, given and taken (MSC4268, "Sharing room keys for past
//! messages").
//!
//! # Why
//! Who gives keys away cannot take them back, and a homeserver decides whom it shows as invited: nothing is shared unless
//! our own user says for whom, nothing but keys of times when the room let newcomers read, and only devices that the
//! invited user's identity has signed are told where the bundle is. Who takes keys takes the giver's word for whose they
//! are: a bundle is taken only of who invited us, from a device that their identity has signed, and what its keys open is
//! marked as [`Trust::Imported`](crate::Trust::Imported), whoever is named as its sender.
//!
//! The engine finds, encrypts and merges keys. What it leaves to its caller is here: the file and its hash, limits, what
//! survives a kill, and that no key of a bundle is in the way of a real one.

mod bundle;
mod came;
mod deliver;
mod due;
mod error;
mod share;
mod take;
mod wanted;

pub(crate) use self::{
    came::came,
    due::Inviting,
    wanted::{forget as forget_wanted, want},
};
pub use self::{error::HistoryError, share::HistoryShared};
