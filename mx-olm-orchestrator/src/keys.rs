//! Our keys on the homeserver, and the requests that the engine wants sent.
//!
//! Device keys, one-time keys and a fallback key are uploaded when the engine asks for it, which it does from the
//! counts that each sync shows.

pub(crate) mod conflict;
mod fallback;
mod inspect;
mod pace;
mod status;
mod upload;

use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::AtomicBool},
};

use futures_util::{StreamExt, stream};
use matrix_sdk_crypto::types::requests::{AnyOutgoingRequest, OutgoingRequest};
use mx_crypto_store::{Family, RecordId};
use ruma::{OwnedUserId, TransactionId};

use self::pace::Pace;
pub(crate) use self::status::PublicKeys;
pub use self::{
    inspect::{KeyInspection, ShownDevice},
    status::KeyStatus,
};
use crate::{
    Orchestrator, ProgressStep, Result,
    backup::BackupPace,
    claims::Backoff,
    devices::OwnDevice,
    history::Inviting,
    machine::Ending,
    outgoing::{self, Answer},
    rollback,
};

pub(crate) const SETTINGS: Family = Family::new("settings");

/// The engine asks for follow-ups of follow-ups; more rounds than this mean that a homeserver leads us in a circle.
const MAX_ROUNDS: usize = 12;

/// How many questions about devices are under way at once.
const QUERIES_AT_ONCE: usize = 4;

/// Which of the engine's requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// All of them, uploads at their pace.
    Everything,
    /// All of them, because somebody asked for it.
    EverythingNow,
    /// Only questions about devices.
    Queries,
}

/// What became of requests of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Sent,
    /// It waits for a better time.
    Later,
}

/// What is remembered while the process lives: when it makes sense to ask again.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    pub(crate) claims: Mutex<Backoff>,
    pace: Mutex<Pace>,
    /// The last sync showed that somebody used our fallback key.
    fallback_used: AtomicBool,
    pub(crate) backup: BackupPace,
    /// Held while history is given or taken.
    pub(crate) history: tokio::sync::Mutex<()>,
    pub(crate) inviting: Inviting,
    /// Held while a dehydrated device is opened, made or deleted.
    pub(crate) dehydration: tokio::sync::Mutex<()>,
}

/// Set once the homeserver has our device's keys.
pub(crate) fn published() -> RecordId {
    RecordId::named(SETTINGS, &[], "keys-published")
}

impl Orchestrator {
    /// Publish our device's keys and top up its one-time keys. What is published already is not sent again.
    ///
    /// # Errors
    /// [`Error::DeviceKeysMismatch`](crate::Error::DeviceKeysMismatch) when the homeserver holds other keys for this
    /// device, [`Error::OwnDeviceDeleted`](crate::Error::OwnDeviceDeleted) when it holds none any more,
    /// [`Error::OneTimeKeyConflict`](crate::Error::OneTimeKeyConflict); of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: keys are on the disk before they are uploaded.
    pub async fn publish_keys(&self) -> Result<()> {
        let kept = self.keep_keys(Upkeep::EverythingNow).await;
        self.noticing_its_end(kept).await
    }

    /// As [`publish_keys`](Self::publish_keys), at the pace of something that happens with every sync.
    pub(crate) async fn keep_keys(&self, how: Upkeep) -> Result<()> {
        self.refuse_lost_device().await?;
        self.check_own_device(how).await?;
        self.tend_fallback_key().await?;
        self.upkeep(how).await?;
        Ok(())
    }

    /// Whether this device's keys were published before, as far as its store knows.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// // A device that was made a moment ago, and of which nobody knows.
    /// assert!(!device.were_keys_published().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn were_keys_published(&self) -> Result<bool> {
        Ok(self.store().record::<bool>(&published()).await? == Some(true))
    }

    /// Before keys are published for the first time: the device id must not be taken by other keys, as it is when a
    /// store was lost and the login was kept.
    async fn check_own_device(&self, how: Upkeep) -> Result<()> {
        if self.were_keys_published().await? {
            return Ok(());
        }
        let ours = self.identity_keys().await?;
        if self.own_device_on_server().await?.is_some_and(|theirs| theirs != ours) {
            return Err(OwnDevice::Mismatch.error(self.device_id()));
        }
        self.first_fallback_key().await?;
        if self.upkeep(how).await? == Done::Later {
            return Ok(());
        }
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.put(&published(), &true)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Send what the engine wants sent, until it wants nothing, or what is left waits for a better time. One at a time: the
    /// engine forgets which questions are under way when it is asked for its requests again (reference: engine, gap B13).
    ///
    /// # Errors
    /// The first error; the other requests are tried all the same, and everything is tried again next time.
    pub(crate) async fn upkeep(&self, how: Upkeep) -> Result<Done> {
        let _single_flight = self.upkeep_lock().await;
        let mut asked = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let mut requests = self
                .machine()
                .unit(|machine, unit| {
                    Box::pin(async {
                        let mut requests = Box::pin(machine.outgoing_requests()).await?;
                        if rollback::is_silent(unit).await? {
                            requests.retain(|request| !is_encrypted(request));
                        }
                        Ok(Ending::Commit(requests))
                    })
                })
                .await?;
            requests.retain(|request| how != Upkeep::Queries || is_query(request));
            // The engine asks at once again for users that an answer left out: once in a run is enough.
            requests.retain(|request| is_new(request, &mut asked));
            let (mut first, mut sent, mut later) = (self.ask(&requests).await.err(), false, false);
            sent |= requests.iter().any(is_query);
            for request in requests.iter().filter(|request| !is_query(request)) {
                match self.fulfil(request, how).await {
                    Ok(done) => {
                        sent |= done == Done::Sent;
                        later |= done == Done::Later;
                    }
                    Err(error) => {
                        first.get_or_insert(error);
                    }
                }
            }
            if let Some(error) = first {
                return Err(error);
            }
            if requests.is_empty() && how != Upkeep::Queries {
                self.uploads_are_settled().await?;
                return Ok(Done::Sent);
            }
            if !sent {
                return Ok(if later { Done::Later } else { Done::Sent });
            }
        }
        tracing::warn!("the engine still has requests after {MAX_ROUNDS} rounds: they wait for the next sync");
        Ok(Done::Later)
    }

    /// Ask the questions about devices among these requests: the engine asks for at most 250 users in each. A few are
    /// under way at once; each answer is taken for itself.
    async fn ask(&self, requests: &[OutgoingRequest]) -> Result<()> {
        let queries: Vec<_> = requests
            .iter()
            .filter_map(|request| match request.request() {
                AnyOutgoingRequest::KeysQuery(query) => Some((request.request_id().to_owned(), query.clone())),
                _ => None,
            })
            .collect();
        let total = queries.iter().map(|(_, query)| query.device_keys.len()).sum();
        let (mut done, mut failure) = (0, None);
        let mut answers = stream::iter(queries)
            .map(|(id, query)| async move {
                let answer = outgoing::query(self.homeserver(), &query).await;
                (id, query, answer)
            })
            .buffer_unordered(QUERIES_AT_ONCE);
        while let Some((id, query, answer)) = answers.next().await {
            let asked: BTreeSet<_> = query.device_keys.keys().cloned().collect();
            done += asked.len();
            let taken = match answer {
                Ok(answer) => self.take_query(&id, asked, answer).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = taken {
                failure.get_or_insert(error);
            }
            self.tell_progress(None, ProgressStep::Devices, done, total);
        }
        failure.map_or(Ok(()), Err)
    }

    async fn fulfil(&self, request: &OutgoingRequest, how: Upkeep) -> Result<Done> {
        let id = request.request_id();
        match request.request() {
            AnyOutgoingRequest::KeysUpload(upload) => return self.upload(id, upload, how).await,
            AnyOutgoingRequest::KeysClaim(claim) => self.claim_for_engine(id, claim).await?,
            AnyOutgoingRequest::RoomMessage(message) => {
                self.post_later(message);
                self.mark(id, Answer::room_message_is_on_its_way()).await?;
            }
            other => {
                let answer = outgoing::send(self.homeserver(), other).await?;
                self.mark(id, answer).await?;
            }
        }
        Ok(Done::Sent)
    }

    /// Give the engine the answer to a request of its own, in a unit of work.
    pub(crate) async fn mark(&self, request: &TransactionId, answer: Answer) -> Result<()> {
        let request = request.to_owned();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    Box::pin(machine.mark_request_as_sent(&request, answer.as_incoming())).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

fn is_query(request: &OutgoingRequest) -> bool {
    matches!(request.request(), AnyOutgoingRequest::KeysQuery(_))
}

/// Whether it is something that the engine has encrypted for a device: a secret that was asked for.
fn is_encrypted(request: &OutgoingRequest) -> bool {
    matches!(
        request.request(),
        AnyOutgoingRequest::ToDeviceRequest(request) if request.event_type.to_string() == "m.room.encrypted"
    )
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
