//! Making a cross-signing identity, and having the homeserver show it.

use matrix_sdk_crypto::types::requests::{AnyIncomingResponse, UploadSigningKeysRequest};
use mx_crypto_store::RecordId;
use mx_transport::{Answers, Call};
use ruma::{
    TransactionId,
    api::client::keys::{upload_signatures, upload_signing_keys},
};

use super::{IdentityError, IdentityStanding, recover::PrivateKeys};
use crate::{Error, Orchestrator, Result, dehydrated::replace_soon, keys::SETTINGS, machine::Ending};

/// Set while the secrets of a new identity are not kept in secret storage yet.
pub(super) fn not_kept() -> RecordId {
    RecordId::named(SETTINGS, &[], "secrets-not-kept")
}

/// Set while the key of a new backup is not.
pub(crate) fn backup_not_kept() -> RecordId {
    RecordId::named(SETTINGS, &[], "backup-key-not-kept")
}

/// The private keys of the identity that a reset is about to replace.
fn before_reset() -> RecordId {
    RecordId::named(SETTINGS, &[], "identity-before-reset")
}

impl Orchestrator {
    /// Make the account's cross-signing identity, upload it, and sign this device with it. What an earlier attempt left
    /// undone is done; what is done already is not done again. `answers` is asked when the homeserver wants to know who is
    /// there. Where the secrets are kept is another call: [`set_up_identity`](Self::set_up_identity) does both.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_transport::Unattended;
    ///
    /// // For a device that is thrown away, and whose identity is never recovered: without a secret storage.
    /// device.create_identity(&Unattended::new()).await?;
    /// assert!(device.identity_status().await?.secret_storage.key_id.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Exists`] when another device has made one; [`IdentityError::Authentication`]; of the request; of
    /// the store.
    ///
    /// # Cancel safety
    /// Safe: the private keys are on the disk before anything is uploaded, and the next call goes on.
    pub async fn create_identity(&self, answers: &dyn Answers) -> Result<()> {
        self.publish_keys().await?;
        let standing = match self.refresh_own_keys().await? {
            IdentityStanding::Replaced => self.take_back_reset().await?,
            standing => standing,
        };
        match standing {
            IdentityStanding::Good => return Ok(()),
            IdentityStanding::Absent => {}
            _ if self.holds_identity().await? => {}
            _ => return Err(IdentityError::Exists.into()),
        }
        self.upload_identity(false, answers).await
    }

    /// Replace the account's cross-signing identity by a new one. Everybody who verified the account has to verify it again,
    /// and its other devices have to recover.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, answers: &dyn mx_transport::Answers) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::SetUpIdentity;
    ///
    /// device.reset_identity(answers).await?;
    /// // The secrets of the new one are nowhere but here, until they are put into a secret storage.
    /// device.set_up_identity(SetUpIdentity { answers, passphrase: None, keep_recovery_key: None }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Authentication`]; of the request; of the store.
    ///
    /// # Cancel safety
    /// A reset that was interrupted may have happened or not: it is begun again.
    pub async fn reset_identity(&self, answers: &dyn Answers) -> Result<()> {
        self.publish_keys().await?;
        let done = self.upload_identity(true, answers).await;
        if let Err(Error::Identity(IdentityError::Authentication(_))) = &done {
            // Whether the homeserver has taken it or not, it shows.
            if self.refresh_own_keys().await? == IdentityStanding::Replaced {
                self.take_back_reset().await?;
            }
        }
        done?;
        self.machine()
            .unit(|_, unit| Box::pin(async { Ok(Ending::Commit(replace_soon(unit).await?)) }))
            .await
    }

    /// A reset that did not happen has made this device forget the private keys of the identity that is there.
    async fn take_back_reset(&self) -> Result<IdentityStanding> {
        let Some(keys) = self.store().record::<PrivateKeys>(&before_reset()).await? else {
            return Ok(IdentityStanding::Replaced);
        };
        match self.join_identity(keys).await {
            Ok(()) | Err(Error::Identity(IdentityError::Mismatch)) => self.identity_standing().await,
            Err(error) => Err(error),
        }
    }

    /// Whether all private keys of the identity that we know are here.
    pub(super) async fn holds_identity(&self) -> Result<bool> {
        self.machine()
            .unit(|machine, _| {
                Box::pin(async { Ok(Ending::Commit(machine.cross_signing_status().await.is_complete())) })
            })
            .await
    }

    async fn upload_identity(&self, reset: bool, answers: &dyn Answers) -> Result<()> {
        // No answer to a query may come between: one that shows the identity before this one makes the engine forget the
        // private keys of the new one.
        let alone = self.upkeep_lock().await;
        let requests = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let fresh = reset || !machine.cross_signing_status().await.is_complete();
                    if reset && let Some(before) = PrivateKeys::of(machine).await? {
                        unit.put(&before_reset(), &before)?;
                    }
                    let requests = Box::pin(machine.bootstrap_cross_signing(reset)).await?;
                    if fresh {
                        unit.put(&not_kept(), &true)?;
                    }
                    Ok(Ending::Commit(requests))
                })
            })
            .await?;
        let keys = requests.upload_signing_keys_req;
        let uploaded = self.homeserver().authenticate(|auth| request_of(&keys, auth), answers);
        uploaded.await.map_err(IdentityError::Authentication)?;
        self.machine()
            .unit(|machine, unit| {
                Box::pin(async {
                    unit.delete(&before_reset())?;
                    let answer = upload_signing_keys::v3::Response::new();
                    let incoming = AnyIncomingResponse::SigningKeysUpload(&answer);
                    Box::pin(machine.mark_request_as_sent(&TransactionId::new(), incoming)).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        self.upload_signatures(requests.upload_signatures_req).await?;
        drop(alone);
        match self.refresh_own_keys().await? {
            IdentityStanding::Good => Ok(()),
            _ => Err(IdentityError::NotSigned.into()),
        }
    }

    /// Sign this device with the identity that we hold.
    pub(super) async fn sign_own_device(&self) -> Result<()> {
        let signatures = self
            .machine()
            .unit(|machine, _| {
                Box::pin(async {
                    let device = machine.get_device(machine.user_id(), machine.device_id(), None).await?;
                    let device = device.ok_or(IdentityError::NotSigned)?;
                    let signatures = device.verify().await.map_err(|error| Error::engine(&error))?;
                    Ok(Ending::Commit(signatures))
                })
            })
            .await?;
        self.upload_signatures(signatures).await?;
        match self.refresh_own_keys().await? {
            IdentityStanding::Good => Ok(()),
            _ => Err(IdentityError::NotSigned.into()),
        }
    }

    /// Signatures of keys: the same again are accepted.
    pub(crate) async fn upload_signatures(&self, request: upload_signatures::v3::Request) -> Result<()> {
        let answer = self.homeserver().send_with(request, Call::repeatable()).await?;
        if answer.failures.values().any(|failures| !failures.is_empty()) {
            return Err(IdentityError::NotSigned.into());
        }
        Ok(())
    }
}

fn request_of(
    keys: &UploadSigningKeysRequest,
    auth: Option<ruma::api::client::uiaa::AuthData>,
) -> upload_signing_keys::v3::Request {
    let mut request = upload_signing_keys::v3::Request::new();
    request.auth = auth;
    request.master_key = keys.master_key.as_ref().map(|key| key.to_raw());
    request.self_signing_key = keys.self_signing_key.as_ref().map(|key| key.to_raw());
    request.user_signing_key = keys.user_signing_key.as_ref().map(|key| key.to_raw());
    request
}
