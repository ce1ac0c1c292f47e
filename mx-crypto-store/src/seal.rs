//! Sealing of records, and names of rows that say nothing. Pure: no I/O.
//!
//! XChaCha20-Poly1305 with a random nonce for each write. Schema, store, version and row (which begins with its table)
//! are bound as associated data, so that a record that was moved, exchanged with another one or brought from another
//! store does not open. Rows are named by HMAC-SHA256 under a key of their own, so that the disk holds no user, room,
//! device or session id. Both keys are random and never change with the key that opens the store.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, AeadInPlace},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Result, StoreError, header::SCHEMA, layout::Table, random, spread::Spread};

/// The length of a store's id, in bytes.
pub(crate) const STORE_ID: usize = 16;

const NONCE: usize = 24;
const VERSION: usize = 8;
/// Half of the MAC: as many bits as a collision of names takes 2^64 names to find.
const NAME: usize = 16;

/// How rows are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Naming {
    /// Of a store that began with schema 1: equal parts have equal names in all tables. A name cannot be turned back, so
    /// that such a store and its copies keep it.
    Shared = 1,
    /// Each table names for itself.
    PerTable = 2,
}

/// The store's own keys.
pub(crate) struct Keys {
    pub(crate) seal: Zeroizing<[u8; 32]>,
    pub(crate) names: Zeroizing<[u8; 32]>,
    pub(crate) naming: Naming,
}

impl Keys {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self {
            seal: Zeroizing::new(random::bytes("a key")?),
            names: Zeroizing::new(random::bytes("a key")?),
            naming: Naming::PerTable,
        })
    }

    /// Another key to seal with, the same names.
    pub(crate) fn with_new_seal(names: &Zeroizing<[u8; 32]>, naming: Naming) -> Result<Self> {
        Ok(Self {
            seal: Zeroizing::new(random::bytes("a key")?),
            names: names.clone(),
            naming,
        })
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&[self.naming as u8], &self.seal[..], &self.names[..]].concat())
    }

    pub(crate) fn decode(encoded: &[u8]) -> Option<Self> {
        let (naming, rest) = encoded.split_first()?;
        let (seal, rest) = rest.split_first_chunk::<32>()?;
        let names = <&[u8; 32]>::try_from(rest).ok()?;
        let naming = match naming {
            1 => Naming::Shared,
            2 => Naming::PerTable,
            _ => return None,
        };
        Some(Self {
            seal: Zeroizing::new(*seal),
            names: Zeroizing::new(*names),
            naming,
        })
    }
}

/// What seals a store's records and names its rows.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    keys: Keys,
    mac: Hmac<Sha256>,
    store_id: [u8; STORE_ID],
    spread: Spread,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// A version of a record on its way to the disk.
pub(crate) struct Unsealed<'a> {
    pub(crate) row: &'a [u8],
    pub(crate) version: u64,
    pub(crate) value: &'a [u8],
}

/// A record that opened, and which version of it this is.
pub(crate) struct Opened {
    pub(crate) version: u64,
    pub(crate) value: Zeroizing<Vec<u8>>,
}

impl Sealer {
    pub(crate) fn new(keys: Keys, store_id: [u8; STORE_ID]) -> Result<Self> {
        Ok(Self {
            cipher: XChaCha20Poly1305::new((&*keys.seal).into()),
            mac: <Hmac<Sha256> as Mac>::new_from_slice(keys.names.as_ref())
                .map_err(|_| StoreError::Encode { what: "a key" })?,
            keys,
            store_id,
            spread: Spread::new(),
        })
    }

    /// How work on many records is spread.
    #[cfg(feature = "engine")]
    pub(crate) const fn spread(&self) -> Spread {
        self.spread
    }

    pub(crate) const fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) const fn store_id(&self) -> &[u8; STORE_ID] {
        &self.store_id
    }

    fn associated_data(&self, version: &[u8; VERSION], row: &[u8]) -> Vec<u8> {
        [&SCHEMA.to_be_bytes()[..], &self.store_id, version, row].concat()
    }

    /// Seal a version of a record for its row.
    pub(crate) fn seal(&self, row: &[u8], version: u64, plaintext: &[u8]) -> Result<Vec<u8>> {
        let record = Unsealed {
            row,
            version,
            value: plaintext,
        };
        self.seal_with(&random::bytes("a nonce")?, &record)
    }

    /// Seal versions of many records, each with a random nonce of its own; they stay in their order.
    pub(crate) fn seal_all(&self, records: &[Unsealed<'_>]) -> Result<Vec<Vec<u8>>> {
        let parts = self.spread.over(records, |part| {
            let mut nonces = vec![[0; NONCE]; part.len()];
            random::fill(nonces.as_flattened_mut(), "nonces")?;
            let sealed = nonces.iter().zip(part);
            sealed.map(|(nonce, record)| self.seal_with(nonce, record)).collect()
        });
        let sealed: Result<Vec<Vec<_>>> = parts.into_iter().collect();
        Ok(sealed?.into_iter().flatten().collect())
    }

    /// `nonce` is used for nothing else, ever.
    fn seal_with(&self, nonce: &[u8; NONCE], record: &Unsealed<'_>) -> Result<Vec<u8>> {
        let version = record.version.to_be_bytes();
        let mut sealed = Vec::with_capacity(VERSION + NONCE + record.value.len() + 16);
        sealed.extend_from_slice(&version);
        sealed.extend_from_slice(nonce);
        sealed.extend_from_slice(record.value);
        let (_, content) = sealed.split_at_mut(VERSION + NONCE);
        let tag = self
            .cipher
            .encrypt_in_place_detached(
                XNonce::from_slice(nonce),
                &self.associated_data(&version, record.row),
                content,
            )
            .map_err(|_| StoreError::Encode { what: "a record" })?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Open the record of a row.
    pub(crate) fn open_record(&self, row: &[u8], sealed: &[u8]) -> Result<Opened> {
        let corrupt = || StoreError::Corrupt { what: "a record" };
        let (version, rest) = sealed.split_first_chunk::<VERSION>().ok_or_else(corrupt)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or_else(corrupt)?;
        let payload = chacha20poly1305::aead::Payload {
            msg: ciphertext,
            aad: &self.associated_data(version, row),
        };
        let value = self
            .cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| corrupt())?;
        Ok(Opened {
            version: u64::from_be_bytes(*version),
            value: Zeroizing::new(value),
        })
    }

    /// The part of a row's name that stands for `parts` in a table. Parts are told apart by their lengths.
    pub(crate) fn name(&self, table: Table, parts: &[&str]) -> [u8; NAME] {
        let mut mac = self.mac.clone();
        if self.keys.naming == Naming::PerTable {
            mac.update(&[table as u8]);
        }
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let mut name = [0; NAME];
        for (to, from) in name.iter_mut().zip(mac.finalize().into_bytes()) {
            *to = from;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(Keys::generate().unwrap(), [9; STORE_ID]).unwrap()
    }

    #[test]
    fn what_is_flipped_moved_or_cut_does_not_open() {
        let sealer = sealer();
        let sealed = sealer.seal(b"row", 7, b"plaintext").unwrap();
        let opened = sealer.open_record(b"row", &sealed).unwrap();
        assert_eq!((opened.version, opened.value.as_slice()), (7, &b"plaintext"[..]));
        assert!(sealer.open_record(b"other", &sealed).is_err());
        for position in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[position] ^= 1 << bit;
                assert!(sealer.open_record(b"row", &flipped).is_err(), "byte {position}");
            }
            assert!(
                sealer.open_record(b"row", &sealed[..position]).is_err(),
                "cut at {position}"
            );
        }
        let elsewhere = Sealer::new(Keys::decode(&sealer.keys.encode()).unwrap(), [8; STORE_ID]).unwrap();
        assert!(elsewhere.open_record(b"row", &sealed).is_err(), "from another store");
    }

    #[test]
    fn many_are_sealed_each_for_its_row_with_its_own_nonce() {
        let sealer = sealer();
        let rows: Vec<[u8; 8]> = (0_u64..1_000).map(u64::to_be_bytes).collect();
        let records: Vec<Unsealed<'_>> = rows
            .iter()
            .zip(0..)
            .map(|(row, version)| Unsealed {
                row,
                version,
                value: row,
            })
            .collect();
        let sealed = sealer.seal_all(&records).unwrap();
        assert_eq!(sealed.len(), records.len());
        let mut nonces = BTreeSet::new();
        for (record, sealed) in records.iter().zip(&sealed) {
            let opened = sealer.open_record(record.row, sealed).unwrap();
            assert_eq!(
                (opened.version, opened.value.as_slice()),
                (record.version, record.value)
            );
            nonces.insert(&sealed[VERSION..VERSION + NONCE]);
        }
        assert_eq!(nonces.len(), records.len());
        assert!(sealer.seal_all(&[]).unwrap().is_empty());
    }

    #[test]
    fn equal_plaintexts_and_equal_names_do_not_show() {
        let sealer = sealer();
        assert_ne!(
            sealer.seal(b"row", 0, b"same").unwrap()[VERSION..],
            sealer.seal(b"row", 0, b"same").unwrap()[VERSION..]
        );
        assert_ne!(
            sealer.name(Table::Device, &["@a:b"]),
            sealer.name(Table::Identity, &["@a:b"])
        );
        assert_ne!(
            sealer.name(Table::Device, &["a"]),
            self::sealer().name(Table::Device, &["a"])
        );
    }

    proptest! {
        #[test]
        fn names_keep_their_parts_apart(one in prop::collection::vec(".{0,8}", 0..4), other in prop::collection::vec(".{0,8}", 0..4)) {
            let sealer = sealer();
            let name = |parts: &[String]| {
                sealer.name(Table::Record, &parts.iter().map(String::as_str).collect::<Vec<_>>())
            };
            prop_assert_eq!(one == other, name(&one) == name(&other));
            prop_assert_ne!(name(&["ab".into(), "c".into()]), name(&["a".into(), "bc".into()]));
        }
    }
}
