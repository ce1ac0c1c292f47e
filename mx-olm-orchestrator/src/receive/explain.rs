//! Why an event cannot be read, in words: what is known here about its key, its sender's device and our own keys.

use matrix_sdk_crypto::{OlmMachine, store::CryptoStore};
use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::{OwnedDeviceId, RoomId};
use serde::{Deserialize, Serialize};

use super::undecryptable;
use crate::{Orchestrator, Result, Undecryptable, machine::Ending, rooms::RoomRecord};

const OWN_KEYS: Family = Family::new("own-keys");

/// Why an event cannot be read.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let counts = device.waiting_counts().await?;
/// println!("{} events wait for their keys, {} were reported", counts.waiting, counts.reported);
/// for event in device.waiting(0, 10).await? {
///     let explanation = device.explain(&event).await?;
///     println!("{}: {explanation}", event.event_id);
///     device.request_key(&event).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// What was found out, one sentence each, the most telling first.
    pub findings: Vec<String>,
    /// What would mend it.
    pub advice: String,
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(f, "{}", self.advice)
    }
}

/// How many events wait for their keys.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let counts = device.waiting_counts().await?;
/// println!("{} wait, {} of them for no longer than keys take as a rule", counts.waiting, counts.waiting - counts.reported);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitingCounts {
    /// Events that are kept.
    pub waiting: u64,
    /// Of them, those that were reported as undecryptable.
    pub reported: u64,
}

/// When our one-time keys had run out on the homeserver, last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct RanOut {
    from_ms: u64,
    until_ms: u64,
    over: bool,
}

fn ran_out_id() -> RecordId {
    RecordId::named(OWN_KEYS, &[], "ran-out")
}

/// Note what a sync says of our one-time keys.
pub(super) async fn note_own_keys(unit: &Unit, left: u64, first_sync: bool, now_ms: u64) -> Result<()> {
    let before: Option<RanOut> = unit.get(&ran_out_id()).await?;
    let after = match &before {
        // A device that is new has none.
        _ if first_sync => None,
        Some(last) if left > 0 && !last.over => Some(RanOut {
            until_ms: now_ms,
            over: true,
            from_ms: last.from_ms,
        }),
        Some(last) if left == 0 && !last.over => Some(RanOut {
            until_ms: now_ms,
            ..last.clone()
        }),
        _ if left == 0 => Some(RanOut {
            from_ms: now_ms,
            until_ms: now_ms,
            over: false,
        }),
        _ => None,
    };
    if let Some(after) = after
        && before.as_ref() != Some(&after)
    {
        unit.put(&ran_out_id(), &after)?;
    }
    Ok(())
}

/// What is known about the sender's device.
enum Sender {
    NobodyKnown,
    Known(OwnedDeviceId),
    NotAmong { claimed: OwnedDeviceId, known: usize },
    Unnamed { known: usize },
}

/// All that an explanation is made of.
struct Facts {
    /// The first index that the key opens, where it is here.
    key_from: Option<u32>,
    withheld: Option<String>,
    sender: Sender,
    ran_out: Option<RanOut>,
    device_since_ms: u64,
    joined_ms: Option<u64>,
}

impl Orchestrator {
    /// Why an event cannot be read, and what would mend it.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// for event in device.waiting(0, 20).await? {
    ///     let why = device.explain(&event).await?;
    ///     println!("{}: {} {}", event.event_id, why.findings.join("; "), why.advice);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain(&self, event: &Undecryptable) -> Result<Explanation> {
        let asked = event.clone();
        let store = self.store().clone();
        let facts = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move { Ok(Ending::Commit(gather(machine, unit, &store, &asked).await?)) })
            })
            .await?;
        Ok(facts.explain(event))
    }

    /// At most `limit` events that wait for their keys, oldest first, leaving out the first `skip`.
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
    /// // The first twenty, and how many there are in all.
    /// assert!(device.waiting(0, 20).await?.is_empty());
    /// assert_eq!(device.waiting_counts().await?.waiting, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn waiting(&self, skip: usize, limit: usize) -> Result<Vec<Undecryptable>> {
        let all = self.machine().unit(move |_, unit| {
            Box::pin(async move {
                let (page, _) = undecryptable::page(unit, None, skip.saturating_add(limit)).await?;
                let reports = page.into_iter().skip(skip).map(|waiting| waiting.report);
                Ok(Ending::Commit(reports.collect()))
            })
        });
        all.await
    }

    /// How many events wait for their keys.
    ///
    /// # Errors
    /// Of the store.
    pub async fn waiting_counts(&self) -> Result<WaitingCounts> {
        let waiting = undecryptable::count(self.store()).await?;
        let reported = undecryptable::reported(self.store()).await?;
        Ok(WaitingCounts { waiting, reported })
    }
}

async fn gather(machine: &OlmMachine, unit: &Unit, store: &PickleStore, event: &Undecryptable) -> Result<Facts> {
    let session = event.session_id.as_deref().unwrap_or_default();
    let room: &RoomId = &event.room_id;
    let key = store.get_inbound_group_session(room, session).await?;
    let withheld = store.get_withheld_info(room, session).await?;
    let devices = machine.get_user_devices(&event.sender, None).await?;
    let known = devices.devices().count();
    let sender = match &event.claimed_device {
        _ if known == 0 => Sender::NobodyKnown,
        Some(device) if devices.get(device).is_some() => Sender::Known(device.clone()),
        Some(device) => Sender::NotAmong {
            claimed: device.clone(),
            known,
        },
        None => Sender::Unnamed { known },
    };
    Ok(Facts {
        key_from: key.map(|key| key.first_known_index()),
        withheld: withheld.map(|entry| entry.content.withheld_code().as_str().to_owned()),
        sender,
        ran_out: unit.get(&ran_out_id()).await?,
        device_since_ms: machine.device_creation_time().0.into(),
        joined_ms: RoomRecord::load(unit, room).await?.joined_ms,
    })
}

impl Facts {
    fn explain(self, event: &Undecryptable) -> Explanation {
        let mut findings = vec![match self.key_from {
            _ if event.session_id.is_none() => {
                "the event names no session, so that no key can be looked for".to_owned()
            }
            None => "this device does not have the room key".to_owned(),
            Some(0) => "this device has the room key from its beginning, and it does not open the event".to_owned(),
            Some(index) => format!("this device has the room key from message {index} on, and the event is earlier"),
        }];
        if let Some(code) = &self.withheld {
            findings.push(format!(
                "somebody told us that the key is withheld from this device, with the code {code}; that is not proven"
            ));
        }
        let at = event.origin_server_ts;
        if at < self.device_since_ms {
            findings.push("the event is older than this device, so that nobody could encrypt it for us".to_owned());
        } else if self.joined_ms.is_some_and(|joined| at < joined) {
            findings.push("the event is older than our joining the room".to_owned());
        }
        findings.push(match &self.sender {
            Sender::NobodyKnown => format!("no device of {} is known here", event.sender),
            Sender::Known(device) => format!(
                "device {device} of {} should have sent the key, and is known here",
                event.sender
            ),
            Sender::NotAmong { claimed, known } => format!(
                "the event names device {claimed} of {} as its sender, which is not among the {known} that are known: \
                 it was deleted, or it is new",
                event.sender
            ),
            Sender::Unnamed { known } => format!(
                "the event does not name its device; {known} device(s) of {} are known here",
                event.sender
            ),
        });
        if let Some(ran_out) = &self.ran_out
            && at >= ran_out.from_ms.saturating_sub(HALF_AN_HOUR_MS)
            && (at <= ran_out.until_ms || !ran_out.over)
        {
            findings
                .push("our one-time keys had run out about then, so that a new session may not have opened".to_owned());
        }
        Explanation {
            findings,
            advice: event.advice.clone(),
        }
    }
}

/// A count of zero is seen with the sync after it came about.
const HALF_AN_HOUR_MS: u64 = 30 * 60 * 1000;
