//! One call to a verified identity: cross-signing, key backup, secret storage, in an order that a crash may cut.

use mx_transport::Answers;
use ruma::events::secret::request::SecretName;
use zeroize::Zeroizing;

use super::{
    IdentityError, IdentityStanding,
    create::{backup_not_kept, not_kept},
};
use crate::{
    BackupError, Error, Orchestrator, Result, SecretStorage, dehydrated::kept_key, machine::Ending, secrets::SECRETS,
};

/// How an identity is set up.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::SetUpIdentity;
/// use mx_transport::Unattended;
///
/// let made = device.set_up_identity(SetUpIdentity {
///     answers: &Unattended::new(),
///     passphrase: None,
///     keep_recovery_key: Some(Box::new(|key| std::fs::write("/mnt/safe/recovery.key", key))),
/// }).await?;
/// println!("{}; backup {:?}", made.standing.code(), made.backup_version);
/// # Ok(()) }
/// ```
pub struct SetUpIdentity<'a> {
    /// Who answers when the homeserver wants to know who is there.
    pub answers: &'a dyn Answers,
    /// What shall open the secret storage beside its recovery key. `None`: nothing.
    pub passphrase: Option<Zeroizing<String>>,
    /// Called with the recovery key before it is the one that counts: where it fails, nothing depends on the key.
    pub keep_recovery_key: Option<KeepRecoveryKey<'a>>,
}

/// What keeps a recovery key.
///
/// ```
/// use mx_olm_orchestrator::KeepRecoveryKey;
///
/// // It is called once. Where it fails, the key that it was given counts for nothing.
/// let keep: KeepRecoveryKey<'_> = Box::new(|_key| Err(std::io::Error::other("the safe does not answer")));
/// assert!(keep("EsTc …").is_err());
/// ```
pub type KeepRecoveryKey<'a> = Box<dyn FnOnce(&str) -> std::io::Result<()> + Send + 'a>;

impl std::fmt::Debug for SetUpIdentity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetUpIdentity")
            .field("passphrase", &self.passphrase.is_some())
            .finish_non_exhaustive()
    }
}

/// What was set up.
///
/// ```no_run
/// # fn example(made: mx_olm_orchestrator::SetUp) {
/// match (&made.recovery_key, &made.backup_error) {
///     (Some(key), _) => println!("keep this, it is shown once: {}", **key),
///     (None, Some(error)) => println!("all is there but a backup [{}]: {error}", error.code()),
///     (None, None) => println!("nothing was missing: {}", made.standing.code()),
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct SetUp {
    /// How our own identity stands.
    pub standing: IdentityStanding,
    /// The recovery key of a secret storage that was made now. It is shown once. `None`: there was a storage.
    pub recovery_key: Option<Zeroizing<String>>,
    /// The version of the key backup that is used.
    pub backup_version: Option<String>,
    /// Why none is.
    pub backup_error: Option<BackupError>,
}

impl Orchestrator {
    /// Give the account what a verified device needs, as far as it lacks it: a cross-signing identity that signs this
    /// device, a key backup, and a secret storage that holds the keys of both. What an earlier call left undone is done.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] when there is an identity that this device does not hold: recover it, or reset it. Of the
    /// authentication; of the request; of the store; [`Error::Kept`] when the recovery key could not be kept.
    ///
    /// # Cancel safety
    /// Safe: the same again does the rest. A recovery key that was given to `keep_recovery_key` may be of no use then.
    pub async fn set_up_identity(&self, how: SetUpIdentity<'_>) -> Result<SetUp> {
        self.create_identity(how.answers).await?;
        let fresh = self.store().record::<bool>(&not_kept()).await? == Some(true);
        let (backup_version, backup_error) = match self.enable_backup(fresh).await {
            Ok(version) => (Some(version), None),
            Err(Error::Backup(error)) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        // A backup that was made now has a key that no storage holds.
        let new_key = self.store().record::<bool>(&backup_not_kept()).await? == Some(true);
        let recovery_key = if fresh || new_key || self.default_key().await?.is_none() {
            Some(self.change_recovery_key(how.passphrase, how.keep_recovery_key).await?)
        } else {
            None
        };
        Ok(SetUp {
            standing: self.identity_standing().await?,
            recovery_key,
            backup_version,
            backup_error,
        })
    }

    /// Make a new secret storage with all secrets of the identity and the backup: its recovery key counts from then on,
    /// and the one before does not.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // Somebody has seen the old one. The new one is in the safe before it counts.
    /// let keep = Box::new(|key: &str| std::fs::write("/mnt/safe/recovery.key", key));
    /// let key = device.change_recovery_key(None, Some(keep)).await?;
    /// assert_eq!(device.open_secret_storage(&key).await?.recovery_key().as_str(), key.as_str());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Incomplete`] when this device does not hold the secrets; [`Error::Kept`]; of the request; of the
    /// store.
    ///
    /// # Cancel safety
    /// Until others look into the new storage the old one counts, and opens.
    pub async fn change_recovery_key(
        &self,
        passphrase: Option<Zeroizing<String>>,
        keep: Option<KeepRecoveryKey<'_>>,
    ) -> Result<Zeroizing<String>> {
        let secrets = self.own_secrets().await?;
        let passphrase = passphrase.as_ref().map(|passphrase| passphrase.as_str());
        let storage = SecretStorage::new(passphrase).await?;
        let recovery_key = storage.recovery_key();
        if let Some(keep) = keep {
            keep(&recovery_key).map_err(|source| Error::Kept { source })?;
        }
        self.keep_secret_storage(&storage, &secrets).await?;
        self.machine()
            .unit(|_, unit| {
                Box::pin(async {
                    unit.delete(&not_kept())?;
                    unit.delete(&backup_not_kept())?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        Ok(recovery_key)
    }

    /// The secrets of our identity, and of the backup where there is one.
    async fn own_secrets(&self) -> Result<Vec<(SecretName, Zeroizing<String>)>> {
        self.machine()
            .unit(|machine, _| {
                Box::pin(async {
                    let mut secrets = Vec::new();
                    let mut missing = Vec::new();
                    for name in SECRETS {
                        match machine.store().export_secret(&name).await? {
                            Some(secret) => secrets.push((name, Zeroizing::new(secret))),
                            None => missing.extend(key_name(&name)),
                        }
                    }
                    if !missing.is_empty() {
                        return Err(IdentityError::Incomplete { missing }.into());
                    }
                    secrets.extend(kept_key(machine).await?);
                    Ok(Ending::Commit(secrets))
                })
            })
            .await
    }
}

/// What people call it. `None`: it may be missing.
pub(super) const fn key_name(secret: &SecretName) -> Option<&'static str> {
    match secret {
        SecretName::CrossSigningMasterKey => Some("master key"),
        SecretName::CrossSigningSelfSigningKey => Some("self-signing key"),
        SecretName::CrossSigningUserSigningKey => Some("user-signing key"),
        _ => None,
    }
}
