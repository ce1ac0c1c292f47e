//! A sealed, durable store for Matrix end-to-end encryption: one unit of work, any storage engine.
//!
//! [`SealedStore`] keeps records in any [`Backend`](backend::Backend): each is sealed with XChaCha20-Poly1305 and bound
//! to its place, row names say nothing, and a [`Unit`] of work makes many writes one durable commit. [`PickleStore`]
//! (feature `engine`) is on top of it the complete `CryptoStore` of `matrix-sdk-crypto`, whose writes join the unit
//! that is open.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), mx_crypto_store::StoreError> {
//! use std::sync::Arc;
//! use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
//!
//! const SEEN: Family = Family::new("seen");
//! let key = KeySource::Bytes(StoreKey::from_bytes([7; 32])); // or KeySource::File("pickle.key".into())
//! let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
//!
//! let unit = store.begin().await?;
//! unit.put(&RecordId::named(SEEN, &["!room"], "$event"), &42)?;
//! assert_eq!(store.record::<u32>(&RecordId::named(SEEN, &["!room"], "$event")).await?, None);
//! unit.commit().await?; // on the disk now
//! assert_eq!(store.record::<u32>(&RecordId::named(SEEN, &["!room"], "$event")).await?, Some(42));
//! # Ok(()) }
//! ```
//!
//! # Engines
//!
//! | engine | feature | survives a killed process | survives a power cut |
//! |---|---|---|---|
//! | [`Sqlite`](backend::Sqlite): the default | `sqlite` | yes | yes |
//! | [`Sled`](backend::Sled) | `sled` | yes | **no**: see its documentation |
//! | [`Memory`](backend::Memory) | always | no | no |
//!
//! SQLite is the default because, of the engines that we measured, it has the fastest commit among those that lost
//! nothing in a power cut, and a file format that every operator's tools open.
//!
//! # What is absent on purpose
//! No code in this crate opens a socket. A commit never returns before the disk has it. There is no way to open a store
//! with a key that was made after it.

pub mod backend;
mod commit;
#[cfg(feature = "testing")]
pub mod conformance;
mod copy;
mod error;
mod export;
mod header;
mod inspect;
mod key;
mod layers;
mod layout;
mod manifest;
mod random;
mod record;
mod seal;
mod sealed;
#[cfg(feature = "engine")]
mod store;
mod unit;
mod upgrade;

#[cfg(feature = "engine")]
pub use self::store::{PickleStore, Retention, Retired};
pub use self::{
    commit::Submitted,
    copy::copy,
    error::{Result, StoreError},
    inspect::{Damage, DamageKind, Stats, Verified},
    key::{KeySource, Passphrase, PassphraseCost, StoreKey},
    record::{Cursor, Family, Record, RecordId},
    sealed::SealedStore,
    unit::Unit,
};
