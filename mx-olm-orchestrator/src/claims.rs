//! Opening sessions: which devices have none is computed here, and what became of each claimed key is remembered.
//!
//! # Why
//! The engine leaves servers and devices alone that failed lately and asks nothing then, which looks like there being
//! nothing to ask; and it says in a log only which claimed keys it refused (reference: engine, gaps B8, B13 and B19).
//!
//! # Why a claim is repeated whose end is unknown
//! A claim takes a key away for good, so that no transport repeats one by itself. Here it is repeated, at most
//! [`MAX_ATTEMPTS`] times: a claim that is given up fails the send or leaves somebody out, and the next send claims just
//! the same, so that giving up saves no key but that of a message which is never sent. What may be lost is bounded by two
//! keys a device, and by the fallback key that a device has for when they are used up.

mod backoff;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use matrix_sdk_crypto::{Device, OlmMachine, types::requests::AnyIncomingResponse};
use mx_crypto_store::{Family, RecordId, Unit};
use mx_transport::{Call, Phase, RequestError, TransportError, TransportErrorKind};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedServerName, OwnedTransactionId, OwnedUserId, RoomId, TransactionId,
    UserId, api::client::keys::claim_keys,
};

pub(crate) use self::backoff::Backoff;
use self::verdict::{judge, keep_one};
use crate::{
    Error, Orchestrator, ProgressStep, Recipients, Result, UnusableReason,
    devices::{Unusable, servers},
    machine::Ending,
    outgoing,
};

const FAILURES: Family = Family::new("claim-failures");

/// The most devices that one request claims keys for.
const AT_MOST: usize = 250;
/// How many requests are under way at once.
const AT_ONCE: usize = 4;
/// Each attempt takes a key away from every device that it names.
const MAX_ATTEMPTS: u32 = 3;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(30);
/// The transport may say itself, and better, that the time is up.
const GRACE: Duration = Duration::from_millis(250);
/// How long our homeserver may wait for others.
const FEDERATION: Duration = Duration::from_secs(10);

type Wanted = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// Whom a claim left unknown.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    pub(crate) users: BTreeSet<OwnedUserId>,
    pub(crate) servers: BTreeSet<OwnedServerName>,
    /// Devices without a session, of users who are known.
    pub(crate) sessionless: Vec<(OwnedUserId, OwnedDeviceId)>,
}

impl Unanswered {
    fn add(&mut self, user: OwnedUserId) {
        self.servers.insert(user.server_name().to_owned());
        self.users.insert(user);
    }
}

impl Orchestrator {
    /// Open sessions with the devices of `users` that have none. One call at a time claims, in requests of at most
    /// [`AT_MOST`] devices, a few of them at once; each answer is taken in a unit of work of its own, so that a process
    /// that is killed in between goes on with the devices that are left.
    ///
    /// # Errors
    /// [`Error::ClaimFailed`]; of the store. With best effort a claim that fails leaves its users unanswered instead.
    pub(crate) async fn claim_sessions(
        &self,
        room: &RoomId,
        users: &BTreeSet<OwnedUserId>,
        recipients: Recipients,
    ) -> Result<Unanswered> {
        // Where there is nothing to claim, nobody waits for another's claim.
        let mut unanswered = Unanswered::default();
        if self.missing_sessions(users.clone()).await?.1.is_empty() {
            return Ok(unanswered);
        }
        let _single_flight = self.claim_lock().await;
        let (mut id, mut wanted) = self.missing_sessions(users.clone()).await?;
        self.hold_back(&mut wanted, &mut unanswered);
        let total: usize = wanted.values().map(BTreeMap::len).sum();
        let (mut done, mut failure) = (0, None);
        let mut answers = stream::iter(chunks(wanted))
            .map(|wanted| async move {
                let answer = self.claim(&wanted).await;
                (wanted, answer)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((wanted, answer)) = answers.next().await {
            self.tell_progress(Some(room), ProgressStep::Sessions, done, total);
            done += wanted.values().map(BTreeMap::len).sum::<usize>();
            match answer {
                Ok(answer) => {
                    let id = std::mem::replace(&mut id, TransactionId::new());
                    let outcome = self.take_claim(id, wanted, answer).await?;
                    self.note_claims(outcome, &mut unanswered);
                }
                Err(Error::ClaimFailed { .. }) if recipients == Recipients::BestEffort => {
                    wanted.into_keys().for_each(|user| unanswered.add(user));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => Ok(unanswered),
            Some(error) => Err(error),
        }
    }

    /// A claim that the engine asks for itself, for a session that broke.
    pub(crate) async fn claim_for_engine(&self, id: &TransactionId, request: &claim_keys::v3::Request) -> Result<()> {
        let _single_flight = self.claim_lock().await;
        let answer = self.claim(&request.one_time_keys).await?;
        let outcome = self
            .take_claim(id.to_owned(), request.one_time_keys.clone(), answer)
            .await?;
        self.note_claims(outcome, &mut Unanswered::default());
        Ok(())
    }

    /// The devices of `users` without a session, and those that the engine wants a new one with.
    async fn missing_sessions(&self, users: BTreeSet<OwnedUserId>) -> Result<(OwnedTransactionId, Wanted)> {
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let asked = Box::pin(machine.get_missing_sessions(users.iter().map(AsRef::as_ref))).await?;
                    let (id, mut wanted) = match asked {
                        Some((id, request)) => (id, request.one_time_keys),
                        None => (TransactionId::new(), Wanted::new()),
                    };
                    for user in &users {
                        for device in machine.get_user_devices(user, None).await?.devices() {
                            let is_own = user == machine.user_id() && device.device_id() == machine.device_id();
                            if !is_own && !has_session(machine, &device).await? {
                                wanted
                                    .entry(user.clone())
                                    .or_default()
                                    .insert(device.device_id().to_owned(), OneTimeKeyAlgorithm::SignedCurve25519);
                            }
                        }
                    }
                    Ok(Ending::Commit((id, wanted)))
                })
            })
            .await
    }

    /// Take out whom it makes no sense to ask yet. A server that is left alone leaves its users unanswered.
    fn hold_back(&self, wanted: &mut Wanted, unanswered: &mut Unanswered) {
        let now_ms = self.now_ms();
        let Ok(backoff) = self.keeping().claims.lock() else {
            return;
        };
        wanted.retain(|user, devices| {
            if backoff.waits_for_server(&user.server_name().to_owned(), now_ms) {
                unanswered.add(user.clone());
                return false;
            }
            devices.retain(|device, _| {
                let device = (user.clone(), device.clone());
                let waits = backoff.waits_for_device(&device, now_ms);
                if waits {
                    unanswered.sessionless.push(device);
                }
                !waits
            });
            !devices.is_empty()
        });
    }

    /// Post a claim, a few times where its end is unknown.
    async fn claim(&self, wanted: &Wanted) -> Result<claim_keys::v3::Response> {
        let mut pause = Duration::from_secs(1);
        for attempt in 1.. {
            let mut request = claim_keys::v3::Request::new(wanted.clone());
            request.timeout = Some(FEDERATION);
            let call = Call::default().within(ATTEMPT);
            let asked = outgoing::claim(self.homeserver(), request, call);
            let error = match tokio::time::timeout(ATTEMPT + GRACE, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                // A transport that pays no heed to deadlines.
                Err(_) => TransportError::new(TransportErrorKind::Timeout(Phase::Total)).into(),
            };
            if !is_of_the_moment(&error) {
                return Err(error.into());
            }
            if attempt >= MAX_ATTEMPTS {
                return Err(Error::ClaimFailed { source: error });
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(Error::EngineStopped)
    }

    /// Give the engine the answer, and remember what became of each key: one unit of work.
    async fn take_claim(
        &self,
        id: OwnedTransactionId,
        wanted: Wanted,
        answer: claim_keys::v3::Response,
    ) -> Result<Vec<Claim>> {
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let mut answer = answer;
                    keep_asked(&mut answer, &wanted);
                    let down = servers(&answer.failures);
                    let mut claims = Vec::new();
                    for (user, devices) in &wanted {
                        for device in devices.keys() {
                            let claimed = answer.one_time_keys.get(user).and_then(|keys| keys.get(device));
                            let failed = claimed.is_none() && down.contains(user.server_name());
                            let verdict = match machine.get_device(user, device, None).await? {
                                Some(held) => judge(&held, claimed),
                                None => continue,
                            };
                            claims.push(Claim {
                                user: user.clone(),
                                device: device.clone(),
                                outcome: if failed { None } else { Some(verdict) },
                            });
                        }
                    }
                    let incoming = AnyIncomingResponse::KeysClaim(&answer);
                    Box::pin(machine.mark_request_as_sent(&id, incoming)).await?;
                    for claim in &mut claims {
                        claim.confirm(machine).await?;
                        claim.remember(unit).await?;
                    }
                    Ok(Ending::Commit(claims))
                })
            })
            .await
    }

    /// Whether it is not time yet to ask any of these devices again.
    pub(crate) fn none_is_due(&self, devices: &[(OwnedUserId, OwnedDeviceId)]) -> bool {
        let now_ms = self.now_ms();
        let backoff = self.keeping().claims.lock();
        backoff.is_ok_and(|backoff| {
            let mut devices = devices.iter();
            devices.all(|device| backoff.waits_for_device(device, now_ms))
        })
    }

    /// Note when to ask again, and whose server did not answer.
    fn note_claims(&self, claims: Vec<Claim>, unanswered: &mut Unanswered) {
        let now_ms = self.now_ms();
        let Ok(mut backoff) = self.keeping().claims.lock() else {
            return;
        };
        for claim in &claims {
            if claim.outcome.is_some() {
                backoff.server(claim.user.server_name().to_owned(), true, now_ms);
            }
        }
        let mut down = BTreeSet::new();
        for claim in claims {
            match claim.outcome {
                Some(outcome) => {
                    let device = (claim.user, claim.device);
                    if outcome.is_err() {
                        unanswered.sessionless.push(device.clone());
                    }
                    backoff.device(device, outcome.is_ok(), now_ms);
                }
                None => {
                    down.insert(claim.user.server_name().to_owned());
                    unanswered.add(claim.user);
                }
            }
        }
        for server in down {
            backoff.server(server, false, now_ms);
        }
    }
}

/// Claims of at most [`AT_MOST`] devices each.
fn chunks(wanted: Wanted) -> Vec<Wanted> {
    let mut chunks = Vec::new();
    let (mut chunk, mut devices) = (Wanted::new(), 0);
    for (user, algorithms) in wanted {
        for (device, algorithm) in algorithms {
            if devices == AT_MOST {
                chunks.push(std::mem::take(&mut chunk));
                devices = 0;
            }
            chunk.entry(user.clone()).or_default().insert(device, algorithm);
            devices += 1;
        }
    }
    if devices > 0 {
        chunks.push(chunk);
    }
    chunks
}

/// What became of a claim for one device.
#[derive(Debug)]
struct Claim {
    user: OwnedUserId,
    device: OwnedDeviceId,
    /// `None`: the device's server did not answer.
    outcome: Option<Result<(), UnusableReason>>,
}

impl Claim {
    /// The engine has the last word: a key that verifies and opened no session gives no secret, which is the one thing
    /// that is left to be wrong with it.
    async fn confirm(&mut self, machine: &OlmMachine) -> Result<()> {
        if matches!(self.outcome, Some(Ok(())))
            && let Some(held) = machine.get_device(&self.user, &self.device, None).await?
            && !has_session(machine, &held).await?
        {
            self.outcome = Some(Err(UnusableReason::NonContributoryKey));
        }
        Ok(())
    }

    async fn remember(&self, unit: &Unit) -> Result<()> {
        let Some(outcome) = &self.outcome else { return Ok(()) };
        let id = RecordId::named(FAILURES, &[], self.user.as_str());
        let mut failures: Unusable = unit.get(&id).await?.unwrap_or_default();
        let before = failures.clone();
        match outcome {
            Ok(()) => failures.remove(&self.device),
            Err(reason) => {
                tracing::warn!(user = %self.user, device = %self.device, reason = reason.code(),
                    "no session could be opened with a device");
                failures.insert(self.device.clone(), reason.clone())
            }
        };
        if failures.is_empty() && !before.is_empty() {
            unit.delete(&id)?;
        } else if failures != before {
            unit.put(&id, &failures)?;
        }
        Ok(())
    }
}

/// Of an answer, keep what was asked for: one key for each device.
pub(crate) fn keep_asked(answer: &mut claim_keys::v3::Response, wanted: &Wanted) {
    answer.one_time_keys.retain(|user, devices| {
        let asked = wanted.get(user);
        devices.retain(|device, _| asked.is_some_and(|asked| asked.contains_key(device)));
        devices.values_mut().for_each(keep_one);
        devices.retain(|_, keys| !keys.is_empty());
        !devices.is_empty()
    });
}

/// Why the last claim for each of a user's devices opened no session.
pub(crate) async fn claim_failures(unit: &Unit, user: &UserId) -> Result<Unusable> {
    Ok(unit
        .get(&RecordId::named(FAILURES, &[], user.as_str()))
        .await?
        .unwrap_or_default())
}

/// Whether there is an Olm session with the device.
pub(crate) async fn has_session(machine: &OlmMachine, device: &Device) -> Result<bool> {
    let Some(key) = device.curve25519_key() else {
        return Ok(false);
    };
    let sessions = machine.store().get_sessions(&key.to_base64()).await?;
    Ok(sessions.is_some_and(|sessions| !sessions.is_empty()))
}

/// It may work when it is tried again.
fn is_of_the_moment(error: &RequestError) -> bool {
    match error {
        RequestError::Transport(error) => error.is_transient(),
        RequestError::Api { status, .. } => status.is_server_error(),
        _ => false,
    }
}
