//! What a sync does for verifications beside its unit of work: unknown devices are asked about, and what waited for that,
//! or for a message to leave, goes on.

use std::collections::BTreeSet;

use ruma::{
    OwnedDeviceId, UserId,
    events::{AnyMessageLikeEvent, AnyToDeviceEvent, room::message::MessageType},
    serde::Raw,
};

use super::{
    glare::{self, Asking},
    guard,
    ledger::{Heard, Scene, look},
};
use crate::{Orchestrator, Result, machine::Ending, receive::inbox};

impl Orchestrator {
    /// Before a sync is taken: the engine ignores requests and answers of devices that it does not know.
    pub(crate) async fn know_verifiers(&self, events: &[Raw<AnyToDeviceEvent>]) {
        for (user, devices) in guard::devices(events) {
            if let Err(error) = self.know_devices(&user, &devices).await {
                tracing::warn!(%user, code = error.code(), "the devices of a user who asks to verify are not known");
            }
        }
    }

    /// Ask about a user one of whose devices is not known.
    pub(super) async fn know_devices(&self, user: &UserId, devices: &BTreeSet<OwnedDeviceId>) -> Result<()> {
        use matrix_sdk_crypto::store::CryptoStore;
        for device in devices {
            if self.store().get_device(user, device).await?.is_none() {
                self.ask_again(&BTreeSet::from([user.to_owned()]), &mut BTreeSet::new())
                    .await?;
                break;
            }
        }
        Ok(())
    }

    /// After keys were kept, and what the engine had to say was sent.
    pub(crate) async fn tend_verifications(&self) -> Result<()> {
        let early = self.verification().early().take_requests();
        let asking: BTreeSet<_> = early.iter().map(|event| event.sender().to_owned()).collect();
        if !asking.is_empty()
            && let Err(error) = self.ask_again(&asking, &mut BTreeSet::new()).await
        {
            self.verification().early().put_back(early);
            return Err(error);
        }
        let mut heard = self.verification().take_overheard();
        if !early.is_empty() || !heard.is_empty() || self.verification().is_busy() {
            heard.from.extend(asking);
            self.look_again(early, heard).await?;
        }
        self.sign_verified().await
    }

    async fn look_again(&self, early: Vec<AnyMessageLikeEvent>, mut heard: Heard) -> Result<()> {
        let this = self.clone();
        let looked = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let scene = Scene {
                        machine,
                        unit,
                        now_ms: this.now_ms(),
                        verifications: this.verification(),
                    };
                    for event in early {
                        if !is_left_out(scene, &mut heard, &event).await? {
                            Box::pin(machine.receive_verification_event(&event)).await?;
                        }
                    }
                    let mut events = Vec::new();
                    let looked = look(scene, &heard, &mut events).await?;
                    inbox::append(unit, &events).await?;
                    Ok(if looked.rebuild {
                        Ending::CommitAndRebuild(looked)
                    } else {
                        Ending::Commit(looked)
                    })
                })
            })
            .await?;
        self.verification().show(looked);
        Ok(())
    }
}

/// Whether a request of a room meets one that goes on.
async fn is_left_out(scene: Scene<'_>, heard: &mut Heard, event: &AnyMessageLikeEvent) -> Result<bool> {
    let AnyMessageLikeEvent::RoomMessage(message) = event else {
        return Ok(false);
    };
    let Some(MessageType::VerificationRequest(request)) =
        message.as_original().map(|original| &original.content.msgtype)
    else {
        return Ok(false);
    };
    let asking = Asking {
        room: Some(event.room_id()),
        user: event.sender(),
        device: &request.from_device,
        flow_id: event.event_id().as_str(),
        at_ms: event.origin_server_ts().get().into(),
    };
    glare::is_left_out(scene, heard, &asking).await
}
