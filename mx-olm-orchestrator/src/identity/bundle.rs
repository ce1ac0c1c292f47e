//! All secrets of an identity in one file that a passphrase protects: what a deployment carries from device to device.
//!
//! # Why
//! The secrets are encrypted as in a secret storage of their own, by the engine: nothing here is a format of our own but
//! the two objects around it.

use matrix_sdk_crypto::{
    secret_storage::{AesHmacSha2EncryptedData, SecretStorageKey},
    types::{BackupSecrets, SecretsBundle},
};
use ruma::{
    OwnedUserId,
    events::{
        secret::request::SecretName,
        secret_storage::key::{
            PassPhrase, SecretStorageEncryptionAlgorithm, SecretStorageKeyEventContent,
            SecretStorageV1AesHmacSha2Properties,
        },
    },
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{IdentityError, IdentityStanding, Recovered, create::not_kept, recover::PrivateKeys};
use crate::{
    Error, KeyFileError, Orchestrator, Result, SecretStorageError, key_export::aside, machine::Ending,
    secrets::description,
};

const KIND: &str = "mx-e2ee.secrets-bundle.1";

#[derive(Serialize, Deserialize)]
struct File {
    kind: String,
    user_id: OwnedUserId,
    key: serde_json::Value,
    secrets: AesHmacSha2EncryptedData,
}

fn secret_name() -> SecretName {
    KIND.into()
}

impl Orchestrator {
    /// The secrets of our identity, and of the backup that is used, as a file that `passphrase` opens.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// match device.export_secrets("correct horse battery staple").await {
    ///     // Whoever has the file and the passphrase is this account.
    ///     Ok(file) => println!("{} bytes, for the safe", file.len()),
    ///     Err(error) if error.code() == "identity_incomplete" => println!("there is not all of it here: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Incomplete`]; [`KeyFileError::NoPassphrase`]; of the store.
    pub async fn export_secrets(&self, passphrase: &str) -> Result<String> {
        if passphrase.is_empty() {
            return Err(KeyFileError::NoPassphrase.into());
        }
        if !self.holds_identity().await? {
            let missing = vec!["keys of the identity"];
            return Err(IdentityError::Incomplete { missing }.into());
        }
        let bundle = self
            .machine()
            .unit(|machine, _| {
                Box::pin(async {
                    let bundle = machine.store().export_secrets_bundle().await;
                    Ok(Ending::Commit(bundle.map_err(|error| Error::engine(&error))?))
                })
            })
            .await?;
        let plain = Zeroizing::new(serde_json::to_vec(&bundle).map_err(|error| Error::engine(&error))?);
        let described = self.described();
        let key = serde_json::to_value(&described).map_err(|error| Error::engine(&error))?;
        let passphrase = Zeroizing::new(passphrase.to_owned());
        let secrets = aside(move || {
            let key = SecretStorageKey::from_account_data(&passphrase, described);
            key.map(|key| key.encrypt(plain.to_vec(), &secret_name()))
        });
        let file = File {
            kind: KIND.to_owned(),
            user_id: self.user_id().to_owned(),
            key,
            secrets: secrets.await?.map_err(|error| Error::engine(&error))?,
        };
        serde_json::to_string_pretty(&file).map_err(|error| Error::engine(&error))
    }

    /// Make this device part of the identity whose secrets are in such a file: as
    /// [`recover_identity`](Self::recover_identity), without secret storage. Where the homeserver shows no identity,
    /// [`create_identity`](Self::create_identity) uploads this one.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, file: String) -> Result<(), mx_olm_orchestrator::Error> {
    /// let recovered = device.import_secrets(&file, "correct horse battery staple").await?;
    /// assert!(recovered.standing.is_good(), "this device is signed: {}", recovered.standing.code());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::NoBundle`], [`IdentityError::Mismatch`]; [`SecretStorageError::WrongKey`] for another passphrase; of
    /// the request; of the store.
    ///
    /// # Cancel safety
    /// As [`recover_identity`](Self::recover_identity).
    pub async fn import_secrets(&self, file: &str, passphrase: &str) -> Result<Recovered> {
        let bundle = self.opened_bundle(file, passphrase).await?;
        self.publish_keys().await?;
        if self.refresh_own_keys().await? == IdentityStanding::Absent {
            self.take_unpublished(bundle).await?;
            return Ok(Recovered {
                standing: self.identity_standing().await?,
                backup_version: None,
                backup_error: None,
                rehydrated: None,
                dehydration_error: None,
            });
        }
        let keys = PrivateKeys {
            master: Zeroizing::new(bundle.cross_signing.master_key.clone()),
            self_signing: Zeroizing::new(bundle.cross_signing.self_signing_key.clone()),
            user_signing: Zeroizing::new(bundle.cross_signing.user_signing_key.clone()),
        };
        self.join_identity(keys).await?;
        let adopted = match &bundle.backup {
            Some(BackupSecrets::MegolmBackupV1Curve25519AesSha2(secrets)) => {
                self.adopt_backup_key(&Zeroizing::new(secrets.key.to_base64())).await
            }
            None => Ok(None),
        };
        let (backup_version, backup_error) = match adopted {
            Ok(version) => (version, None),
            Err(Error::Backup(error)) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        Ok(Recovered {
            standing: self.identity_standing().await?,
            backup_version,
            backup_error,
            rehydrated: None,
            dehydration_error: None,
        })
    }

    /// A key that only a passphrase makes. It needs no check value: the secrets are one.
    fn described(&self) -> SecretStorageKeyEventContent {
        let algorithm =
            SecretStorageEncryptionAlgorithm::V1AesHmacSha2(SecretStorageV1AesHmacSha2Properties::new(None, None));
        let mut described = SecretStorageKeyEventContent::new("bundle".to_owned(), algorithm);
        // The name of a new key is 32 random letters and digits.
        let salt = SecretStorageKey::new().key_id().to_owned();
        described.passphrase = Some(PassPhrase::new(salt, self.options().key_file_rounds.max(1).into()));
        described
    }

    async fn opened_bundle(&self, file: &str, passphrase: &str) -> Result<SecretsBundle> {
        let none = || IdentityError::NoBundle {
            user: self.user_id().to_owned(),
        };
        let file: File = serde_json::from_str(file).map_err(|_| none())?;
        if file.kind != KIND || file.user_id != self.user_id() {
            return Err(none().into());
        }
        let described = description::checked(file.key, "bundle")?;
        let passphrase = Zeroizing::new(passphrase.to_owned());
        let opened = aside(move || {
            let key = SecretStorageKey::from_account_data(&passphrase, described).ok()?;
            key.decrypt(&file.secrets, &secret_name()).ok().map(Zeroizing::new)
        });
        let opened = opened.await?.ok_or(SecretStorageError::WrongKey)?;
        Ok(serde_json::from_slice(&opened).map_err(|_| none())?)
    }

    /// The keys of an identity that the homeserver does not show.
    async fn take_unpublished(&self, bundle: SecretsBundle) -> Result<()> {
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let bundle = SecretsBundle {
                        cross_signing: bundle.cross_signing.clone(),
                        // Its version is gone with the identity.
                        backup: None,
                    };
                    let taken = machine.store().import_secrets_bundle(&bundle).await;
                    taken.map_err(|error| Error::engine(&error))?;
                    unit.put(&not_kept(), &true)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
