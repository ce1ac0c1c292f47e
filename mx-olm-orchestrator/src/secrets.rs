//! Secret storage: secrets in the account data, encrypted with a key that people keep ("Secret storage" in the
//! client-server API, often called 4S).
//!
//! # Why
//! The engine encrypts and decrypts; what the homeserver says about the key is believed there, four billion rounds of key
//! derivation too. Whether a key is the right one is proven here by its check value, and where there is none by the first
//! secret that it opens: nothing is ever written into a storage whose key is not proven.

mod account_data;
pub(crate) mod description;
mod error;

use std::collections::BTreeMap;

use matrix_sdk_crypto::secret_storage::{AesHmacSha2EncryptedData, DecodeError, SecretStorageKey};
use ruma::events::{
    secret::request::SecretName,
    secret_storage::{default_key::SecretStorageDefaultKeyEventContent, key::SecretStorageKeyEventContent},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::error::SecretStorageError;
use crate::{Error, Orchestrator, Result, key_export::aside};

/// The secrets that belong to a user's identity, and the key of the backup.
pub(crate) const SECRETS: [SecretName; 4] = [
    SecretName::CrossSigningMasterKey,
    SecretName::CrossSigningSelfSigningKey,
    SecretName::CrossSigningUserSigningKey,
    SecretName::RecoveryKey,
];

/// The key of a user's secret storage, proven or new.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let mut storage = device.open_secret_storage("EsTc …").await?;
/// let recovered = device.recover_identity(&mut storage).await?;
/// println!("{}", recovered.standing.code());
/// // The same storage opens what else is in it.
/// device.dehydrate(&mut storage).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SecretStorage {
    key: SecretStorageKey,
    proven: bool,
}

impl SecretStorage {
    /// A new storage, under a random key or one that also `passphrase` opens. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::EngineStopped`].
    pub async fn new(passphrase: Option<&str>) -> Result<Self> {
        let key = match passphrase.filter(|passphrase| !passphrase.is_empty()) {
            None => SecretStorageKey::new(),
            Some(passphrase) => {
                let passphrase = Zeroizing::new(passphrase.to_owned());
                aside(move || SecretStorageKey::new_from_passphrase(&passphrase)).await?
            }
        };
        Ok(Self { key, proven: true })
    }

    /// The recovery key: who has it has every secret of the storage.
    #[must_use]
    pub fn recovery_key(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.to_base58())
    }

    /// The name of the key, which is no secret.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.key.key_id()
    }
}

/// A secret as it is kept: encrypted for one key or several.
#[derive(Default, Deserialize, Serialize)]
struct Kept {
    #[serde(default)]
    encrypted: BTreeMap<String, serde_json::Value>,
}

impl Orchestrator {
    /// Open the user's secret storage with a recovery key or passphrase.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// match device.open_secret_storage("correct horse battery staple").await {
    ///     Ok(storage) => println!("opened {}", storage.key_id()),
    ///     Err(error) if error.code() == "wrong_recovery_key" => println!("it is neither the recovery key nor the passphrase"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SecretStorageError`]; of the request.
    pub async fn open_secret_storage(&self, key_or_passphrase: &str) -> Result<SecretStorage> {
        let key_id = self.default_key().await?.ok_or(SecretStorageError::Absent)?;
        let described: Option<SecretStorageKeyEventContent> = self
            .account_data(&format!("m.secret_storage.key.{key_id}"))
            .await?
            .map(|content: serde_json::Value| description::checked(content, &key_id))
            .transpose()?;
        let described = described.ok_or(SecretStorageError::Rejected {
            reason: "its key is not described",
        })?;
        let proven = description::has_check_value(&described);
        let given = Zeroizing::new(key_or_passphrase.to_owned());
        let key = aside(move || SecretStorageKey::from_account_data(given.trim(), described)).await?;
        let key = key.map_err(|error| match error {
            DecodeError::UnsupportedAlgorithm(_) => SecretStorageError::Rejected {
                reason: "its encryption is not known here",
            },
            DecodeError::KdfIterationCount(_) => SecretStorageError::Rejected {
                reason: description::ROUNDS_REFUSED,
            },
            DecodeError::MacLength(..) | DecodeError::IvLength(..) => SecretStorageError::Rejected {
                reason: "the check value of its key is malformed",
            },
            _ => SecretStorageError::WrongKey,
        })?;
        Ok(SecretStorage { key, proven })
    }

    /// The name of the key of the user's secret storage. `None`: there is no storage.
    pub(crate) async fn default_key(&self) -> Result<Option<String>> {
        let content: Option<serde_json::Value> = self.account_data("m.secret_storage.default_key").await?;
        let key = content.as_ref().and_then(|content| content.get("key")?.as_str());
        Ok(key.filter(|key| !key.is_empty()).map(str::to_owned))
    }

    /// Which secrets are kept for a key.
    pub(crate) async fn kept_secrets(&self, key_id: &str) -> Result<Vec<SecretName>> {
        let mut kept = Vec::new();
        for name in SECRETS {
            // What is malformed is not kept.
            let content: Option<serde_json::Value> = self.account_data(name.as_str()).await?;
            if content.is_some_and(|content| content.get("encrypted").and_then(|all| all.get(key_id)).is_some()) {
                kept.push(name);
            }
        }
        Ok(kept)
    }

    /// A secret. `None`: it is not kept for this key.
    pub(crate) async fn secret(
        &self,
        storage: &mut SecretStorage,
        name: &SecretName,
    ) -> Result<Option<Zeroizing<String>>> {
        let content: Option<Kept> = self.account_data(name.as_str()).await?;
        let Some(encrypted) = content.and_then(|mut content| content.encrypted.remove(storage.key_id())) else {
            return Ok(None);
        };
        let malformed = SecretStorageError::Rejected {
            reason: "a secret in it is malformed",
        };
        let Ok(encrypted) = serde_json::from_value::<AesHmacSha2EncryptedData>(encrypted) else {
            return Err(malformed.into());
        };
        let opened = storage
            .key
            .decrypt(&encrypted, name)
            .map_err(|_| match storage.proven {
                // The key is right, so that the secret is not what was kept.
                true => SecretStorageError::Rejected {
                    reason: "a secret in it was changed",
                },
                false => SecretStorageError::WrongKey,
            })?;
        storage.proven = true;
        let opened = Zeroizing::new(opened);
        let text = std::str::from_utf8(&opened).map_err(|_| malformed)?;
        Ok(Some(Zeroizing::new(text.trim().to_owned())))
    }

    /// Keep a secret, beside what is kept for these keys.
    pub(crate) async fn keep_secret(
        &self,
        storage: &SecretStorage,
        name: &SecretName,
        secret: &str,
        mut beside: BTreeMap<String, serde_json::Value>,
    ) -> Result<()> {
        if !storage.proven {
            return Err(SecretStorageError::WrongKey.into());
        }
        let encrypted = storage.key.encrypt(secret.as_bytes().to_vec(), name);
        let encrypted = serde_json::to_value(&encrypted).map_err(|error| Error::engine(&error))?;
        beside.insert(storage.key_id().to_owned(), encrypted);
        let content = Kept { encrypted: beside };
        self.put_account_data(name.as_str(), &content).await
    }

    /// Make a new storage the user's, once all of its secrets are in it.
    pub(crate) async fn keep_secret_storage(
        &self,
        storage: &SecretStorage,
        secrets: &[(SecretName, Zeroizing<String>)],
    ) -> Result<()> {
        let event_type = format!("m.secret_storage.key.{}", storage.key_id());
        self.put_account_data(&event_type, storage.key.event_content()).await?;
        for (name, secret) in secrets {
            // Until others look into the new storage, the old one has to open. What is malformed opens nothing.
            let kept: Option<serde_json::Value> = self.account_data(name.as_str()).await?;
            let kept = kept.and_then(|kept| serde_json::from_value::<Kept>(kept).ok());
            let kept = kept.unwrap_or_default().encrypted;
            self.keep_secret(storage, name, secret, kept).await?;
        }
        // From here on others look there.
        let default = SecretStorageDefaultKeyEventContent::new(storage.key_id().to_owned());
        self.put_account_data("m.secret_storage.default_key", &default).await?;
        // What is kept for other keys goes: it may be another secret by now, and nobody needs it any more.
        for (name, secret) in secrets {
            self.keep_secret(storage, name, secret, BTreeMap::new()).await?;
        }
        Ok(())
    }
}
