//! Opening the dehydrated device: its events page by page, each page on the disk before the next is asked for.
//!
//! # Why
//! A homeserver may forget a page once the one after it was asked for. So what a page brought, and where to go on, is one
//! commit, and a process that is killed goes on there. That there is something to open is written down before the
//! homeserver is asked for it.

use std::collections::BTreeSet;

use matrix_sdk_crypto::store::types::DehydratedDeviceKey;
use ruma::{DeviceId, OwnedDeviceId, api::client::dehydrated_device::get_events::unstable as get_events};
use serde::Serialize;

use super::{
    DehydrationError,
    made::{Found, Made, Opening},
    make::of_request,
    not_opened::{not_opened, tell},
    page::{self, Open},
};
use crate::{Error, Orchestrator, Result, machine::Ending};

/// More pages of events than this are not asked for: as many room keys as nobody sends in a year.
const MOST_PAGES: usize = 10_000;

/// Nor more room keys taken than this: whoever wants can send a device keys of any room.
const MOST_ROOM_KEYS: usize = 100_000;

/// Pages that a sync takes, and that are open at a time.
const PAGES_AT_ONCE: usize = 20;

/// What a dehydrated device had.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let had = device.rehydrate().await?;
/// println!("{} room keys of {}, for {} events", had.room_keys, had.device_id, had.retried);
/// if had.new_device_id.is_none() {
///     println!("there is no new one yet: what comes while this device is lost cannot be read later");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rehydrated {
    /// The device, which is replaced by a new one.
    pub device_id: OwnedDeviceId,
    /// Room keys that are new here.
    pub room_keys: usize,
    /// Events that could be told something about with them: of those that waited, and of those that the first sync showed
    /// and that are older than this device.
    pub retried: usize,
    /// The device that was made in its place. `None`: none could be made, and the old one stays.
    pub new_device_id: Option<OwnedDeviceId>,
}

impl Orchestrator {
    /// Open the account's dehydrated device, take the room keys that it was sent, and make a new one in its place. What
    /// waited for the keys is in the inbox afterwards.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// match device.rehydrate().await {
    ///     Ok(had) => println!("{} room keys came while there was no device", had.room_keys),
    ///     // Recover the identity first: the key is in the secret storage.
    ///     Err(error) if error.code() == "dehydration_key_missing" => println!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DehydrationError`]: of its kinds, `Absent` where there is nothing to open. Of the request; of the store. What was
    /// taken before stays, and the same again goes on there.
    ///
    /// # Cancel safety
    /// Safe: each page is taken as a whole or not at all, and the same again goes on there.
    pub async fn rehydrate(&self) -> Result<Rehydrated> {
        let _alone = self.keeping().dehydration.lock().await;
        self.open_all().await
    }

    /// The caller holds the lock.
    pub(super) async fn open_all(&self) -> Result<Rehydrated> {
        loop {
            // Anew from time to time: what is open holds all that it has read.
            if let Some(all) = Box::pin(self.open_pages(PAGES_AT_ONCE)).await? {
                return Ok(all);
            }
        }
    }

    /// Take so many pages. `None`: there are more.
    async fn open_pages(&self, most: usize) -> Result<Option<Rehydrated>> {
        let Some(key) = self.dehydration_key().await? else {
            let found = self.dehydrated_device().await?;
            if found.is_some() {
                return Err(DehydrationError::KeyMissing.into());
            }
            self.end_opening(None).await?;
            return Err(DehydrationError::Absent.into());
        };
        let (mut opening, found) = self.opening().await?;
        let device_id = found.device.clone();
        match self.take_pages(&key, &mut opening, found, most).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error @ Error::Dehydration(DehydrationError::Rejected { .. })) => {
                // It opens at no other time either.
                self.end_rejected(device_id, &error).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        let retried = self.retry_waiting().await? + self.deliver_before().await?;
        // Whoever dies now leaves word that it is to be replaced.
        self.end_opening(Some(Made::used_up(device_id.clone(), self.now_ms())))
            .await?;
        self.backup_pace().is_due();
        let new_device_id = match Box::pin(self.make_dehydrated_device()).await {
            Ok(device) => Some(device),
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(code = error.code(), "no new dehydrated device could be made");
                None
            }
        };
        Ok(Some(Rehydrated {
            device_id,
            room_keys: opening.room_keys,
            retried,
            new_device_id,
        }))
    }

    /// The device that an earlier call began to open, if the homeserver still has it, else the one that it has.
    async fn opening(&self) -> Result<(Opening, Found)> {
        let begun: Option<Opening> = self.store().record(&Opening::id()).await?;
        if begun.is_none() {
            self.write_opening(Opening::default()).await?;
        }
        let begun = begun.unwrap_or_default();
        let found = match self.dehydrated_device().await {
            Ok(Some(found)) => Found {
                device: found.device_id,
                data: found.device_data,
            },
            Ok(None) => {
                self.end_opening(None).await?;
                return Err(DehydrationError::Absent.into());
            }
            Err(error) => {
                if begun.found.is_none() && matches!(error, Error::Dehydration(DehydrationError::Unsupported)) {
                    self.end_opening(None).await?;
                }
                return Err(error);
            }
        };
        if let Some(known) = begun.found.clone().filter(|known| known.device == found.device) {
            return Ok((begun, known));
        }
        let opening = begun.of(found.clone());
        self.write_opening(opening.clone()).await?;
        Ok((opening, found))
    }

    /// Returns whether these were all.
    async fn take_pages(
        &self,
        key: &DehydratedDeviceKey,
        opening: &mut Opening,
        found: Found,
        most: usize,
    ) -> Result<bool> {
        let open = Open::new(self.user_id(), key, &found).await?;
        let mut seen = BTreeSet::new();
        // A token that was given before would bring what was brought before.
        while self.take_page(&open, &found.device, opening).await? && seen.insert(opening.next_batch.clone()) {
            if seen.len() >= most {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether there may be another page.
    async fn take_page(&self, open: &Open, device: &DeviceId, opening: &mut Opening) -> Result<bool> {
        if opening.pages >= MOST_PAGES || opening.room_keys >= MOST_ROOM_KEYS {
            return Err(DehydrationError::Rejected {
                reason: "the homeserver gives events without an end",
            }
            .into());
        }
        let mut request = get_events::Request::new(device.to_owned());
        request.next_batch.clone_from(&opening.next_batch);
        let page = self.homeserver().send(request).await.map_err(of_request)?;
        if page.events.is_empty() {
            return Ok(false);
        }
        let keys = open.read(page.events).await?;
        let goes_on = page.next_batch.is_some() && page.next_batch != opening.next_batch;
        let mut after = opening.clone();
        after.next_batch = page.next_batch;
        after.pages += 1;
        let store = self.store().clone();
        *opening = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    after.room_keys += page::keep(machine, unit, &store, keys).await?;
                    after.save(unit)?;
                    Ok(Ending::Commit(after))
                })
            })
            .await?;
        Ok(goes_on)
    }

    /// What a sync does: go on where an earlier call ended.
    pub(super) async fn go_on_opening(&self) -> Result<()> {
        let begun: Option<Opening> = self.store().record(&Opening::id()).await?;
        let now_ms = self.now_ms();
        if !begun.is_some_and(|begun| begun.is_due(now_ms)) {
            return Ok(());
        }
        // A sync does not stand still for all of it.
        let error = match Box::pin(self.open_pages(PAGES_AT_ONCE)).await {
            Ok(_) => return Ok(()),
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(code = error.code(), "the dehydrated device could not be opened");
        let is_final = matches!(error, Error::Dehydration(DehydrationError::KeyMissing));
        let mut told = not_opened(None, &error);
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    // As far as it came. What was rejected, or is not there, has ended.
                    if let Some(mut opening) = unit.get::<Opening>(&Opening::id()).await? {
                        if opening.failed(now_ms) || is_final {
                            unit.delete(&Opening::id())?;
                            told.device_id = opening.found.map(|found| found.device);
                            tell(unit, told).await?;
                        } else {
                            opening.save(unit)?;
                        }
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// It is to be opened: by this call, or else by a sync.
    pub(super) async fn write_opening(&self, opening: Opening) -> Result<()> {
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    opening.save(unit)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    async fn end_opening(&self, made: Option<Made>) -> Result<()> {
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.delete(&Opening::id())?;
                    if let Some(made) = made {
                        made.save(unit)?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
