//! The backup's private key, as another device of ours gives it after a verification.
//!
//! # Why
//! The engine takes such a key from a verified device only, and lays it aside: whether it is the one of the backup that
//! is there now only the homeserver can say. Until it is looked at here, a device that was verified has all of the
//! identity and none of the room keys.

use matrix_sdk_crypto::store::{CryptoStore, types::BackupDecryptionKey};
use ruma::events::secret::request::SecretName;

use super::{
    BackupHalt,
    status::{Halted, halted},
    version::Key,
};
use crate::{Error, Orchestrator, Result, machine::Ending};

impl Orchestrator {
    /// Use the backup with a key that was given, if it is the backup's. One that is not is forgotten.
    pub(crate) async fn take_given_backup_key(&self) -> Result<()> {
        let given = self.store().get_secrets_from_inbox(&SecretName::RecoveryKey).await?;
        if given.is_empty() {
            return Ok(());
        }
        let latest = match self.latest_backup().await {
            Ok(latest) => latest,
            // Nothing that a key could belong to.
            Err(Error::Backup(_)) => None,
            Err(error) => return Err(error),
        };
        let halted: Option<Halted> = self.store().record(&halted()).await?;
        let is_off = halted.is_some_and(|halted| halted.because == BackupHalt::Off);
        let fits = latest.filter(|_| !is_off).and_then(|latest| {
            let keys = given
                .iter()
                .filter_map(|key| BackupDecryptionKey::from_base64(key).ok());
            let key = keys.rev().find(|key| key.backup_key_matches(&latest.info))?;
            Some((latest.version, key))
        });
        match fits {
            Some((version, key)) => {
                tracing::info!(%version, "another device gave the key of the backup: it is used from now on");
                self.use_backup(version, Key::Adopted(key)).await?;
            }
            None => tracing::warn!(
                "another device gave a key that is not the backup's, or the backup is off: it is not used"
            ),
        }
        let store = self.store().clone();
        self.machine()
            .unit(move |_, _| {
                Box::pin(async move {
                    store.delete_secrets_from_inbox(&SecretName::RecoveryKey).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
