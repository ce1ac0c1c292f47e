//! Where the key that opens a store comes from: a file that only its owner reads, a passphrase, a credential of the
//! service manager, or bytes that the caller brings.
//!
//! # Why
//! That key wraps the store's own keys and seals nothing else. It can be changed ([`rekey`](crate::SealedStore::rekey))
//! without touching a record.

mod file;
mod passphrase;

use std::{env, fmt, path::PathBuf};

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use self::passphrase::{Passphrase, PassphraseCost};
pub(crate) use self::{file::directory, passphrase::Kdf};
use crate::{Result, StoreError, random};

/// The length of a store's key, in bytes.
const KEY_BYTES: usize = 32;

/// Where a service manager puts the credentials of a service (systemd.exec(5), "Credentials").
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The key that opens a store. Wiped from memory when dropped, hidden in debug output.
///
/// ```
/// use mx_crypto_store::{KeySource, StoreKey};
///
/// // From a key management service, as 32 bytes.
/// let key = StoreKey::from_bytes([7; 32]);
/// assert_eq!(format!("{key:?}"), "StoreKey(<hidden>)");
/// let source = KeySource::Bytes(key);
/// # drop(source);
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StoreKey([u8; KEY_BYTES]);

impl StoreKey {
    /// A key that the caller keeps: 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when the operating system gives no randomness.
    pub fn generate() -> Result<Self> {
        Ok(Self(random::bytes("a key")?))
    }

    pub(crate) const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(<hidden>)")
    }
}

/// Where the key that opens a store comes from.
///
/// ```
/// use mx_crypto_store::{KeySource, Passphrase};
///
/// let from_file = KeySource::File("/var/lib/mybot/pickle.key".into());
/// let from_systemd = KeySource::Credential("store.key".to_owned()); // LoadCredential=store.key:/etc/mybot.key
/// let from_somebody = KeySource::Passphrase(Passphrase::new("correct horse battery staple"));
/// # drop((from_file, from_systemd, from_somebody));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// A file of exactly 32 raw bytes, which only its owner may read. It is made, with mode 0600 from birth, with a new
    /// store, and never again: beside it there must be a store.
    File(PathBuf),
    /// A key that the caller keeps, as in a key management service.
    Bytes(StoreKey),
    /// A passphrase, made a key by Argon2id. The cost is kept with the store.
    Passphrase(Passphrase),
    /// The name of a credential of the service manager: a file of exactly 32 raw bytes in the directory that the
    /// environment variable `CREDENTIALS_DIRECTORY` names. It is read and never made.
    Credential(String),
}

/// A key for a store that is new, or is to have another key.
#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) key: StoreKey,
    pub(crate) kdf: Kdf,
}

/// The key that a store is about to have: with it, a [`Vault`](crate::Vault) can be made that it opens.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{KeySource, SealedStore, StoreKey, backend::Memory};
/// # let (old, new) = (KeySource::Bytes(StoreKey::from_bytes([7; 32])), KeySource::Bytes(StoreKey::from_bytes([8; 32])));
/// # let store = SealedStore::open(Arc::new(Memory::new()), old).await?;
/// use mx_crypto_store::{StoreError, Vault};
///
/// // What is kept beside the store is sealed anew before the store has its new key.
/// let mut sealed = Vec::new();
/// store.rekey_with(&new, |key| {
///     sealed = Vault::for_new_key(key)?.seal(b"session.json", b"a token")?;
///     Ok::<_, StoreError>(())
/// }).await?;
/// let (_vault, secret) = Vault::open(&new, b"session.json", &sealed).await?;
/// assert_eq!(*secret, b"a token");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct NewKey(pub(crate) Minted);

impl KeySource {
    /// The keys to try on a store that exists, the likeliest first.
    pub(crate) async fn candidates(&self, kdf: &Kdf) -> Result<Vec<StoreKey>> {
        if matches!(self, Self::Passphrase(_)) != kdf.is_passphrase() {
            return Err(StoreError::WrongKeyKind {
                passphrase: kdf.is_passphrase(),
            });
        }
        match self {
            Self::Bytes(key) => Ok(vec![key.clone()]),
            Self::Passphrase(passphrase) => Ok(vec![kdf.derive(passphrase).await?]),
            Self::Credential(name) => Ok(vec![credential(name)?]),
            Self::File(path) => {
                // Half of a staged key is what a crash left of one that no store has taken.
                let staged = file::read(&file::staged(path), file::Owner::OnlyUs).ok().flatten();
                let keys: Vec<StoreKey> = file::read(path, file::Owner::OnlyUs)?
                    .into_iter()
                    .chain(staged)
                    .collect();
                if keys.is_empty() {
                    return Err(StoreError::KeyMissing { path: path.clone() });
                }
                Ok(keys)
            }
        }
    }

    /// A key for a store that is about to be made, in an empty backend.
    pub(crate) async fn mint(&self) -> Result<Minted> {
        match self {
            Self::File(path) if file::read(path, file::Owner::OnlyUs)?.is_some() => {
                Err(StoreError::StoreMissing { key: path.clone() })
            }
            _ => self.mint_another().await,
        }
    }

    /// A key for a store that is about to have another one.
    pub(crate) async fn mint_another(&self) -> Result<Minted> {
        let raw = |key| Minted { key, kdf: Kdf::Raw };
        match self {
            Self::Bytes(key) => Ok(raw(key.clone())),
            Self::Credential(name) => Ok(raw(credential(name)?)),
            Self::Passphrase(passphrase) => {
                let kdf = Kdf::new(passphrase.cost())?;
                Ok(Minted {
                    key: kdf.derive(passphrase).await?,
                    kdf,
                })
            }
            Self::File(path) => {
                let key = StoreKey::generate()?;
                file::stage(path, &key)?;
                Ok(raw(key))
            }
        }
    }

    /// A key file that is there may be replaced only if its key `opens` this store: it could be another one's.
    pub(crate) fn check_replaceable(&self, opens: impl Fn(&StoreKey) -> bool) -> Result<()> {
        match self {
            Self::File(path) => {
                if let Some(staged) = file::read(&file::staged(path), file::Owner::OnlyUs).ok().flatten() {
                    if !opens(&staged) {
                        return Err(StoreError::KeyOfAnotherStore {
                            path: file::staged(path),
                        });
                    }
                    // It may be the only one: it gets its name before another one is staged.
                    file::settle(path, &staged)?;
                }
                match file::read(path, file::Owner::OnlyUs)? {
                    Some(key) if !opens(&key) => Err(StoreError::KeyOfAnotherStore { path: path.clone() }),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The store is opened by `key`: what a crash between two steps left of another one goes away, or takes its place.
    pub(crate) fn settle(&self, key: &StoreKey) -> Result<()> {
        match self {
            Self::File(path) => file::settle(path, key),
            _ => Ok(()),
        }
    }
}

fn credential(name: &str) -> Result<StoreKey> {
    let missing = || StoreError::KeyMissing {
        path: PathBuf::from(format!("${CREDENTIALS}/{name}")),
    };
    // A name and no path: what the service manager put there, and nothing else.
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(missing());
    }
    let directory = env::var_os(CREDENTIALS).ok_or_else(missing)?;
    file::read(&PathBuf::from(directory).join(name), file::Owner::ServiceManager)?.ok_or_else(missing)
}
