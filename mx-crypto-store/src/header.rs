//! The store's header: which schema, which store, and the store's own keys wrapped under the key that opens it. Pure.
//!
//! ```text
//! magic 8 ‖ schema 4 ‖ store id 16 ‖ generation 8 ‖ kind 1 (‖ memory 4 ‖ passes 4 ‖ lanes 4 ‖ salt 16)
//!   ‖ nonce 24 ‖ wrapped keys 65 + 16 ‖ SHA-256 of all before 32
//! ```
//! The header is the only row in the clear: its checksum tells damage from a wrong key before any key is tried, and all
//! of it is bound to the wrapped keys. Another key (`rekey`) wraps the same keys again, in one commit of one row; the
//! generation counts that, so that an older header put back is seen.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    Result, StoreError,
    key::{Kdf, StoreKey},
    random,
    seal::{Keys, STORE_ID},
};

/// The schema that this version writes.
pub(crate) const SCHEMA: u32 = 2;

const MAGIC: &[u8; 8] = b"mxstore\0";
const NONCE: usize = 24;
const CHECKSUM: usize = 32;
const RAW: u8 = 1;
const PASSPHRASE: u8 = 2;

/// What a header says before any key is tried.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) store_id: [u8; STORE_ID],
    /// How often the key was changed.
    pub(crate) generation: u64,
    /// How the key that opens it is made.
    pub(crate) kdf: Kdf,
    /// What is bound to the wrapped keys.
    bound: Vec<u8>,
    wrapped: Vec<u8>,
}

impl Header {
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::SchemaTooNew`]. Only for the newest schema.
    pub(crate) fn parse(row: &[u8]) -> Result<Self> {
        let (_, rest) = checked(row)?;
        let (store_id, rest) = rest.split_first_chunk::<STORE_ID>().ok_or_else(corrupt)?;
        let (generation, rest) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
        let (kdf, wrapped) = match rest.split_first().ok_or_else(corrupt)? {
            (&RAW, rest) => (Kdf::Raw, rest),
            (&PASSPHRASE, rest) => Kdf::decode(rest).ok_or_else(corrupt)?,
            _ => return Err(corrupt()),
        };
        let bound = row.get(..row.len() - CHECKSUM - wrapped.len()).ok_or_else(corrupt)?;
        Ok(Self {
            store_id: *store_id,
            generation: u64::from_be_bytes(*generation),
            kdf,
            bound: bound.to_vec(),
            wrapped: wrapped.to_vec(),
        })
    }

    /// The store's own keys.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`].
    pub(crate) fn unwrap_keys(&self, key: &StoreKey) -> Result<Keys> {
        let (nonce, ciphertext) = self.wrapped.split_first_chunk::<NONCE>().ok_or_else(corrupt)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &self.bound,
        };
        let plain = wrapping(key, &self.store_id)?
            .decrypt(XNonce::from_slice(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| StoreError::WrongKey)?;
        Keys::decode(&plain).ok_or_else(corrupt)
    }

    /// A header that wraps `keys` under `key`.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when the operating system gives no randomness.
    pub(crate) fn wrap(
        store_id: &[u8; STORE_ID],
        generation: u64,
        kdf: &Kdf,
        key: &StoreKey,
        keys: &Keys,
    ) -> Result<Vec<u8>> {
        let mut row = [&MAGIC[..], &SCHEMA.to_be_bytes(), store_id, &generation.to_be_bytes()].concat();
        match kdf {
            Kdf::Raw => row.push(RAW),
            Kdf::Argon2id { .. } => {
                row.push(PASSPHRASE);
                kdf.encode(&mut row);
            }
        }
        let nonce: [u8; NONCE] = random::bytes("a nonce")?;
        let payload = Payload {
            msg: &keys.encode(),
            aad: &row,
        };
        let wrapped = wrapping(key, store_id)?
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| StoreError::Encode { what: "a header" })?;
        row.extend_from_slice(&nonce);
        row.extend_from_slice(&wrapped);
        let checksum = Sha256::digest(&row);
        row.extend_from_slice(&checksum);
        Ok(row)
    }

    /// The schema of a header of any version, once its checksum is right.
    pub(crate) fn schema_of(row: &[u8]) -> Result<u32> {
        checked(row).map(|(schema, _)| schema)
    }
}

/// The schema, and what follows it, of a header that is whole and not from the future.
fn checked(row: &[u8]) -> Result<(u32, &[u8])> {
    let (content, checksum) = row.split_last_chunk::<CHECKSUM>().ok_or_else(corrupt)?;
    let rest = content.strip_prefix(MAGIC).ok_or_else(corrupt)?;
    if Sha256::digest(content).as_slice() != checksum {
        return Err(corrupt());
    }
    let (schema, rest) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
    let found = u32::from_be_bytes(*schema);
    if found > SCHEMA {
        return Err(StoreError::SchemaTooNew { found, known: SCHEMA });
    }
    Ok((found, rest))
}

fn wrapping(key: &StoreKey, store_id: &[u8; STORE_ID]) -> Result<XChaCha20Poly1305> {
    let mut wrapping = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(store_id), key.bytes())
        .expand(b"mx-crypto-store wrap", wrapping.as_mut())
        .map_err(|_| StoreError::Encode { what: "keys" })?;
    Ok(XChaCha20Poly1305::new((&*wrapping).into()))
}

const fn corrupt() -> StoreError {
    StoreError::Corrupt { what: "its header" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created() -> (Vec<u8>, StoreKey, Keys) {
        let key = StoreKey::from_bytes([7; 32]);
        let keys = Keys::generate().unwrap();
        (
            Header::wrap(&[9; STORE_ID], 3, &Kdf::Raw, &key, &keys).unwrap(),
            key,
            keys,
        )
    }

    #[test]
    fn a_header_tells_a_wrong_key_from_damage_and_from_the_future() {
        let (row, key, keys) = created();
        let header = Header::parse(&row).unwrap();
        assert_eq!((Header::schema_of(&row).unwrap(), header.generation), (SCHEMA, 3));
        assert_eq!(header.unwrap_keys(&key).unwrap().encode(), keys.encode());
        assert!(matches!(
            header.unwrap_keys(&StoreKey::from_bytes([8; 32])),
            Err(StoreError::WrongKey)
        ));
        for position in 0..row.len() {
            for bit in 0..8 {
                let mut flipped = row.clone();
                flipped[position] ^= 1 << bit;
                assert!(
                    matches!(Header::parse(&flipped), Err(StoreError::Corrupt { .. })),
                    "byte {position}"
                );
            }
            assert!(matches!(
                Header::parse(&row[..position]),
                Err(StoreError::Corrupt { .. })
            ));
        }
        let mut newer = row[..row.len() - CHECKSUM].to_vec();
        newer[11] = 3;
        let checksum = Sha256::digest(&newer);
        newer.extend_from_slice(&checksum);
        assert!(matches!(
            Header::parse(&newer),
            Err(StoreError::SchemaTooNew {
                found: 3,
                known: SCHEMA
            })
        ));
    }

    #[test]
    fn what_is_in_the_clear_is_bound_to_the_keys() {
        let (row, key, _) = created();
        for position in MAGIC.len() + 4..row.len() - CHECKSUM {
            let mut edited = row[..row.len() - CHECKSUM].to_vec();
            edited[position] ^= 1;
            let checksum = Sha256::digest(&edited);
            edited.extend_from_slice(&checksum);
            let opened = Header::parse(&edited).and_then(|header| header.unwrap_keys(&key));
            assert!(opened.is_err(), "byte {position}");
        }
    }

    #[test]
    fn the_cost_of_a_passphrase_is_read_back() {
        let key = StoreKey::from_bytes([7; 32]);
        let kdf = Kdf::Argon2id {
            memory_kib: 65_536,
            passes: 3,
            lanes: 1,
            salt: [5; 16],
        };
        let row = Header::wrap(&[9; STORE_ID], 0, &kdf, &key, &Keys::generate().unwrap()).unwrap();
        let header = Header::parse(&row).unwrap();
        assert_eq!(header.kdf, kdf);
        header.unwrap_keys(&key).unwrap();
    }
}
