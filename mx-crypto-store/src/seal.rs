//! Sealing of records, and names of rows that say nothing. Pure: no I/O.
//!
//! XChaCha20-Poly1305 with a random nonce for each write. Schema, store and row are bound as associated data, so that a
//! record that was moved, exchanged with another one or brought from another store does not open. Rows are named by
//! HMAC-SHA256, so that the disk holds no user, room or session id. Both keys come from the store's key by HKDF-SHA256.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{Result, StoreError, key::StoreKey};

/// The schema that this version writes.
pub(crate) const SCHEMA: u32 = 1;

const MAGIC: &[u8; 8] = b"mxstore\0";
const NONCE: usize = 24;
const STORE_ID: usize = 16;
/// Half of the MAC: as many bits as a collision of names takes 2^64 names to find.
const NAME: usize = 16;

/// Magic ‖ schema ‖ store id ‖ sealed check ‖ checksum.
const CHECK_PLAINTEXT: &[u8] = b"this key opens this store";

/// What seals a store's records and names its rows.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    names: Zeroizing<[u8; 32]>,
    store_id: [u8; STORE_ID],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    fn new(key: &StoreKey, store_id: [u8; STORE_ID]) -> Result<Self> {
        let kdf = Hkdf::<Sha256>::new(Some(&store_id), key.bytes());
        let mut seal = Zeroizing::new([0; 32]);
        let mut names = Zeroizing::new([0; 32]);
        let expanded = kdf
            .expand(b"mx-crypto-store seal", seal.as_mut())
            .and(kdf.expand(b"mx-crypto-store names", names.as_mut()));
        expanded.map_err(|_| StoreError::Encode { what: "keys" })?;
        Ok(Self {
            cipher: XChaCha20Poly1305::new((&*seal).into()),
            names,
            store_id,
        })
    }

    /// For an empty store: what seals it, and the header to be written.
    pub(crate) fn create(key: &StoreKey, header_row: &[u8]) -> Result<(Self, Vec<u8>)> {
        let mut store_id = [0; STORE_ID];
        getrandom::fill(&mut store_id).map_err(|_| StoreError::Encode { what: "a store id" })?;
        let sealer = Self::new(key, store_id)?;
        let mut header = Vec::new();
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&SCHEMA.to_be_bytes());
        header.extend_from_slice(&store_id);
        header.extend_from_slice(&sealer.seal(header_row, CHECK_PLAINTEXT)?);
        let checksum = Sha256::digest(&header);
        header.extend_from_slice(&checksum);
        Ok((sealer, header))
    }

    /// For a store that exists: its header must be whole, of a schema that we know, and made with this key.
    pub(crate) fn open(key: &StoreKey, header_row: &[u8], header: &[u8]) -> Result<Self> {
        let corrupt = || StoreError::Corrupt { what: "its header" };
        let (content, checksum) = header.split_last_chunk::<32>().ok_or_else(corrupt)?;
        let rest = content.strip_prefix(MAGIC).ok_or_else(corrupt)?;
        let (schema, rest) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
        if Sha256::digest(content).as_slice() != checksum {
            return Err(corrupt());
        }
        let found = u32::from_be_bytes(*schema);
        if found > SCHEMA {
            return Err(StoreError::SchemaTooNew { found, known: SCHEMA });
        }
        let (store_id, check) = rest.split_first_chunk::<STORE_ID>().ok_or_else(corrupt)?;
        let sealer = Self::new(key, *store_id)?;
        match sealer.open_record(header_row, check) {
            Ok(plaintext) if plaintext.as_slice() == CHECK_PLAINTEXT => Ok(sealer),
            _ => Err(StoreError::WrongKey),
        }
    }

    fn associated_data(&self, row: &[u8]) -> Vec<u8> {
        [&SCHEMA.to_be_bytes()[..], &self.store_id, row].concat()
    }

    /// Seal a record for its row.
    pub(crate) fn seal(&self, row: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| StoreError::Encode { what: "a nonce" })?;
        let payload = Payload {
            msg: plaintext,
            aad: &self.associated_data(row),
        };
        let ciphertext = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| StoreError::Encode { what: "a record" })?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// Open the record of a row.
    pub(crate) fn open_record(&self, row: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let corrupt = || StoreError::Corrupt { what: "a record" };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>().ok_or_else(corrupt)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &self.associated_data(row),
        };
        self.cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| corrupt())
    }

    /// The part of a row's name that stands for `parts`. Parts are told apart by their lengths.
    pub(crate) fn name(&self, parts: &[&str]) -> [u8; NAME] {
        let mut name = [0; NAME];
        // A key of any length is accepted by HMAC.
        if let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(self.names.as_ref()) {
            for part in parts {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part.as_bytes());
            }
            for (to, from) in name.iter_mut().zip(mac.finalize().into_bytes()) {
                *to = from;
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = &[0];

    fn created() -> (Sealer, Vec<u8>, StoreKey) {
        let key = StoreKey::from_bytes([7; 32]);
        let (sealer, header) = Sealer::create(&key, HEADER).unwrap();
        (sealer, header, key)
    }

    #[test]
    fn what_is_flipped_moved_or_cut_does_not_open() {
        let (sealer, ..) = created();
        let sealed = sealer.seal(b"row", b"plaintext").unwrap();
        assert_eq!(sealer.open_record(b"row", &sealed).unwrap().as_slice(), b"plaintext");
        assert!(sealer.open_record(b"other", &sealed).is_err());
        for position in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[position] ^= 1;
            assert!(sealer.open_record(b"row", &flipped).is_err(), "byte {position}");
            assert!(
                sealer.open_record(b"row", &sealed[..position]).is_err(),
                "cut at {position}"
            );
        }
        assert!(created().0.open_record(b"row", &sealed).is_err(), "from another store");
    }

    #[test]
    fn the_header_tells_a_wrong_key_from_damage_and_from_the_future() {
        let (sealer, header, key) = created();
        let again = Sealer::open(&key, HEADER, &header).unwrap();
        assert_eq!(again.name(&["a"]), sealer.name(&["a"]));
        assert!(matches!(
            Sealer::open(&StoreKey::from_bytes([8; 32]), HEADER, &header),
            Err(StoreError::WrongKey)
        ));
        for position in 0..header.len() {
            let mut flipped = header.clone();
            flipped[position] ^= 1;
            assert!(
                matches!(Sealer::open(&key, HEADER, &flipped), Err(StoreError::Corrupt { .. })),
                "byte {position}"
            );
            assert!(matches!(
                Sealer::open(&key, HEADER, &header[..position]),
                Err(StoreError::Corrupt { .. })
            ));
        }
        let mut newer = header[..header.len() - 32].to_vec();
        newer[11] = 2;
        let checksum = Sha256::digest(&newer);
        newer.extend_from_slice(&checksum);
        assert!(matches!(
            Sealer::open(&key, HEADER, &newer),
            Err(StoreError::SchemaTooNew { found: 2, known: 1 })
        ));
    }

    #[test]
    fn names_keep_their_parts_apart() {
        let (sealer, ..) = created();
        assert_ne!(sealer.name(&["ab", "c"]), sealer.name(&["a", "bc"]));
        assert_ne!(sealer.name(&["ab"]), sealer.name(&["ab", ""]));
        assert_ne!(sealer.name(&["ab"]), created().0.name(&["ab"]), "another store");
    }
}
