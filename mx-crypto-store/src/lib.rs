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
//! # What is on the disk
//!
//! | what | says |
//! |---|---|
//! | a row's name | its table, and keyed hashes of what it is of |
//! | a row's value | its version, a nonce, and ciphertext that is bound to schema, store, version and row |
//! | the manifest | sealed: the newest version of each guarded row, so that one that is gone or older is [`StoreError::RolledBack`] |
//! | the header | schema, store, how the key is made, and the store's own keys wrapped under it ([`KeySource`], [`SealedStore::rekey`]) |
//!
//! # For operators
//! [`SealedStore::stats`], [`verify`](SealedStore::verify), [`compact`](SealedStore::compact),
//! [`export`](SealedStore::export) and [`import`](SealedStore::import), and [`copy`] from one engine to another.
//!
//! # Engines
//!
//! | engine | feature | survives a killed process | survives a power cut |
//! |---|---|---|---|
//! | [`Sqlite`](backend::Sqlite): the default | `sqlite` | yes | yes |
//! | [`Redb`](backend::Redb): no C compiler | `redb` | yes | yes |
//! | [`Sled`](backend::Sled) | `sled` | yes | **no**: see its documentation |
//! | [`Memory`](backend::Memory) | always | no | no |
//! | yours | | what it [promises](backend::Promises) | and `conformance` proves |
//!
//! SQLite is the default because, of the engines that lost nothing in a power cut, it has the fastest commit, and a file
//! format that every operator's tools open. `cargo xtask bench engines` measures it again; on
//! an idle machine of 2 cores (ext4, one commit of three rows of 1 KB at a time; 20 kills and 20 power cuts each):
//!
//! | engine | syncs for 200 commits | commit p50 / p99 µs | 64 at once, batches a second | read µs | open after a kill ms | lost in kills | lost in power cuts; not openable |
//! |---|---:|---:|---:|---:|---:|---:|---:|
//! | sqlite | 203 | 211 / 412 | 27,106 | 3.1 | 1.3 | 0 of 55,131 | 0 of 3,939; 0 of 20 |
//! | redb | 201 | 406 / 639 | 10,034 | 4.8 | 5.7 | 0 of 30,740 | 0 of 3,938; 0 of 20 |
//! | sled | 403 that are no barrier | 220 / 380 | 32,777 | 1.6 | 7.1 | 0 of 51,495 | 3,947 of 3,947; 20 of 20 |
//!
//! # What is absent on purpose
//! No code in this crate opens a socket, and none does cryptography of its own. A commit never returns before the disk has
//! it. There is no way to open a store with a key that was made after it.

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
mod revision;
mod seal;
mod sealed;
mod spread;
#[cfg(feature = "engine")]
mod store;
mod unit;
mod unknown;
mod upgrade;
mod vault;

#[cfg(feature = "engine")]
pub use self::store::{PickleStore, Retention, Retired};
pub use self::{
    commit::Submitted,
    copy::copy,
    error::{Result, StoreError},
    inspect::{Damage, DamageKind, Stats, Verified},
    key::{KeySource, NewKey, Passphrase, PassphraseCost, StoreKey},
    record::{Cursor, Family, Record, RecordId},
    revision::Revision,
    sealed::SealedStore,
    unit::Unit,
    vault::Vault,
};
