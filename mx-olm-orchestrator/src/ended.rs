//! A device that the homeserver has ended: its store says so for good, and is not opened again.
//!
//! # Why
//! A token that is refused without `soft_logout` belonged to a device that is no more (client-server API, "Soft logout"):
//! the keys in its store must not be used again, neither by a later login under the same name nor by a program that goes
//! on without asking. A homeserver that forgets the token of a device that it still has ends the device all the same.

use mx_crypto_store::{PickleStore, RecordId};
use mx_transport::RequestError;

use crate::{Departure, Error, Orchestrator, Result, keys::SETTINGS, machine::Ending};

fn id() -> RecordId {
    RecordId::named(SETTINGS, &[], "ended-since-ms")
}

impl Orchestrator {
    /// Refuse a store whose device the homeserver has ended, which nothing takes back: a new device needs a new store. Or
    /// whose device was moved to another place.
    ///
    /// ```no_run
    /// # async fn example(store: mx_crypto_store::PickleStore) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::{Error, Orchestrator};
    ///
    /// // Before anybody is asked for a password.
    /// match Orchestrator::refuse_ended(&store).await {
    ///     Err(Error::OwnDeviceDeleted { device }) => println!("{device} was ended: put its store aside, and begin a new one"),
    ///     other => other?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::OwnDeviceDeleted`], [`Error::DeviceMoved`]; of the store.
    pub async fn refuse_ended(store: &PickleStore) -> Result<()> {
        if store.record::<u64>(&id()).await?.is_none() {
            return Departure::refuse(store).await;
        }
        match store.device().await? {
            Some((_, device)) => Err(Error::OwnDeviceDeleted { device }),
            None => Ok(()),
        }
    }

    /// Look at what became of a request, and remember it when it was the end of this device.
    pub(crate) async fn noticing_its_end<T, E: Into<Error>>(&self, ended: Result<T, E>) -> Result<T> {
        let error = match ended {
            Ok(done) => return Ok(done),
            Err(error) => error.into(),
        };
        if matches!(&error, Error::Request(RequestError::LoggedOut { soft: false })) {
            tracing::error!("the homeserver has ended this device: its store is not opened any more");
            let now_ms = self.now_ms();
            let noted = self.machine().unit(move |_, unit| {
                Box::pin(async move {
                    unit.put(&id(), &now_ms)?;
                    Ok(Ending::Commit(()))
                })
            });
            // What the homeserver said is what the caller is told; it will say it again.
            if let Err(error) = Box::pin(noted).await {
                tracing::warn!(code = error.code(), "the end of this device could not be noted");
            }
        }
        Err(error)
    }
}
