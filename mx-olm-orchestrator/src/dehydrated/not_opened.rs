//! A dehydrated device that was not opened: the app is told, and once of each that opens at no time.

use mx_crypto_store::{RecordId, Unit};
use ruma::OwnedDeviceId;

use super::made::Opening;
use crate::{
    DehydratedDeviceNotOpened, Error, Event, Orchestrator, Result, keys::SETTINGS, machine::Ending, receive::inbox,
};

/// The last that was rejected.
fn rejected() -> RecordId {
    RecordId::named(SETTINGS, &[], "dehydrated-device-rejected")
}

/// What the app is told.
pub(super) fn not_opened(device_id: Option<OwnedDeviceId>, error: &Error) -> DehydratedDeviceNotOpened {
    DehydratedDeviceNotOpened {
        device_id,
        code: error.code().to_owned(),
        advice: error.to_string(),
    }
}

pub(super) async fn tell(unit: &Unit, not: DehydratedDeviceNotOpened) -> Result<()> {
    tracing::error!(device_id = ?not.device_id, code = not.code, "the dehydrated device is not opened: what it was sent is not here");
    inbox::append(unit, &[Event::DehydratedDeviceNotOpened(not)]).await
}

impl Orchestrator {
    /// It does not open: it is not tried by syncs any more, and the app is told unless it was told of this one before.
    pub(super) async fn end_rejected(&self, device: OwnedDeviceId, error: &Error) -> Result<()> {
        let not = not_opened(Some(device.clone()), error);
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.delete(&Opening::id())?;
                    let before: Option<OwnedDeviceId> = unit.get(&rejected()).await?;
                    if before.as_ref() != Some(&device) {
                        unit.put(&rejected(), &device)?;
                        tell(unit, not).await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
