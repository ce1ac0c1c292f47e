//! Our keys on the homeserver, and the requests that the engine wants sent.
//!
//! Device keys, one-time keys and a fallback key are uploaded when the engine asks for it, which it does from the
//! counts that each sync shows. A one-time key that the homeserver knows with another content is left out, so that one
//! collision never stops the uploads for good (reference: engine, gap B17).

use std::collections::BTreeSet;

use matrix_sdk_crypto::types::requests::{AnyOutgoingRequest, OutgoingRequest};
use mx_crypto_store::{Family, RecordId, Unit};
use mx_transport::RequestError;
use ruma::{
    DeviceKeyId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, TransactionId, UserId,
    api::client::keys::{get_keys, upload_keys},
};

use crate::{
    Error, Orchestrator, Result,
    machine::Ending,
    outgoing::{self, Answer},
};

const SETTINGS: Family = Family::new("settings");
const REJECTED: Family = Family::new("rejected-devices");

/// The engine asks for follow-ups of follow-ups; more rounds than this mean that a homeserver leads us in a circle.
const MAX_ROUNDS: usize = 12;

/// Our device's keys, here and on the homeserver.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct KeyStatus {
    /// Whose keys.
    pub user_id: OwnedUserId,
    /// Which device's.
    pub device_id: OwnedDeviceId,
    /// The public Ed25519 key: the device's fingerprint.
    pub ed25519: String,
    /// The public Curve25519 key.
    pub curve25519: String,
    /// The homeserver shows these keys to others.
    pub published: bool,
    /// One-time keys that the homeserver still has.
    pub one_time_keys: u64,
}

impl Orchestrator {
    /// Publish our device's keys and top up its one-time keys. What is published already is not sent again.
    ///
    /// # Errors
    /// [`Error::DeviceKeysMismatch`] when the homeserver holds other keys for this device; of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: keys are on the disk before they are uploaded.
    pub async fn publish_keys(&self) -> Result<()> {
        self.check_own_device().await?;
        self.upkeep().await
    }

    /// Our device's keys, here and on the homeserver.
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn key_status(&self) -> Result<KeyStatus> {
        let keys = self.identity_keys().await?;
        let on_server = self.own_device_on_server().await?;
        // An upload of nothing answers with the counts.
        let counts = outgoing::upload(self.homeserver(), upload_keys::v3::Request::new()).await?;
        let one_time_keys = counts.one_time_key_counts.get(&OneTimeKeyAlgorithm::SignedCurve25519);
        Ok(KeyStatus {
            user_id: self.user_id().to_owned(),
            device_id: self.device_id().to_owned(),
            published: on_server.as_ref() == Some(&keys),
            ed25519: keys.ed25519,
            curve25519: keys.curve25519,
            one_time_keys: one_time_keys.map_or(0, |count| (*count).into()),
        })
    }

    async fn identity_keys(&self) -> Result<PublicKeys> {
        let work = |machine: &matrix_sdk_crypto::OlmMachine| {
            let keys = machine.identity_keys();
            PublicKeys {
                ed25519: keys.ed25519.to_base64(),
                curve25519: keys.curve25519.to_base64(),
            }
        };
        self.machine()
            .unit(move |machine, _| Box::pin(async move { Ok(Ending::Commit(work(machine))) }))
            .await
    }

    async fn own_device_on_server(&self) -> Result<Option<PublicKeys>> {
        let mut request = get_keys::v3::Request::new();
        request
            .device_keys
            .insert(self.user_id().to_owned(), vec![self.device_id().to_owned()]);
        let answer = self
            .homeserver()
            .send_with(request, mx_transport::Call::repeatable())
            .await?;
        let raw = answer
            .device_keys
            .get(self.user_id())
            .and_then(|devices| devices.get(self.device_id()));
        let Some(keys) = raw.and_then(|raw| raw.deserialize().ok()) else {
            return Ok(None);
        };
        let of = |algorithm| {
            keys.keys
                .get(&DeviceKeyId::from_parts(algorithm, self.device_id()))
                .cloned()
                .unwrap_or_default()
        };
        Ok(Some(PublicKeys {
            ed25519: of(ruma::DeviceKeyAlgorithm::Ed25519),
            curve25519: of(ruma::DeviceKeyAlgorithm::Curve25519),
        }))
    }

    /// Whether this device's keys were published before, as far as its store knows.
    ///
    /// # Errors
    /// Of the store.
    pub async fn were_keys_published(&self) -> Result<bool> {
        let published = RecordId::named(SETTINGS, &[], "keys-published");
        Ok(self.store().record::<bool>(&published).await? == Some(true))
    }

    /// Before keys are published for the first time: the device id must not be taken by other keys, as it is when a
    /// store was lost and the login was kept.
    async fn check_own_device(&self) -> Result<()> {
        let published = RecordId::named(SETTINGS, &[], "keys-published");
        if self.store().record::<bool>(&published).await? == Some(true) {
            return Ok(());
        }
        let ours = self.identity_keys().await?;
        if self.own_device_on_server().await?.is_some_and(|theirs| theirs != ours) {
            return Err(Error::DeviceKeysMismatch {
                device: self.device_id().to_owned(),
            });
        }
        self.upkeep().await?;
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.put(&published, &true)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Send what the engine wants sent, until it wants nothing.
    ///
    /// # Errors
    /// The first error; the other requests are tried all the same, and everything is tried again next time.
    pub(crate) async fn upkeep(&self) -> Result<()> {
        let _single_flight = self.upkeep_lock().await;
        let mut asked = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let requests = self
                .machine()
                .unit(|machine, _| Box::pin(async { Ok(Ending::Commit(Box::pin(machine.outgoing_requests()).await?)) }))
                .await?;
            // The engine asks at once again for users that an answer left out: once in a run is enough.
            if requests.iter().all(|request| !is_new(request, &mut asked)) {
                return Ok(());
            }
            let mut first = None;
            for request in requests {
                if let Err(error) = self.fulfil(&request).await {
                    first.get_or_insert(error);
                }
            }
            if let Some(error) = first {
                return Err(error);
            }
        }
        tracing::warn!("the engine still has requests after {MAX_ROUNDS} rounds: they wait for the next sync");
        Ok(())
    }

    async fn fulfil(&self, request: &OutgoingRequest) -> Result<()> {
        let answer = match (
            outgoing::send(self.homeserver(), request.request()).await,
            request.request(),
        ) {
            (Err(error), AnyOutgoingRequest::KeysUpload(upload)) if is_key_collision(&error) => {
                tracing::warn!("the homeserver knows a one-time key of ours with another content: it is left out");
                let mut without = upload.clone();
                without.one_time_keys.clear();
                Answer::Upload(outgoing::upload(self.homeserver(), without).await?)
            }
            (sent, _) => sent?,
        };
        self.mark(request.request_id(), answer).await
    }

    /// Give the engine the answer to a request of its own, in a unit of work.
    pub(crate) async fn mark(&self, request: &TransactionId, answer: Answer) -> Result<()> {
        let request = request.to_owned();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    Box::pin(machine.mark_request_as_sent(&request, answer.as_incoming())).await?;
                    if let Answer::Query(response) = &answer {
                        note_rejected(machine, unit, response).await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// The engine drops devices whose keys do not verify, with a line in a log. We keep their names: a receipt shows them,
/// and a send that would reach nobody else is refused.
async fn note_rejected(
    machine: &matrix_sdk_crypto::OlmMachine,
    unit: &Unit,
    response: &get_keys::v3::Response,
) -> Result<()> {
    for (user, named) in &response.device_keys {
        let held = machine.get_user_devices(user, None).await?;
        let rejected: BTreeSet<&OwnedDeviceId> = named.keys().filter(|device| held.get(device).is_none()).collect();
        let id = RecordId::named(REJECTED, &[], user.as_str());
        if !rejected.is_empty() {
            unit.put(&id, &rejected)?;
        } else if unit.get::<BTreeSet<OwnedDeviceId>>(&id).await?.is_some() {
            unit.delete(&id)?;
        }
    }
    Ok(())
}

/// Devices that the homeserver names for `user` and whose keys do not verify.
pub(crate) async fn rejected_devices(unit: &Unit, user: &UserId) -> Result<BTreeSet<OwnedDeviceId>> {
    Ok(unit
        .get(&RecordId::named(REJECTED, &[], user.as_str()))
        .await?
        .unwrap_or_default())
}

/// Whether a request is more than a question that was asked in this run.
fn is_new(request: &OutgoingRequest, asked: &mut BTreeSet<OwnedUserId>) -> bool {
    match request.request() {
        AnyOutgoingRequest::KeysQuery(query) => {
            let before = asked.len();
            asked.extend(query.device_keys.keys().cloned());
            asked.len() > before
        }
        _ => true,
    }
}

fn is_key_collision(error: &RequestError) -> bool {
    matches!(error, RequestError::Api { status, message, .. } if status.as_u16() == 400 && message.contains("already exists"))
}

#[derive(Debug, PartialEq, Eq)]
struct PublicKeys {
    ed25519: String,
    curve25519: String,
}
