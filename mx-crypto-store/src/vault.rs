//! A secret beside a store: sealed bytes that the same kind of key opens, without opening the store.
//!
//! # Why
//! Some secrets of an app are needed while another process has the store open: the tokens of a login, to end it or to
//! fetch a file. They are no less secret than what is in the store.
//!
//! ```text
//! length of the header 4 ‖ header, as of a store ‖ version 8 ‖ nonce 24 ‖ ciphertext ‖ tag 16
//! ```
//! The header wraps keys of the vault's own under the key that opens it, so that a passphrase is stretched once for each
//! process and not for each write. What is sealed is bound to its vault and to a context of the caller.

use zeroize::Zeroizing;

use crate::{
    KeySource, Result, StoreError,
    header::Header,
    key::{Kdf, Minted, NewKey, StoreKey},
    random,
    seal::{Keys, STORE_ID, Sealer},
    sealed::unlock,
};

/// Seals secrets that are kept beside a store.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
/// use mx_crypto_store::{KeySource, StoreKey, Vault};
///
/// let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// let sealed = Vault::create(&key).await?.seal(b"session.json", b"a token")?;
/// let (_vault, secret) = Vault::open(&key, b"session.json", &sealed).await?;
/// assert_eq!(*secret, b"a token");
/// // Nor does it open in another place.
/// assert!(Vault::open(&key, b"another file", &sealed).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Vault {
    sealer: Sealer,
    header: Vec<u8>,
}

impl Vault {
    /// A new vault, opened by `key` from now on. A key file has to be there: it is made with a store.
    ///
    /// # Errors
    /// Of keys; [`StoreError::Encode`] when the operating system gives no randomness.
    pub async fn create(key: &KeySource) -> Result<Self> {
        Self::wrapped(Keys::generate()?, random::bytes("a vault's id")?, key).await
    }

    /// A new vault, opened by the key that a store is about to have.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when the operating system gives no randomness.
    pub fn for_new_key(key: &NewKey) -> Result<Self> {
        let NewKey(Minted { key, kdf }) = key;
        Self::with(Keys::generate()?, random::bytes("a vault's id")?, kdf, key)
    }

    async fn wrapped(keys: Keys, id: [u8; STORE_ID], key: &KeySource) -> Result<Self> {
        let kdf = match key {
            KeySource::Passphrase(passphrase) => Kdf::new(passphrase.cost())?,
            _ => Kdf::Raw,
        };
        let candidates = key.candidates(&kdf).await?;
        let key = candidates.first().ok_or(StoreError::WrongKey)?;
        Self::with(keys, id, &kdf, key)
    }

    fn with(keys: Keys, id: [u8; STORE_ID], kdf: &Kdf, key: &StoreKey) -> Result<Self> {
        let header = Header::wrap(&id, 0, kdf, key, &keys)?;
        Ok(Self {
            sealer: Sealer::new(keys, id)?,
            header,
        })
    }

    /// The vault that sealed these bytes for this context, and what they say.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`], [`StoreError::KeyMissing`] and the other errors of keys; [`StoreError::Corrupt`] when the
    /// bytes were changed, or belong to another context.
    pub async fn open(key: &KeySource, context: &[u8], sealed: &[u8]) -> Result<(Self, Zeroizing<Vec<u8>>)> {
        let (header, content) = parts(sealed)?;
        let parsed = Header::parse(header)?;
        let (_, keys) = unlock(&parsed, key).await?;
        let vault = Self {
            sealer: Sealer::new(keys, parsed.store_id)?,
            header: header.to_vec(),
        };
        let secret = vault.sealer.open_record(context, content)?.value;
        Ok((vault, secret))
    }

    /// Seal a secret for a context, which opens it again and nothing else does: whose it is, where it belongs.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when the operating system gives no randomness.
    pub fn seal(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
        let length = u32::try_from(self.header.len()).map_err(|_| StoreError::Encode { what: "a vault" })?;
        let content = self.sealer.seal(context, 0, secret)?;
        Ok([&length.to_be_bytes()[..], &self.header, &content].concat())
    }

    /// What this vault has sealed for this context. `None`: another vault has sealed it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
    /// use mx_crypto_store::{KeySource, StoreKey, Vault};
    ///
    /// let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// let vault = Vault::create(&key).await?;
    /// let ours = vault.seal(b"session.json", b"a token")?;
    /// // A file that another process may have replaced: no passphrase is stretched again to read what is ours.
    /// assert_eq!(vault.reopen(b"session.json", &ours)?.as_deref().map(Vec::as_slice), Some(&b"a token"[..]));
    /// let theirs = Vault::create(&key).await?.seal(b"session.json", b"another token")?;
    /// assert!(vault.reopen(b"session.json", &theirs)?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn reopen(&self, context: &[u8], sealed: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let (header, content) = parts(sealed)?;
        if header != self.header {
            return Ok(None);
        }
        Ok(Some(self.sealer.open_record(context, content)?.value))
    }
}

fn parts(sealed: &[u8]) -> Result<(&[u8], &[u8])> {
    let corrupt = StoreError::Corrupt {
        what: "a sealed secret",
    };
    let Some((length, rest)) = sealed.split_first_chunk::<4>() else {
        return Err(corrupt);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.split_at_checked(length).ok_or(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Passphrase;

    fn key(byte: u8) -> KeySource {
        KeySource::Bytes(StoreKey::from_bytes([byte; 32]))
    }

    #[tokio::test]
    async fn what_was_sealed_opens_with_its_key_and_its_context_only() {
        let vault = Vault::create(&key(7)).await.unwrap();
        let sealed = vault.seal(b"here", b"the tokens").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"tokens"));
        let (again, secret) = Vault::open(&key(7), b"here", &sealed).await.unwrap();
        assert_eq!(&*secret, b"the tokens");
        assert_eq!(
            vault
                .reopen(b"here", &again.seal(b"here", b"2").unwrap())
                .unwrap()
                .unwrap()[..],
            *b"2"
        );
        assert!(matches!(
            Vault::open(&key(8), b"here", &sealed).await,
            Err(StoreError::WrongKey)
        ));
        assert!(matches!(
            Vault::open(&key(7), b"there", &sealed).await,
            Err(StoreError::Corrupt { .. })
        ));
        assert!(matches!(
            vault.reopen(b"there", &sealed),
            Err(StoreError::Corrupt { .. })
        ));
        let other = Vault::create(&key(7)).await.unwrap();
        assert!(other.reopen(b"here", &sealed).unwrap().is_none(), "another vault");
        assert_ne!(
            sealed,
            vault.seal(b"here", b"the tokens").unwrap(),
            "a nonce of its own"
        );
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_cut_is_seen() {
        let vault = Vault::create(&key(7)).await.unwrap();
        let sealed = vault.seal(b"here", b"x").unwrap();
        for position in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[position] ^= 1;
            assert!(
                Vault::open(&key(7), b"here", &flipped).await.is_err(),
                "byte {position}"
            );
            assert!(
                Vault::open(&key(7), b"here", &sealed[..position]).await.is_err(),
                "cut at {position}"
            );
        }
    }

    #[tokio::test]
    async fn a_passphrase_and_a_key_file_open_it_too() {
        let passphrase = |text: &str| KeySource::Passphrase(Passphrase::new(text));
        let vault = Vault::create(&passphrase("correct")).await.unwrap();
        let sealed = vault.seal(b"", b"secret").unwrap();
        assert_eq!(
            &*Vault::open(&passphrase("correct"), b"", &sealed).await.unwrap().1,
            b"secret"
        );
        assert!(matches!(
            Vault::open(&passphrase("wrong"), b"", &sealed).await,
            Err(StoreError::WrongKey)
        ));
        assert!(matches!(
            Vault::open(&key(7), b"", &sealed).await,
            Err(StoreError::WrongKeyKind { .. })
        ));

        let here = tempfile::tempdir().unwrap();
        let file = KeySource::File(here.path().join("pickle.key"));
        assert!(matches!(Vault::create(&file).await, Err(StoreError::KeyMissing { .. })));
        assert!(
            !here.path().join("pickle.key").exists(),
            "it is made with a store, and only so"
        );
        let store = crate::SealedStore::open(std::sync::Arc::new(crate::backend::Memory::new()), file.clone());
        let _store = store.await.unwrap();
        let vault = Vault::create(&file).await.unwrap();
        let sealed = vault.seal(b"", b"secret").unwrap();
        assert_eq!(&*Vault::open(&file, b"", &sealed).await.unwrap().1, b"secret");
    }
}
