//! A device that moves: its store is left in one place, goes on in another, and never in both.
//!
//! # Order
//! 1. [`Departure::begin`]: one commit notes in the store that its device leaves. No device is opened with it any more.
//! 2. The store is copied or exported, with the note: the copy opens no device either.
//! 3. [`Departure::arrive`], in the copy alone: one commit takes the note away.
//!
//! Whoever dies between two steps leaves a store with a note, from which the second step can be done again, and no two
//! stores without one.

use mx_crypto_store::{PickleStore, RecordId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, Result, keys::SETTINGS, send::outbox};

fn id() -> RecordId {
    RecordId::named(SETTINGS, &[], "departure")
}

/// What a store notes whose device leaves it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = PickleStore::open(Arc::new(Memory::new()), key).await?;
/// use mx_olm_orchestrator::Departure;
/// use zeroize::Zeroizing;
///
/// let now_ms = 1_700_000_000_000;
/// Departure::begin(&store, Zeroizing::new("its login".to_owned()), now_ms).await?;
/// // The store is copied now. In the copy:
/// let noted = Departure::of(&store).await?.ok_or("it does not leave")?;
/// assert_eq!((noted.since_ms(), noted.luggage()), (now_ms, "its login"));
/// Departure::arrive(&store).await?;
/// assert!(Departure::of(&store).await?.is_none());
/// # Ok(()) }
/// ```
#[derive(Serialize, Deserialize)]
pub struct Departure {
    since_ms: u64,
    luggage: Zeroizing<String>,
}

impl std::fmt::Debug for Departure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Departure")
            .field("since_ms", &self.since_ms)
            .finish_non_exhaustive()
    }
}

impl Departure {
    /// The note of a store. `None`: its device does not leave.
    ///
    /// # Errors
    /// Of the store.
    pub async fn of(store: &PickleStore) -> Result<Option<Self>> {
        Ok(store.record(&id()).await?)
    }

    /// Note in the store of a device, which is not open, that the device leaves it, with what goes along: text that may
    /// hold secrets, such as the tokens of the login. When this returns, the note is on the disk.
    ///
    /// # Errors
    /// [`Error::OwnDeviceDeleted`], [`Error::DeviceMoved`]; [`Error::UnsentEvents`], since the session that they are
    /// encrypted with does not come along; of the store. Nothing has changed then.
    ///
    /// # Cancel safety
    /// The note is made or not.
    pub async fn begin(store: &PickleStore, luggage: Zeroizing<String>, now_ms: u64) -> Result<()> {
        crate::Orchestrator::refuse_ended(store).await?;
        let unsent = outbox::unsent(store).await?;
        if unsent > 0 {
            return Err(Error::UnsentEvents { count: unsent });
        }
        let unit = store.begin().await?;
        let departure = Self {
            since_ms: now_ms,
            luggage,
        };
        unit.put(&id(), &departure)?;
        Ok(unit.commit().await?)
    }

    /// Take the note away: in the copy of a store that left, or in the store itself where nothing of it has arrived
    /// anywhere. The device is opened again from then on.
    ///
    /// # Errors
    /// Of the store.
    ///
    /// # Cancel safety
    /// The note is taken away or not.
    pub async fn arrive(store: &PickleStore) -> Result<()> {
        let unit = store.begin().await?;
        unit.delete(&id())?;
        Ok(unit.commit().await?)
    }

    /// When it was noted, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// What goes along.
    #[must_use]
    pub fn luggage(&self) -> &str {
        &self.luggage
    }

    pub(crate) async fn refuse(store: &PickleStore) -> Result<()> {
        let Some(departure) = Self::of(store).await? else {
            return Ok(());
        };
        match store.device().await? {
            Some((_, device)) => Err(Error::DeviceMoved {
                device,
                since_ms: departure.since_ms,
            }),
            None => Ok(()),
        }
    }
}
