//! Two requests at once: each side asks before it has seen that the other one does.
//!
//! # Why
//! The engine cancels both, on both sides, so that nobody gets anywhere who tries at the same time. The specification has it
//! so for two requests of one device (client-server API, "Error and exception handling"); for two that meet it says nothing.
//! So they are sorted out as two starts are: the one whose user id, and then device id, is the smaller goes on, and both
//! sides know which one that is. Whoever asked for the other one is told all the same.

use ruma::{DeviceId, RoomId, UserId, events::key::verification::cancel::CancelCode};

use super::{
    VerificationId,
    flow::{self, Farewell, Flow},
    ledger::{Heard, Scene, is_blocked},
};
use crate::Result;

/// The engine takes a request for too old, or for one that is yet to come, outside of these.
const OLDEST_MS: u64 = 10 * 60 * 1000;
const AHEAD_MS: u64 = 5 * 60 * 1000;

/// What both sides are told of the one that ends.
pub(super) const REASON: &str = "both sides asked at once, and the other request goes on";

/// A request that has come.
pub(super) struct Asking<'a> {
    pub(super) room: Option<&'a RoomId>,
    pub(super) user: &'a UserId,
    pub(super) device: &'a DeviceId,
    pub(super) flow_id: &'a str,
    pub(super) at_ms: u64,
}

/// Whether a request that has come is to be left out, because the one that it meets goes on. Where it is the other way round,
/// the engine lets go of ours here, and the look at the end of the unit says so.
pub(super) async fn is_left_out(scene: Scene<'_>, heard: &mut Heard, asking: &Asking<'_>) -> Result<bool> {
    if !is_taken(scene, asking).await? {
        return Ok(false);
    }
    let machine = scene.machine;
    let own = (machine.user_id(), machine.device_id());
    let flows = flow::all(scene.unit).await?;
    let is_full = flows.len() >= flow::MOST;
    for flow in flows {
        let is_over = flow.farewell.is_some() || heard.withdrawn.contains(&flow.id);
        if flow.id.user_id != asking.user
            || flow.id.flow_id == asking.flow_id
            || is_over
            || !flow.is_unanswered(machine)
        {
            continue;
        }
        let asked = (asking.user, asking.device);
        let other = match &flow.device {
            _ if flow.by_us && (flow.asked.is_empty() || flow.asked.iter().any(|device| device == asking.device)) => {
                own
            }
            // Two other devices of ours have asked each other, and this one.
            Some(device) if !flow.by_us && asking.user == own.0 && device != asking.device => (asking.user, &**device),
            _ => continue,
        };
        if other < asked || is_blocked(machine, asking.user, Some(asking.device)).await? {
            tracing::info!(user = %asking.user, "two verifications were asked for at once: the other one goes on");
            if !is_full {
                decline(scene, asking).await?;
            }
            heard.from.insert(asking.user.to_owned());
            return Ok(true);
        }
        withdraw(scene, heard, &flow);
    }
    Ok(false)
}

/// Whoever asked is told by the look at the end of the unit, as of a verification that has ended.
pub(super) async fn decline(scene: Scene<'_>, asking: &Asking<'_>) -> Result<()> {
    let flow = Flow {
        id: VerificationId {
            user_id: asking.user.to_owned(),
            flow_id: asking.flow_id.to_owned(),
        },
        room: asking.room.map(ToOwned::to_owned),
        device: Some(asking.device.to_owned()),
        asked: Vec::new(),
        by_us: false,
        accepted: false,
        began_ms: scene.now_ms,
        keys: None,
        compared: None,
        farewell: Some(Farewell {
            code: CancelCode::Accepted,
            reason: REASON.to_owned(),
        }),
    };
    flow.keep(scene.unit).await
}

/// Whether the engine looks at it.
pub(super) async fn is_taken(scene: Scene<'_>, asking: &Asking<'_>) -> Result<bool> {
    let (now_ms, at_ms) = (scene.now_ms, asking.at_ms);
    let is_fresh = now_ms.saturating_sub(at_ms) <= OLDEST_MS && at_ms.saturating_sub(now_ms) <= AHEAD_MS;
    let device = scene.machine.get_device(asking.user, asking.device, None).await?;
    Ok(is_fresh && device.is_some())
}

/// Our own request has left, and theirs came meanwhile. Returns whether ours goes on: theirs are let go of then.
pub(super) async fn is_ours_first(scene: Scene<'_>, heard: &mut Heard, user: &UserId) -> Result<bool> {
    let own = (scene.machine.user_id(), scene.machine.device_id());
    let flows = flow::all(scene.unit).await?;
    let live: Vec<Flow> = flows
        .into_iter()
        .filter(|flow| flow.id.user_id == user && flow.farewell.is_none())
        .collect();
    let is_later = |flow: &Flow| {
        let device = flow.device.as_deref();
        !flow.by_us && flow.is_unanswered(scene.machine) && device.is_some_and(|device| own < (user, device))
    };
    if !live.iter().all(is_later) {
        return Ok(false);
    }
    for flow in live {
        withdraw(scene, heard, &flow);
    }
    Ok(true)
}

fn withdraw(scene: Scene<'_>, heard: &mut Heard, flow: &Flow) {
    flow.drop_in_engine(scene.machine);
    heard.withdrawn.insert(flow.id.clone());
}
