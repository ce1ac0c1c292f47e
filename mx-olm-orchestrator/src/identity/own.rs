//! How our own identity stands, as far as the last answer to a query showed: what gets worse is told.

use matrix_sdk_crypto::{OlmMachine, UserIdentity};
use mx_crypto_store::{RecordId, Unit};
use ruma::UserId;
use serde::{Deserialize, Serialize};

use crate::{Event, Orchestrator, OwnIdentity, Problem, Result, keys::SETTINGS, machine::Ending, outgoing};

/// How our own identity stands.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let standing = device.identity_standing().await?;
/// if !standing.is_good() {
///     println!("{} [{}]", standing.advice(), standing.code());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IdentityStanding {
    /// The account has no cross-signing identity that is known here.
    Absent,
    /// The account has one, and this device was never told to trust it.
    Unverified,
    /// The identity that this device trusted was replaced.
    Replaced,
    /// This device trusts the identity, and is not signed by it.
    DeviceNotSigned,
    /// This device trusts the identity, and is signed by it.
    Good,
}

impl IdentityStanding {
    /// A stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Absent => "no_identity",
            Self::Unverified => "identity_unverified",
            Self::Replaced => "identity_replaced",
            Self::DeviceNotSigned => "device_not_signed",
            Self::Good => "good",
        }
    }

    /// What is wrong and what to do, in one sentence.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Absent => {
                "the account has no cross-signing identity, so that nobody can verify it: run mx identity setup"
            }
            Self::Unverified => {
                "this device is not part of the account's identity, and others are warned of it: run mx identity recover"
            }
            Self::Replaced => {
                "the account's identity was replaced by another device: if that was you, run mx identity recover; if it was \
                 not, somebody else is in the account: change its password, then run mx identity reset"
            }
            Self::DeviceNotSigned => {
                "this device has lost the signature of the account's identity, and others are warned of it: run mx identity setup"
            }
            Self::Good => "nothing is to be done",
        }
    }

    /// Others are not warned of this device.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Good)
    }

    /// There is an identity that this device is not part of: it knows nobody whose signature counts.
    pub(crate) const fn is_outside(self) -> bool {
        matches!(self, Self::Unverified | Self::Replaced)
    }
}

/// What was seen last, and whether it ever was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    standing: IdentityStanding,
    was_good: bool,
    since_ms: u64,
}

fn id() -> RecordId {
    RecordId::named(SETTINGS, &[], "own-identity")
}

/// How it stands, from what the engine knows.
pub(crate) async fn standing(machine: &OlmMachine) -> Result<IdentityStanding> {
    let Some(UserIdentity::Own(identity)) = machine.get_identity(machine.user_id(), None).await? else {
        return Ok(IdentityStanding::Absent);
    };
    if !identity.is_verified() {
        return Ok(match identity.has_verification_violation() {
            true => IdentityStanding::Replaced,
            false => IdentityStanding::Unverified,
        });
    }
    let device = machine.get_device(machine.user_id(), machine.device_id(), None).await?;
    Ok(match device.is_some_and(|device| device.is_cross_signed_by_owner()) {
        true => IdentityStanding::Good,
        false => IdentityStanding::DeviceNotSigned,
    })
}

/// Note how it stands. What was good and is so no more is told.
pub(crate) async fn note_own_identity(
    machine: &OlmMachine,
    unit: &Unit,
    now_ms: u64,
    events: &mut Vec<Event>,
) -> Result<()> {
    let standing = standing(machine).await?;
    let before: Option<Seen> = unit.get(&id()).await?;
    if before.is_some_and(|before| before.standing == standing) {
        return Ok(());
    }
    if before.is_some_and(|before| before.standing.is_good()) {
        tracing::error!(standing = standing.code(), "our own identity is not in order any more");
        events.push(Event::OwnIdentity(OwnIdentity {
            standing,
            advice: standing.advice().to_owned(),
        }));
    }
    let seen = Seen {
        standing,
        was_good: standing.is_good() || before.is_some_and(|before| before.was_good),
        since_ms: now_ms,
    };
    Ok(unit.put(&id(), &seen)?)
}

impl Orchestrator {
    /// Ask the homeserver about our own devices and identity, whether somebody says that they changed or not.
    pub(crate) async fn refresh_own_keys(&self) -> Result<IdentityStanding> {
        self.refresh_keys_of(self.user_id()).await?;
        self.identity_standing().await
    }

    /// Ask the homeserver about a user's devices and identity now.
    pub(crate) async fn refresh_keys_of(&self, user: &UserId) -> Result<()> {
        let _alone = self.upkeep_lock().await;
        let of = user.to_owned();
        let (request, query) = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    // What changes later is followed.
                    Box::pin(machine.update_tracked_users([of.as_ref()])).await?;
                    Ok(Ending::Commit(machine.query_keys_for_users([of.as_ref()])))
                })
            })
            .await?;
        let answer = outgoing::query(self.homeserver(), &query).await?;
        let asked = std::iter::once(user.to_owned()).collect();
        self.take_query(&request, asked, answer).await
    }

    /// How our own identity stands, as far as earlier exchanges showed. Nothing is sent.
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
    /// let stands = device.identity_standing().await?;
    /// assert!(!stands.is_good(), "{}: {}", stands.code(), stands.advice());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn identity_standing(&self) -> Result<IdentityStanding> {
        self.machine()
            .unit(|machine, _| Box::pin(async { Ok(Ending::Commit(standing(machine).await?)) }))
            .await
    }

    /// What is wrong with our identity that was in order once.
    pub(crate) async fn identity_problem(&self) -> Result<Option<Problem>> {
        let seen: Option<Seen> = self.store().record(&id()).await?;
        let worse = seen.filter(|seen| seen.was_good && !seen.standing.is_good());
        Ok(worse.map(|seen| Problem {
            code: seen.standing.code(),
            advice: seen.standing.advice().to_owned(),
            since_ms: Some(seen.since_ms),
        }))
    }
}
