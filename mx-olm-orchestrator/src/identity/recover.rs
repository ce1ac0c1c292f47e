//! Becoming part of an identity that exists, with the secrets that were kept for that.

use matrix_sdk_crypto::{
    OlmMachine,
    store::{SecretImportError, types::CrossSigningKeyExport},
};
use ruma::events::secret::request::SecretName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{IdentityError, IdentityStanding};
use crate::{
    BackupError, DehydrationError, Error, Orchestrator, Rehydrated, Result, SecretStorage, SecretStorageError,
    machine::Ending, secrets::SECRETS,
};

/// What was recovered.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let mut storage = device.open_secret_storage("EsTc …").await?;
/// let recovered = device.recover_identity(&mut storage).await?;
/// // The identity is here, whatever became of the rest.
/// println!("{}", recovered.standing.code());
/// if let Some(error) = recovered.backup_error {
///     println!("the backup is not used [{}]: {error}", error.code());
/// }
/// if let Some(error) = recovered.dehydration_error {
///     println!("the dehydrated device was not opened [{}]: {error}", error.code());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// How our own identity stands now.
    pub standing: IdentityStanding,
    /// The version of the key backup that is used from now on. `None`: the account has none.
    pub backup_version: Option<String>,
    /// Why the key backup is not used, where there is one.
    pub backup_error: Option<BackupError>,
    /// What the account's dehydrated device had. `None`: there is none whose key is in the secret storage.
    pub rehydrated: Option<Rehydrated>,
    /// Why the dehydrated device was not opened, where there is one. What was begun goes on with the next syncs.
    pub dehydration_error: Option<Box<Error>>,
}

/// The private keys of an identity, all three: with fewer the engine would believe a master key that nobody proved.
#[derive(Serialize, Deserialize)]
pub(super) struct PrivateKeys {
    pub(super) master: Zeroizing<String>,
    pub(super) self_signing: Zeroizing<String>,
    pub(super) user_signing: Zeroizing<String>,
}

impl PrivateKeys {
    /// Those that are here. `None`: not all are.
    pub(super) async fn of(machine: &OlmMachine) -> Result<Option<Self>> {
        let Some(export) = machine.store().export_cross_signing_keys().await? else {
            return Ok(None);
        };
        let kept = |key: &Option<String>| key.clone().map(Zeroizing::new);
        Ok(kept(&export.master_key)
            .zip(kept(&export.self_signing_key))
            .zip(kept(&export.user_signing_key))
            .map(|((master, self_signing), user_signing)| Self {
                master,
                self_signing,
                user_signing,
            }))
    }
}

impl Orchestrator {
    /// Make this device part of the account's identity: take its private keys out of the secret storage, hold them
    /// against the public ones that the homeserver shows, and sign this device. The key backup is used from then on, and
    /// what waits for its keys is asked for with the next syncs.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let mut storage = device.open_secret_storage("EsTc …").await?;
    /// match device.recover_identity(&mut storage).await {
    ///     Ok(recovered) => println!("{}; backup {:?}", recovered.standing.code(), recovered.backup_version),
    ///     // The storage is of an identity that was reset since.
    ///     Err(error) if error.code() == "identity_mismatch" => println!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SecretStorageError::Missing`], [`SecretStorageError::WrongKey`]; [`IdentityError::Absent`],
    /// [`IdentityError::Mismatch`]; of the request; of the store. Private keys that do not belong to the identity are
    /// not taken.
    ///
    /// # Cancel safety
    /// Safe: each step is whole or not done, and the same again does the rest.
    pub async fn recover_identity(&self, storage: &mut SecretStorage) -> Result<Recovered> {
        self.publish_keys().await?;
        if self.refresh_own_keys().await? == IdentityStanding::Absent {
            return Err(IdentityError::Absent.into());
        }
        let mut secrets = Vec::new();
        let mut missing = Vec::new();
        for name in &SECRETS {
            match self.secret(storage, name).await? {
                Some(secret) => secrets.push(secret),
                None if *name == SecretName::RecoveryKey => {}
                None => missing.push(name.as_str().to_owned()),
            }
        }
        if !missing.is_empty() {
            return Err(SecretStorageError::Missing { names: missing }.into());
        }
        let mut secrets = secrets.into_iter();
        let (Some(master), Some(self_signing), Some(user_signing)) = (secrets.next(), secrets.next(), secrets.next())
        else {
            return Err(IdentityError::Absent.into());
        };
        let keys = PrivateKeys {
            master,
            self_signing,
            user_signing,
        };
        self.join_identity(keys).await?;
        let backup = match secrets.next() {
            Some(key) => self.adopt_backup_key(&key).await,
            None => Ok(None),
        };
        let (backup_version, backup_error) = match backup {
            Ok(version) => (version, None),
            Err(Error::Backup(error)) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let (rehydrated, dehydration_error) = match self.open_dehydrated_device(storage).await {
            Ok(rehydrated) => (rehydrated, None),
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => (None, Some(Box::new(error))),
        };
        Ok(Recovered {
            standing: self.identity_standing().await?,
            backup_version,
            backup_error,
            rehydrated,
            dehydration_error,
        })
    }

    async fn open_dehydrated_device(&self, storage: &mut SecretStorage) -> Result<Option<Rehydrated>> {
        if !self.adopt_dehydration_key(storage).await? {
            return Ok(None);
        }
        match Box::pin(self.rehydrate()).await {
            Ok(rehydrated) => Ok(Some(rehydrated)),
            Err(Error::Dehydration(DehydrationError::Absent | DehydrationError::Unsupported)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Take the private keys of the identity that the homeserver shows, and sign this device.
    pub(super) async fn join_identity(&self, keys: PrivateKeys) -> Result<()> {
        let standing = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let export = CrossSigningKeyExport {
                        master_key: Some(keys.master.to_string()),
                        self_signing_key: Some(keys.self_signing.to_string()),
                        user_signing_key: Some(keys.user_signing.to_string()),
                    };
                    machine.import_cross_signing_keys(export).await.map_err(refused)?;
                    Ok(Ending::Commit(super::own::standing(machine).await?))
                })
            })
            .await?;
        match standing {
            IdentityStanding::Good => Ok(()),
            IdentityStanding::DeviceNotSigned => self.sign_own_device().await,
            _ => Err(IdentityError::Mismatch.into()),
        }
    }
}

fn refused(error: SecretImportError) -> Error {
    match error {
        SecretImportError::Store(error) => error.into(),
        // A key that is none belongs to nothing either.
        SecretImportError::Key { .. } | SecretImportError::MismatchedPublicKeys { .. } => {
            IdentityError::Mismatch.into()
        }
    }
}
