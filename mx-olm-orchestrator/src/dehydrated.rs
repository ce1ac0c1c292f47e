//! A dehydrated device (MSC3814): one that lives on the homeserver, encrypted, and takes room keys while no real device of
//! the account does.
//!
//! # Why
//! A bot whose disk is lost, or that is set up anew after a month, was given no keys in between: nobody knew a device of it.
//! A dehydrated device is known to everybody, signed by the account's identity, and its private keys lie on the homeserver
//! under a key that the secret storage has. Whoever recovers the identity opens it, takes the room keys that were sent to
//! it, and makes a new one.
//!
//! The engine makes and opens such a device. What it leaves to its caller is here: that a process that is killed goes on
//! where it was, that a homeserver which repeats itself or gives garbage is stopped, that a key which is here already is
//! not replaced by a worse one, and that the device is replaced now and then, so that its one-time keys do not run out. One
//! that another device of ours made is opened before it is replaced; where that cannot be, the app is told.

mod error;
mod made;
mod make;
mod not_opened;
mod page;
mod rehydrate;
mod status;

pub use self::{error::DehydrationError, rehydrate::Rehydrated, status::DehydrationStatus};
pub(crate) use self::{made::replace_soon, make::kept_key};

/// The name of the key in the secret storage.
const SECRET: &str = "org.matrix.msc3814";
