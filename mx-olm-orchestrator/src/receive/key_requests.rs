//! Room keys that other devices of our own user ask for, and that we ask of them.
//!
//! # Why
//! The engine's own answering (its feature `automatic-room-key-forwarding`) has no list of who may ask, and would be on for
//! everybody who links it. What it offers without that is enough: it takes a key only that it asked for and that comes from
//! a verified device of our own.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{
    CollectStrategy, OlmError, OlmMachine,
    types::{events::forwarded_room_key::ForwardedRoomKeyContent, requests::ToDeviceRequest},
};
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedRoomId, events::AnyToDeviceEvent, serde::Raw};
use serde::Deserialize;

use super::{
    Context,
    to_device::{Header, Rejections, ToDeviceRejectedReason},
    undecryptable,
};
use crate::{
    Orchestrator, Result, Trust, Undecryptable,
    keys::Upkeep,
    machine::Ending,
    trust_manifest::{Manifest, standing},
};

const REQUESTS: [&str; 2] = ["m.room_key_request", "m.secret.request"];

/// As many keys are given out in one sync.
const MOST_IN_A_SYNC: usize = 100;

/// Which other devices of our own user are given the room keys that they ask for. Never a device of somebody else, and never
/// one that is not verified.
///
/// ```
/// use mx_olm_orchestrator::{KeyRequests, Options};
/// use ruma::owned_device_id;
///
/// // One other device of the account, where somebody looks into what the bot was told.
/// let mut options = Options::default();
/// options.key_requests = KeyRequests::Only([owned_device_id!("OPERATOR")].into());
/// # drop(options);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRequests {
    /// None of them.
    #[default]
    Refuse,
    /// Those that are verified.
    Verified,
    /// Those of these that are verified.
    Only(BTreeSet<OwnedDeviceId>),
}

/// A key that somebody asks for.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Asked {
    requesting_device_id: OwnedDeviceId,
    body: Wanted,
}

#[derive(Clone, Debug, Deserialize)]
struct Wanted {
    algorithm: String,
    room_id: OwnedRoomId,
    session_id: String,
}

#[derive(Deserialize)]
struct Action {
    action: String,
}

impl Asked {
    /// Read the content of an `m.room_key_request`. One that takes a request back is none.
    pub(super) fn read(content: &str) -> Option<Self> {
        let action: Action = serde_json::from_str(content).ok()?;
        if action.action != "request" {
            return None;
        }
        let asked: Self = serde_json::from_str(content).ok()?;
        (asked.body.algorithm == crate::rooms::MEGOLM).then_some(asked)
    }
}

/// Leave out what asks for a key or a secret: the engine would answer some of it by itself.
pub(super) fn left_out(
    mut events: Vec<Raw<AnyToDeviceEvent>>,
    rejections: &mut Rejections,
) -> Vec<Raw<AnyToDeviceEvent>> {
    events.retain(|event| {
        let header = serde_json::from_str::<Header>(event.json().get()).ok();
        let asks = header.filter(|header| REQUESTS.contains(&header.event_type.as_str()));
        if let Some(header) = &asks {
            let reason = ToDeviceRejectedReason::NotAnswered;
            rejections.add(Some(header.sender.clone()), &header.event_type, reason);
        }
        asks.is_none()
    });
    events
}

/// Leave out what devices of ours ask for that the trust manifest, which lists us, does not mean: the engine gives secrets to
/// every device that our identity has signed.
pub(super) async fn without_unlisted(
    machine: &OlmMachine,
    manifest: &Manifest,
    events: Vec<Raw<AnyToDeviceEvent>>,
    rejections: &mut Rejections,
) -> Result<Vec<Raw<AnyToDeviceEvent>>> {
    #[derive(Deserialize)]
    struct Asks {
        content: Asker,
    }
    #[derive(Deserialize)]
    struct Asker {
        requesting_device_id: OwnedDeviceId,
    }
    let own = machine.user_id();
    if manifest.is_none() {
        return Ok(events);
    }
    let mut left = Vec::with_capacity(events.len());
    for event in events {
        let header = serde_json::from_str::<Header>(event.json().get()).ok();
        let asks = header.filter(|header| header.sender == *own && REQUESTS.contains(&header.event_type.as_str()));
        if let Some(header) = asks
            && let Ok(asks) = serde_json::from_str::<Asks>(event.json().get())
            && standing(
                machine,
                manifest,
                own,
                &asks.content.requesting_device_id,
                Trust::Verified,
            )
            .await?
                != Trust::Verified
        {
            let reason = ToDeviceRejectedReason::NotAnswered;
            rejections.add(Some(header.sender), &header.event_type, reason);
        } else {
            left.push(event);
        }
    }
    Ok(left)
}

/// Encrypt the keys that verified devices of our own ask for, as far as they may have them.
pub(super) async fn answer(machine: &OlmMachine, context: &Context, asked: &[Asked]) -> Result<Vec<ToDeviceRequest>> {
    let (who, own) = (&context.key_requests, machine.user_id());
    let mut given = Vec::new();
    for request in asked.iter().take(MOST_IN_A_SYNC) {
        let device = &request.requesting_device_id;
        let is_listed = match who {
            KeyRequests::Refuse => false,
            KeyRequests::Verified => true,
            KeyRequests::Only(devices) => devices.contains(device),
        };
        // A trust manifest that lists us says which devices are ours.
        let standing = standing(machine, &context.manifest, own, device, Trust::Verified).await?;
        if is_listed
            && standing == Trust::Verified
            && let Some(key) = forward(machine, device, &request.body).await?
        {
            given.push(key);
        }
    }
    Ok(given)
}

async fn forward(machine: &OlmMachine, device: &OwnedDeviceId, wanted: &Wanted) -> Result<Option<ToDeviceRequest>> {
    let held = machine.get_device(machine.user_id(), device, None).await?;
    let Some(held) = held.filter(|held| held.is_verified() && !held.is_blacklisted() && device != machine.device_id())
    else {
        return Ok(None);
    };
    let store = machine.store();
    let Some(session) = store
        .get_inbound_group_session(&wanted.room_id, &wanted.session_id)
        .await?
    else {
        return Ok(None);
    };
    let Ok(content) = ForwardedRoomKeyContent::try_from(session.export().await) else {
        return Ok(None);
    };
    let Ok(content) = serde_json::to_value(content) else {
        return Ok(None);
    };
    let strategy = CollectStrategy::AllDevices;
    match Box::pin(held.encrypt_event_raw("m.forwarded_room_key", &content, strategy)).await {
        Ok(encrypted) => Ok(Some(ToDeviceRequest::new(
            machine.user_id(),
            device.clone(),
            "m.room.encrypted",
            Raw::from_json(encrypted.into_json()),
        ))),
        // It asks again when there is one.
        Err(OlmError::MissingSession | OlmError::Withheld(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Orchestrator {
    /// Ask our other devices for the key of an event that waits for it. Those that are verified may give it, and only what
    /// they give is taken; then the event is delivered. Returns whether it waits.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, event: mx_olm_orchestrator::Undecryptable) -> Result<(), mx_olm_orchestrator::Error> {
    /// // Others of our devices give it if they allow that, when they are awake: the event is in the inbox of a later sync.
    /// if device.request_key(&event).await? {
    ///     println!("asked for the key of {}", event.event_id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, of the store. It is asked again with the next sync then.
    ///
    /// # Cancel safety
    /// Safe: what was noted is asked with the next sync.
    pub async fn request_key(&self, event: &Undecryptable) -> Result<bool> {
        let event = event.clone();
        let waits = self
            .machine()
            .unit(move |machine, unit| Box::pin(async move { Ok(Ending::Commit(ask(machine, unit, &event).await?)) }))
            .await?;
        if waits {
            self.upkeep(Upkeep::Everything).await?;
        }
        Ok(waits)
    }
}

async fn ask(machine: &OlmMachine, unit: &Unit, event: &Undecryptable) -> Result<bool> {
    let Some(session) = &event.session_id else {
        return Ok(false);
    };
    let waiting = undecryptable::waiting_for(unit, &event.room_id, session).await?;
    let Some(waiting) = waiting
        .into_iter()
        .find(|waiting| waiting.report.event_id == event.event_id && waiting.message.is_none())
    else {
        return Ok(false);
    };
    // The engine holds the request until it was sent.
    Box::pin(machine.request_room_key(&Raw::from_json(waiting.raw), &event.room_id)).await?;
    Ok(true)
}
