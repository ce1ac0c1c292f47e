//! Asking somebody to verify: a device, our other devices, or a user in a room.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{
    OlmMachine, UserIdentity, VerificationRequest,
    types::requests::{OutgoingVerificationRequest, ToDeviceRequest},
};
use mx_crypto_store::Unit;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{
        key::verification::{
            VerificationMethod,
            cancel::{CancelCode, KeyVerificationCancelEventContent},
        },
        relation::Reference,
    },
    to_device::DeviceIdOrAllDevices,
};

use super::{
    VerificationError, VerificationId,
    flow::{self, Flow},
    glare,
    ledger::{Heard, Look, Looked, Scene},
};
use crate::{
    Error, Orchestrator, Result,
    machine::{Ending, Work},
    receive::inbox,
};

/// What we offer: whoever drives this layer can show and scan codes.
pub(super) const METHODS: [VerificationMethod; 4] = [
    VerificationMethod::SasV1,
    VerificationMethod::QrCodeShowV1,
    VerificationMethod::QrCodeScanV1,
    VerificationMethod::ReciprocateV1,
];

/// What came of asking.
enum Asked {
    Began(
        VerificationRequest,
        Option<OutgoingVerificationRequest>,
        Vec<OwnedDeviceId>,
    ),
    Refused(VerificationError),
}

impl Orchestrator {
    /// Ask one device of a user, or another one of ours, to verify.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// use ruma::{device_id, user_id};
    ///
    /// match device.verify_device(user_id!("@friend:example.org"), device_id!("PHONE")).await {
    ///     Ok(id) => println!("{} is asked on that device alone", id.user_id),
    ///     Err(error) if error.code() == "verification_no_device" => println!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Verification`](crate::Error::Verification) when there is no such device, or another verification with the
    /// user is under way; of the request, of the store.
    ///
    /// # Cancel safety
    /// A future that is dropped early may have begun it: it is among [`verifications`](Self::verifications) then.
    pub async fn verify_device(&self, user: &UserId, device: &DeviceId) -> Result<VerificationId> {
        self.know_devices(user, &BTreeSet::from([device.to_owned()])).await?;
        let (user, device) = (user.to_owned(), device.to_owned());
        let with = user.clone();
        self.begin(&with, None, move |machine, _| {
            Box::pin(async move {
                let is_ours = user == machine.user_id() && device == machine.device_id();
                let held = machine.get_device(&user, &device, None).await?.filter(|_| !is_ours);
                Ok(match held {
                    Some(held) => {
                        let (request, message) = held.request_verification_with_methods(METHODS.to_vec());
                        Asked::Began(request, Some(message), vec![device])
                    }
                    None => Asked::Refused(VerificationError::NoDevice { user, device }),
                })
            })
        })
        .await
    }

    /// Ask our other devices to verify this one, or to be verified by it. One of them answers.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let id = device.verify_own_devices().await?;
    /// // Which one answers, is seen once one does.
    /// let answered = device.verifications().borrow().get(&id).and_then(|shown| shown.device_id.clone());
    /// println!("{answered:?}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`verify_device`](Self::verify_device); also when our user has no cross-signing identity.
    ///
    /// # Cancel safety
    /// As [`verify_device`](Self::verify_device).
    pub async fn verify_own_devices(&self) -> Result<VerificationId> {
        self.ask_again(&BTreeSet::from([self.user_id().to_owned()]), &mut BTreeSet::new())
            .await?;
        let user = self.user_id().to_owned();
        let with = user.clone();
        self.begin(&with, None, move |machine, _| {
            Box::pin(async move {
                let Some(UserIdentity::Own(own)) = machine.get_identity(&user, None).await? else {
                    return Ok(Asked::Refused(VerificationError::NoIdentity { user }));
                };
                let (request, message) = Box::pin(own.request_verification_with_methods(METHODS.to_vec())).await?;
                let asked = match &message {
                    OutgoingVerificationRequest::ToDevice(message) => recipients(message),
                    OutgoingVerificationRequest::InRoom(_) => Vec::new(),
                };
                Ok(Asked::Began(request, Some(message), asked))
            })
        })
        .await
    }

    /// Ask a user to verify, in a room that both are in.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// use ruma::{room_id, user_id};
    ///
    /// let id = device.verify_user_in(room_id!("!two:example.org"), user_id!("@friend:example.org")).await?;
    /// // It is named by the event that asked for it, which the other side sees as a message.
    /// println!("{} in {}", id.user_id, id.flow_id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`verify_device`](Self::verify_device) and [`send`](Self::send); also when the user has no cross-signing
    /// identity.
    ///
    /// # Cancel safety
    /// A future that is dropped early may have asked, and what is answered finds nothing then.
    pub async fn verify_user_in(&self, room: &RoomId, user: &UserId) -> Result<VerificationId> {
        self.ask_again(&BTreeSet::from([user.to_owned()]), &mut BTreeSet::new())
            .await?;
        if self.is_verifying(user).await? {
            return Err(busy(user).into());
        }
        let Some(content) = self.request_content(user).await? else {
            return Err(VerificationError::NoIdentity { user: user.to_owned() }.into());
        };
        let event = self
            .say_in_room(room.to_owned(), "m.room.message".to_owned(), content)
            .await?;
        self.begin_in_room(room.to_owned(), event, user.to_owned()).await
    }

    async fn begin_in_room(&self, room: OwnedRoomId, event: OwnedEventId, user: OwnedUserId) -> Result<VerificationId> {
        let (this, with, of_room, of_event) = (self.clone(), user.clone(), room.clone(), event.clone());
        let begun = self.begin(&with, Some(room.clone()), move |machine, _| {
            Box::pin(async move {
                let Some(UserIdentity::Other(other)) = machine.get_identity(&user, None).await? else {
                    return Ok(Asked::Refused(VerificationError::NoIdentity { user }));
                };
                let request = other.request_verification(&of_room, &of_event, Some(METHODS.to_vec()));
                // The answer may have been faster than the answer to our own request.
                let early = this.verification().early().take(of_event.as_str());
                for event in early {
                    Box::pin(machine.receive_verification_event(&event)).await?;
                }
                Ok(Asked::Began(request, None, Vec::new()))
            })
        });
        let begun = begun.await;
        if matches!(&begun, Err(Error::Verification(_))) {
            self.take_back(room, event).await;
        }
        begun
    }

    /// We have asked in the room, and nothing comes of it: whoever waits for us there is told.
    async fn take_back(&self, room: OwnedRoomId, event: OwnedEventId) {
        let reason = "another verification is under way".to_owned();
        let content = KeyVerificationCancelEventContent::new(reason, CancelCode::Accepted, Reference::new(event));
        let Ok(content) = serde_json::to_value(content) else {
            return;
        };
        let said = self
            .say_in_room(room, "m.key.verification.cancel".to_owned(), content)
            .await;
        if let Err(error) = said {
            tracing::warn!(
                code = error.code(),
                "a request of a verification was not taken back: it ends by itself"
            );
        }
    }

    async fn request_content(&self, user: &UserId) -> Result<Option<serde_json::Value>> {
        let user = user.to_owned();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let content = match machine.get_identity(&user, None).await? {
                        Some(UserIdentity::Other(other)) => {
                            let content = other.verification_request_content(Some(METHODS.to_vec()));
                            serde_json::to_value(content).ok()
                        }
                        _ => None,
                    };
                    Ok(Ending::Commit(content))
                })
            })
            .await
    }

    /// Whether a verification with this user is under way. The engine cancels both when there are two.
    async fn is_verifying(&self, user: &UserId) -> Result<bool> {
        let user = user.to_owned();
        self.machine()
            .unit(move |_, unit| Box::pin(async move { Ok(Ending::Commit(is_busy(unit, &user).await?)) }))
            .await
    }

    /// Begin one: `ask` makes the engine's request.
    async fn begin<F>(&self, user: &UserId, room: Option<OwnedRoomId>, ask: F) -> Result<VerificationId>
    where
        F: for<'a> FnOnce(&'a OlmMachine, &'a Unit) -> Work<'a, Asked> + Send + 'static,
    {
        let (this, user) = (self.clone(), user.to_owned());
        let begun = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let scene = Scene {
                        machine,
                        unit,
                        now_ms: this.now_ms(),
                        verifications: this.verification(),
                    };
                    let mut heard = Heard::default();
                    // What is asked in a room has left by now.
                    let is_first = room.is_some() && glare::is_ours_first(scene, &mut heard, &user).await?;
                    if !is_first && is_busy(unit, &user).await? {
                        return Ok(Ending::Commit((Err(busy(&user)), None)));
                    }
                    let (request, message, asked) = match ask(machine, unit).await? {
                        Asked::Began(request, message, asked) => (request, message, asked),
                        Asked::Refused(error) => {
                            return Ok(Ending::Commit((Err(error), let_go(scene, &heard).await?)));
                        }
                    };
                    if request.is_cancelled() {
                        // What is left of an earlier one is in its way, until the engine is built again.
                        let looked = let_go(scene, &heard).await?;
                        return Ok(Ending::CommitAndRebuild((Err(busy(&user)), looked)));
                    }
                    let id = VerificationId {
                        user_id: user,
                        flow_id: request.flow_id().as_str().to_owned(),
                    };
                    let flow = Flow {
                        id: id.clone(),
                        room,
                        device: None,
                        asked,
                        by_us: true,
                        accepted: true,
                        began_ms: scene.now_ms,
                        keys: None,
                        compared: None,
                        farewell: None,
                    };
                    let looked = write_down(scene, flow, message, &heard).await?;
                    Ok(Ending::Commit((Ok(id), Some(looked))))
                })
            })
            .await?;
        let (begun, looked) = begun;
        if let Some(looked) = looked {
            self.verification().show(looked);
            self.post_verifications().await?;
        }
        Ok(begun?)
    }
}

async fn write_down(
    scene: Scene<'_>,
    flow: Flow,
    message: Option<OutgoingVerificationRequest>,
    heard: &Heard,
) -> Result<Looked> {
    flow.keep(scene.unit).await?;
    let mut look = Look::new(scene);
    look.say(&flow, message);
    look.at_all(heard).await?;
    inbox::append(scene.unit, &look.events).await?;
    Ok(look.looked)
}

/// Ours did not begin. Who was let go of for it is told all the same.
async fn let_go(scene: Scene<'_>, heard: &Heard) -> Result<Option<Looked>> {
    if heard.withdrawn.is_empty() {
        return Ok(None);
    }
    let mut look = Look::new(scene);
    look.at_all(heard).await?;
    inbox::append(scene.unit, &look.events).await?;
    Ok(Some(look.looked))
}

async fn is_busy(unit: &Unit, user: &UserId) -> Result<bool> {
    let flows = flow::all(unit).await?;
    Ok(flows
        .iter()
        .any(|flow| flow.id.user_id == user && flow.farewell.is_none()))
}

fn busy(user: &UserId) -> VerificationError {
    VerificationError::Busy { user: user.to_owned() }
}

fn recipients(message: &ToDeviceRequest) -> Vec<OwnedDeviceId> {
    message
        .messages
        .values()
        .flat_map(|devices| devices.keys())
        .filter_map(|device| match device {
            DeviceIdOrAllDevices::DeviceId(device) => Some(device.clone()),
            DeviceIdOrAllDevices::AllDevices => None,
        })
        .collect()
}
