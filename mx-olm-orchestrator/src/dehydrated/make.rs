//! Making a dehydrated device, replacing it, and deleting it.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{
    OlmMachine, dehydrated_devices::DehydrationError as EngineError, store::types::DehydratedDeviceKey,
    vodozemac::base64_decode,
};
use mx_transport::{Call, RequestError};
use ruma::{
    OwnedDeviceId,
    api::client::dehydrated_device::{
        delete_dehydrated_device::unstable::Request as Delete, get_dehydrated_device::unstable as get,
    },
    events::secret::request::SecretName,
};
use zeroize::Zeroizing;

use super::{
    DehydrationError, Rehydrated, SECRET,
    made::{Made, Opening},
};
use crate::{
    Error, Orchestrator, Result, SecretStorage, SecretStorageError,
    machine::{Ending, Work},
};

/// How it is called where people look at their devices.
const NAME: &str = "Dehydrated device";

impl Orchestrator {
    /// Make a dehydrated device, or another one in its place. Its key is taken out of the secret storage, or made and kept
    /// there. From now on every week another one is made by a sync.
    ///
    /// What is in its place is opened first, unless this device made it: the room keys that it was sent are taken. Where it
    /// does not open, the app is told ([`Event::DehydratedDeviceNotOpened`](crate::Event::DehydratedDeviceNotOpened)), and
    /// it is replaced after that.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let mut storage = device.open_secret_storage("EsTc …").await?;
    /// match device.dehydrate(&mut storage).await {
    ///     Ok(made) => println!("{made} takes room keys while this device is lost"),
    ///     Err(error) if error.code() == "dehydration_unsupported" => println!("this homeserver has no such thing"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DehydrationError`]; [`SecretStorageError`]; of the request; of the store. Where what is in its place could not be
    /// opened now, nothing is made, and the next syncs go on.
    ///
    /// # Cancel safety
    /// Safe: the same again does the rest.
    pub async fn dehydrate(&self, storage: &mut SecretStorage) -> Result<OwnedDeviceId> {
        let _alone = self.keeping().dehydration.lock().await;
        let name = SecretName::from(SECRET);
        let key = match self.secret(storage, &name).await? {
            Some(kept) => read_key(&kept)?,
            None => {
                // What waits on the homeserver may open with the key that is here.
                let key = self.dehydration_key().await?.unwrap_or_else(DehydratedDeviceKey::new);
                let text = Zeroizing::new(key.to_base64());
                self.keep_secret(storage, &name, &text, BTreeMap::new()).await?;
                key
            }
        };
        self.keep_dehydration_key(key).await?;
        if self.is_opening().await? || !self.has_taken().await? {
            // Another one in its place would be the end of what it has yet.
            match Box::pin(self.open_all()).await {
                Ok(Rehydrated {
                    new_device_id: Some(device),
                    ..
                }) => return Ok(device),
                Ok(_) => {}
                Err(error @ Error::Dehydration(DehydrationError::Absent | DehydrationError::Rejected { .. })) => {
                    // It is shown, and its events are not.
                    if self.is_opening().await? {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.make_dehydrated_device().await
    }

    /// Whether one is to be opened, and has not all been taken.
    async fn is_opening(&self) -> Result<bool> {
        Ok(self.store().record::<Opening>(&Opening::id()).await?.is_some())
    }

    /// Whether the homeserver has the one that this device made, or none.
    async fn has_taken(&self) -> Result<bool> {
        let made: Option<Made> = self.store().record(&Made::id()).await?;
        let Some(made) = made.filter(|made| made.taken) else {
            return Ok(false);
        };
        let found = self.dehydrated_device().await?;
        Ok(found.is_none_or(|found| found.device_id == made.device))
    }

    /// Make another device with the key that is here.
    pub(super) async fn make_dehydrated_device(&self) -> Result<OwnedDeviceId> {
        let request = self
            .machine()
            .unit(|machine, _| {
                Box::pin(async move {
                    let devices = machine.dehydrated_devices();
                    let key = devices.get_dehydrated_device_pickle_key().await.map_err(refused)?;
                    let key = key.ok_or(DehydrationError::KeyMissing)?;
                    let device = devices.create().await.map_err(refused)?;
                    let request = device.keys_for_upload(NAME.to_owned(), &key).await.map_err(refused)?;
                    Ok(Ending::Commit(request))
                })
            })
            .await?;
        let device = request.device_id.clone();
        // The same device again is the same device.
        let sent = self.homeserver().send_with(request, Call::repeatable()).await;
        sent.map_err(of_request)?;
        let made = Made::new(device.clone(), self.now_ms());
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    made.save(unit)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        Ok(device)
    }

    /// Delete the account's dehydrated device, and make none any more. Its key stays in the secret storage.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// println!("{} is no device of the account any more", device.delete_dehydrated_device().await?);
    /// assert!(!device.dehydration_status().await?.enabled, "and no sync makes another one");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DehydrationError::Absent`], [`DehydrationError::Unsupported`]; of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: the same again does the rest.
    pub async fn delete_dehydrated_device(&self) -> Result<OwnedDeviceId> {
        let _alone = self.keeping().dehydration.lock().await;
        let deleted = self.homeserver().send(Delete::new()).await.map_err(of_request);
        if !matches!(&deleted, Ok(_) | Err(Error::Dehydration(DehydrationError::Absent))) {
            return Ok(deleted?.device_id);
        }
        self.machine()
            .unit(|machine, unit| {
                Box::pin(async move {
                    let devices = machine.dehydrated_devices();
                    devices.delete_dehydrated_device_pickle_key().await.map_err(refused)?;
                    unit.delete(&Made::id())?;
                    unit.delete(&Opening::id())?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        Ok(deleted?.device_id)
    }

    /// What a sync does: what was begun goes on, and a device that is old is replaced, unless another device of ours did it.
    ///
    /// Its future has a type of its own: that of a send, of which it is a part, would be too deep for the compiler.
    pub(crate) fn tend_dehydrated_device(&self) -> Work<'_, ()> {
        Box::pin(self.tend_dehydrated_device_now())
    }

    async fn tend_dehydrated_device_now(&self) -> Result<()> {
        let Ok(_alone) = self.keeping().dehydration.try_lock() else {
            return Ok(());
        };
        self.go_on_opening().await?;
        if self.is_opening().await? {
            return Ok(());
        }
        let made: Option<Made> = self.store().record(&Made::id()).await?;
        let now_ms = self.now_ms();
        let Some(mut made) = made.filter(|made| made.is_due(now_ms)) else {
            return Ok(());
        };
        let replaced = match self.dehydrated_device().await {
            Ok(Some(other)) if other.device_id != made.device => {
                made = Made::elsewhere(other.device_id, now_ms);
                Ok(())
            }
            Ok(Some(_)) if !made.taken => return self.open_elsewhere(made).await,
            Ok(_) => match Box::pin(self.make_dehydrated_device()).await {
                Ok(_) => return Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = replaced {
            if matches!(error, Error::Store(_)) {
                return Err(error);
            }
            tracing::warn!(code = error.code(), "the dehydrated device could not be replaced");
            made.later(now_ms);
        }
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    made.save(unit)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// One that another device of ours made is old: open it, and replace it after that. It is left as it is where it does
    /// not open: another device may have changed the key, and would not open what is made with this one.
    async fn open_elsewhere(&self, made: Made) -> Result<()> {
        let again = Made::elsewhere(made.device, self.now_ms());
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    again.save(unit)?;
                    Opening::default().save(unit)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        self.go_on_opening().await
    }

    /// The device that the homeserver has.
    pub(super) async fn dehydrated_device(&self) -> Result<Option<get::Response>> {
        match self.homeserver().send(get::Request::new()).await.map_err(of_request) {
            Ok(device) => Ok(Some(device)),
            Err(Error::Dehydration(DehydrationError::Absent)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The key that is here.
    pub(super) async fn dehydration_key(&self) -> Result<Option<DehydratedDeviceKey>> {
        self.machine()
            .unit(|machine, _| {
                Box::pin(async move {
                    let devices = machine.dehydrated_devices();
                    let key = devices.get_dehydrated_device_pickle_key().await.map_err(refused)?;
                    Ok(Ending::Commit(key))
                })
            })
            .await
    }

    pub(super) async fn keep_dehydration_key(&self, key: DehydratedDeviceKey) -> Result<()> {
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let devices = machine.dehydrated_devices();
                    devices.save_dehydrated_device_pickle_key(&key).await.map_err(refused)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Take the key of dehydrated devices out of the secret storage, where it is kept. Returns whether it is here now.
    pub(crate) async fn adopt_dehydration_key(&self, storage: &mut SecretStorage) -> Result<bool> {
        let Some(kept) = self.secret(storage, &SecretName::from(SECRET)).await? else {
            return Ok(false);
        };
        self.keep_dehydration_key(read_key(&kept)?).await?;
        Ok(true)
    }
}

/// The key, as the secret storage keeps it, where it is here.
pub(crate) async fn kept_key(machine: &OlmMachine) -> Result<Option<(SecretName, Zeroizing<String>)>> {
    let devices = machine.dehydrated_devices();
    let key = devices.get_dehydrated_device_pickle_key().await.map_err(refused)?;
    Ok(key.map(|key| (SecretName::from(SECRET), Zeroizing::new(key.to_base64()))))
}

fn read_key(kept: &str) -> Result<DehydratedDeviceKey> {
    let bytes = base64_decode(kept).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| DehydratedDeviceKey::from_slice(&bytes).ok());
    Ok(key.ok_or(SecretStorageError::Rejected {
        reason: "its key of dehydrated devices is malformed",
    })?)
}

/// Why the homeserver did not do it.
pub(super) fn of_request(error: RequestError) -> Error {
    match &error {
        RequestError::Api { status, errcode, .. } if status.as_u16() == 404 => match errcode.as_deref() {
            Some("M_NOT_FOUND") => DehydrationError::Absent.into(),
            _ => DehydrationError::Unsupported.into(),
        },
        RequestError::Api { errcode, .. } if errcode.as_deref() == Some("M_UNRECOGNIZED") => {
            DehydrationError::Unsupported.into()
        }
        _ => error.into(),
    }
}

/// Why the engine did not do it.
pub(super) fn refused(error: EngineError) -> Error {
    match error {
        EngineError::Store(error) => error.into(),
        EngineError::MissingSigningKey(_) => DehydrationError::NotSigned.into(),
        EngineError::LegacyPickle(_) | EngineError::Pickle(_) => DehydrationError::Rejected {
            reason: "it was made with another key, or changed since",
        }
        .into(),
        EngineError::PickleKeyLength(_) => DehydrationError::KeyMissing.into(),
        EngineError::Json(_) => DehydrationError::Rejected {
            reason: "it is of a kind that is not known here",
        }
        .into(),
    }
}
