//! One upload of keys: at a pace, never while something is wrong with the device, and never marked as sent unless the
//! homeserver took it.

use mx_transport::RequestError;
use ruma::{TransactionId, api::client::keys::upload_keys};

use super::{Done, Upkeep, conflict::Collision, fallback};
use crate::{Orchestrator, Result, machine::Ending, outgoing};

impl Orchestrator {
    /// Upload what the engine wants uploaded, and give it the answer.
    ///
    /// # Errors
    /// [`Error::OneTimeKeyConflict`](crate::Error::OneTimeKeyConflict); what is wrong with our device; of the request;
    /// of the store.
    pub(super) async fn upload(
        &self,
        id: &TransactionId,
        upload: &upload_keys::v3::Request,
        how: Upkeep,
    ) -> Result<Done> {
        if let Some(wrong) = self.own_device().await? {
            return Err(wrong.error(self.device_id()));
        }
        let now_ms = self.now_ms();
        let conflict = self.conflict().await?;
        if let Some(conflict) = conflict.as_ref().filter(|conflict| conflict.is_pausing(now_ms)) {
            return Err(conflict.error());
        }
        let acknowledged = conflict.is_some_and(|conflict| conflict.acknowledged);
        if how == Upkeep::Everything && !self.may_upload(upload, now_ms) {
            return Ok(Done::Later);
        }
        let answer = match outgoing::upload(self.homeserver(), upload.clone()).await {
            Ok(answer) => answer,
            Err(error) => match super::conflict::collision(&error, upload) {
                None => return Err(self.refused(error, now_ms)),
                Some(Collision::Same) => {
                    tracing::warn!("the homeserver already has a one-time key of ours, which is as if it took it");
                    self.upload_without(upload).await?
                }
                Some(_) if acknowledged => self.upload_without(upload).await?,
                Some(Collision::Differs(key)) => return Err(self.note_conflict(Some(key)).await?.error()),
                Some(Collision::Unreadable) => {
                    // Only if it takes the rest, the one-time keys are what it does not take.
                    if self.upload_without(upload).await.is_err() {
                        return Err(self.refused(error, now_ms));
                    }
                    return Err(self.note_conflict(None).await?.error());
                }
            },
        };
        if let Ok(mut pace) = self.keeping().pace.lock() {
            pace.accepted();
        }
        let (id, new_fallback) = (id.to_owned(), !upload.fallback_keys.is_empty());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let incoming = matrix_sdk_crypto::types::requests::AnyIncomingResponse::KeysUpload(&answer);
                    Box::pin(machine.mark_request_as_sent(&id, incoming)).await?;
                    if new_fallback {
                        fallback::published(unit, now_ms)?;
                    }
                    Ok(Ending::Commit(Done::Sent))
                })
            })
            .await
    }

    /// Post the same again without the one-time keys. The answer shows what the homeserver really has.
    async fn upload_without(&self, upload: &upload_keys::v3::Request) -> Result<upload_keys::v3::Response> {
        let mut without = upload.clone();
        without.one_time_keys.clear();
        Ok(outgoing::upload(self.homeserver(), without).await?)
    }

    fn may_upload(&self, upload: &upload_keys::v3::Request, now_ms: u64) -> bool {
        let Ok(mut pace) = self.keeping().pace.lock() else {
            return true;
        };
        let first = upload.device_keys.is_some();
        let allowed = !pace.is_pausing(now_ms) && (pace.take(upload.one_time_keys.len(), now_ms) || first);
        if !allowed {
            tracing::warn!("the homeserver asks for more keys than it can use, or refuses them: they wait");
        }
        allowed
    }

    /// Note a refusal that will not be over in a moment.
    fn refused(&self, error: RequestError, now_ms: u64) -> crate::Error {
        let lasting = match &error {
            RequestError::Api { status, .. } => !matches!(status.as_u16(), 401 | 429) && !status.is_server_error(),
            RequestError::Decode { .. } => true,
            _ => false,
        };
        if lasting && let Ok(mut pace) = self.keeping().pace.lock() {
            pace.refused(now_ms);
        }
        error.into()
    }
}
