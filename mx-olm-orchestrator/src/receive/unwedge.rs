//! Olm sessions that broke: a new one, and an `m.dummy` on it that tells the other device.
//!
//! # Why
//! A device that lost its store, or was set back, sends us messages that no session of ours opens, and goes on to do so
//! until it gets a message on a new session. The engine prepares that message and never hands it out (reference: engine,
//! part B, 1). Section "Recovering from undecryptable messages" of the specification allows one new session an hour for
//! a device; that we made one is on the disk before the one-time key is claimed, so that neither a restart nor a clock
//! makes more of them.

use matrix_sdk_crypto::{CollectStrategy, OlmMachine, types::requests::AnyIncomingResponse};
use mx_crypto_store::{Cursor, Family, RecordId, Unit};
use mx_transport::Call;
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedTransactionId, OwnedUserId, TransactionId,
    api::client::{keys::claim_keys, to_device::send_event_to_device},
    events::AnyToDeviceEventContent,
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Orchestrator, Result, claims::keep_asked, machine::Ending, outgoing};

/// Devices whose messages cannot be opened, by their Curve25519 key.
const WEDGED: Family = Family::new("wedged");
/// When a new session was made for a device.
const RENEWED: Family = Family::new("sessions-renewed");
/// Messages that are on the disk and not confirmed by the homeserver.
const DUMMIES: Family = Family::new("dummies");

const HOUR_MS: u64 = 60 * 60 * 1000;
/// A claim that failed is tried again after this.
const RETRY_MS: u64 = 5 * 60 * 1000;

/// At most this many devices are helped after one sync,
const MOST: usize = 20;
/// of at most this many that are looked at: those whose hour is not over must not keep the others from it.
const LOOKED_AT: usize = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wedged {
    user: OwnedUserId,
    sender_key: String,
    since_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Renewed {
    at_ms: u64,
    /// A claim was sent, and it is not known that a session came of it.
    unfinished: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Dummy {
    transaction: OwnedTransactionId,
    user: OwnedUserId,
    device: OwnedDeviceId,
    content: Raw<AnyToDeviceEventContent>,
}

fn wedged_id(sender_key: &str) -> RecordId {
    RecordId::named(WEDGED, &[], sender_key)
}

fn renewed_id(sender_key: &str) -> RecordId {
    RecordId::named(RENEWED, &[], sender_key)
}

/// A message of this device could not be opened. Noted is only a device that is known, of a user with whom we share a room:
/// of others, anybody could name as many as he likes, so that nobody's turn would come.
pub(super) async fn note(
    machine: &OlmMachine,
    unit: &Unit,
    user: OwnedUserId,
    sender_key: &str,
    now_ms: u64,
) -> Result<()> {
    let id = wedged_id(sender_key);
    let wedged = Wedged {
        user,
        sender_key: sender_key.to_owned(),
        since_ms: now_ms,
    };
    if unit.get::<Wedged>(&id).await?.is_some()
        || !machine.tracked_users().await?.contains(&wedged.user)
        || device_of(machine, &wedged).await?.is_none()
    {
        return Ok(());
    }
    Ok(unit.put(&id, &wedged)?)
}

/// A message of this device was opened: whatever was wrong is over.
pub(super) async fn opened(unit: &Unit, sender_key: &str) -> Result<()> {
    let id = wedged_id(sender_key);
    if unit.get::<Wedged>(&id).await?.is_some() {
        unit.delete(&id)?;
    }
    Ok(())
}

impl Orchestrator {
    /// Open a new session with every device whose messages could not be opened, at most once an hour a device, and tell
    /// it. What fails is tried again after a later sync.
    ///
    /// # Errors
    /// Of the store; of the request.
    pub(crate) async fn unwedge(&self) -> Result<()> {
        self.send_dummies().await?;
        let waiting = self.store().scan(WEDGED, &[], None, LOOKED_AT).await?;
        let (mut first, mut helped) = (None, 0);
        for record in waiting {
            if helped == MOST {
                break;
            }
            match self.renew(record.decode()?).await {
                Ok(renewed) => helped += usize::from(renewed),
                Err(error) => {
                    helped += 1;
                    first.get_or_insert(error);
                }
            }
        }
        self.send_dummies().await?;
        first.map_or(Ok(()), Err)
    }

    /// Returns whether it was time for it.
    async fn renew(&self, wedged: Wedged) -> Result<bool> {
        let now_ms = self.now_ms();
        let asked = wedged.clone();
        let device = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move { Ok(Ending::Commit(to_renew(machine, unit, &asked, now_ms).await?)) })
            })
            .await?;
        let Some(device) = device else { return Ok(false) };
        let mut request = claim_keys::v3::Request::new([].into());
        request.one_time_keys.insert(
            wedged.user.clone(),
            [(device.clone(), OneTimeKeyAlgorithm::SignedCurve25519)].into(),
        );
        let wanted = request.one_time_keys.clone();
        let mut claimed = {
            let _single_flight = self.claim_lock().await;
            outgoing::claim(self.homeserver(), request, Call::default()).await?
        };
        keep_asked(&mut claimed, &wanted);
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let answer = AnyIncomingResponse::KeysClaim(&claimed);
                    Box::pin(machine.mark_request_as_sent(&TransactionId::new(), answer)).await?;
                    if claimed
                        .one_time_keys
                        .get(&wedged.user)
                        .is_none_or(|of| !of.contains_key(&device))
                    {
                        // There is none to be had: in an hour there may be.
                        finished(unit, &wedged, now_ms)?;
                        return Ok(Ending::Commit(true));
                    }
                    queue_dummy(machine, unit, &wedged, &device, now_ms).await?;
                    Ok(Ending::Commit(true))
                })
            })
            .await
    }

    /// Send what is on the disk, with the same bytes and transaction id at every attempt.
    async fn send_dummies(&self) -> Result<()> {
        for record in self.store().scan(DUMMIES, &[], None, MOST).await? {
            let dummy: Dummy = record.decode()?;
            let to = DeviceIdOrAllDevices::DeviceId(dummy.device.clone());
            let request = send_event_to_device::v3::Request::new_raw(
                "m.room.encrypted".into(),
                dummy.transaction,
                [(dummy.user, [(to, dummy.content)].into())].into(),
            );
            match self.homeserver().send(request).await {
                Ok(_) => {}
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(
                        code = error.code(),
                        "the homeserver refuses a message that repairs a session"
                    );
                }
                Err(error) => return Err(error.into()),
            }
            self.forget(record.cursor).await?;
        }
        Ok(())
    }

    async fn forget(&self, cursor: Cursor) -> Result<()> {
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.delete_at(&cursor)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// The homeserver will never take it.
fn is_refusal(error: &mx_transport::RequestError) -> bool {
    error
        .status()
        .is_some_and(|status| status.is_client_error() && !matches!(status.as_u16(), 401 | 408 | 429))
}

/// The device to make a new session with, when it is time for one: that we do is noted with this.
async fn to_renew(machine: &OlmMachine, unit: &Unit, wedged: &Wedged, now_ms: u64) -> Result<Option<OwnedDeviceId>> {
    let id = renewed_id(&wedged.sender_key);
    if let Some(last) = unit.get::<Renewed>(&id).await? {
        let pause = if last.unfinished { RETRY_MS } else { HOUR_MS };
        if now_ms < last.at_ms {
            // The clock was set back: an hour from now, and not before.
            unit.put(
                &id,
                &Renewed {
                    at_ms: now_ms,
                    unfinished: last.unfinished,
                },
            )?;
            return Ok(None);
        }
        if now_ms - last.at_ms < pause {
            return Ok(None);
        }
    }
    let Some(device) = device_of(machine, wedged).await? else {
        // It was deleted since.
        unit.delete(&wedged_id(&wedged.sender_key))?;
        return Ok(None);
    };
    unit.put(
        &id,
        &Renewed {
            at_ms: now_ms,
            unfinished: true,
        },
    )?;
    Ok(Some(device))
}

async fn device_of(machine: &OlmMachine, wedged: &Wedged) -> Result<Option<OwnedDeviceId>> {
    let devices = machine.get_user_devices(&wedged.user, None).await?;
    let found = devices
        .devices()
        .find(|device| {
            device
                .curve25519_key()
                .is_some_and(|key| key.to_base64() == wedged.sender_key)
        })
        .map(|device| device.device_id().to_owned());
    Ok(found)
}

fn finished(unit: &Unit, wedged: &Wedged, now_ms: u64) -> Result<()> {
    unit.put(
        &renewed_id(&wedged.sender_key),
        &Renewed {
            at_ms: now_ms,
            unfinished: false,
        },
    )?;
    Ok(())
}

/// Encrypt an `m.dummy` on the newest session, which is on the disk together with it.
async fn queue_dummy(machine: &OlmMachine, unit: &Unit, wedged: &Wedged, device: &DeviceId, now_ms: u64) -> Result<()> {
    let Some(known) = machine.get_device(&wedged.user, device, None).await? else {
        return Ok(());
    };
    let nothing = serde_json::json!({});
    let content = Box::pin(known.encrypt_event_raw("m.dummy", &nothing, CollectStrategy::AllDevices))
        .await
        .map_err(|error| Error::Engine {
            reason: format!("a message that repairs a session could not be encrypted: {error}"),
        })?;
    let place = unit.next_sequence(DUMMIES, &[]).await?;
    unit.put(
        &RecordId::sequence(DUMMIES, &[], place),
        &Dummy {
            transaction: TransactionId::new(),
            user: wedged.user.clone(),
            device: device.to_owned(),
            content: content.cast_unchecked(),
        },
    )?;
    unit.delete(&wedged_id(&wedged.sender_key))?;
    finished(unit, wedged, now_ms)
}
