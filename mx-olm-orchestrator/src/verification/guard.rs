//! Which to-device events of verifications the engine is given: those that can mean something.
//!
//! # Why
//! They come as plaintext from anybody, and every request cancels the one before it and makes the engine answer. A start
//! without a request is no part of the specification any more (MSC3122), and the engine still takes it.

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk_crypto::OlmMachine;
use ruma::{OwnedDeviceId, OwnedUserId, events::AnyToDeviceEvent, serde::Raw};
use serde::Deserialize;

use super::{
    glare::{self, Asking},
    ledger::{Heard, Scene},
};

const REQUEST: &str = "m.key.verification.request";
/// The largest is a start with its lists of methods, or a list of keys, in bytes.
pub(super) const MAX_BYTES: usize = 16 * 1024;
/// As long as a user or event id may be.
const MAX_ID_BYTES: usize = 255;
/// In one sync, of one user,
const MAX_REQUESTS_OF_USER: usize = 3;
/// and of all.
const MAX_REQUESTS: usize = 20;

/// Why an event was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    TooLarge,
    /// It belongs to no verification that we know.
    Unknown,
    /// There are more requests than anybody needs.
    TooMany,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "type")]
    event_type: String,
    sender: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    transaction_id: String,
    from_device: Option<OwnedDeviceId>,
    /// As it comes: what is no number is for the engine to refuse.
    #[serde(default)]
    timestamp: serde_json::Value,
}

/// A to-device event of a verification.
fn read(event: &Raw<AnyToDeviceEvent>) -> Option<Result<Header, LeftOut>> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        event_type: std::borrow::Cow<'a, str>,
    }
    let json = event.json().get();
    let kind: Kind<'_> = serde_json::from_str(json).ok()?;
    if !kind.event_type.starts_with("m.key.verification.") {
        return None;
    }
    if json.len() > MAX_BYTES {
        return Some(Err(LeftOut::TooLarge));
    }
    let header: Header = serde_json::from_str(json).ok()?;
    if header.content.transaction_id.is_empty() || header.content.transaction_id.len() > MAX_ID_BYTES {
        return Some(Err(LeftOut::Unknown));
    }
    Some(Ok(header))
}

/// Keep what can mean something, and note who sent it.
pub(crate) fn admitted(
    machine: &OlmMachine,
    events: Vec<Raw<AnyToDeviceEvent>>,
    heard: &mut Heard,
    mut left_out: impl FnMut(Option<OwnedUserId>, &str, LeftOut),
) -> Vec<Raw<AnyToDeviceEvent>> {
    let mut requests: BTreeMap<OwnedUserId, BTreeSet<String>> = BTreeMap::new();
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        let header = match read(&event) {
            None => {
                kept.push(event);
                continue;
            }
            Some(Err(why)) => {
                left_out(None, "m.key.verification", why);
                continue;
            }
            Some(Ok(header)) => header,
        };
        let total: usize = requests.values().map(BTreeSet::len).sum();
        let flow = &header.content.transaction_id;
        let of_user = requests.entry(header.sender.clone()).or_default();
        let why = if header.event_type == REQUEST {
            let too_many = total >= MAX_REQUESTS || of_user.len() >= MAX_REQUESTS_OF_USER;
            (too_many || !of_user.insert(flow.clone())).then_some(LeftOut::TooMany)
        } else {
            let is_known = of_user.contains(flow)
                || machine.get_verification_request(&header.sender, flow).is_some()
                || machine.get_verification(&header.sender, flow).is_some();
            (!is_known).then_some(LeftOut::Unknown)
        };
        match why {
            Some(why) => left_out(Some(header.sender), &header.event_type, why),
            None => {
                heard.from.insert(header.sender);
                kept.push(event);
            }
        }
    }
    kept
}

/// Leave out the requests that meet one which goes on.
pub(crate) async fn unmet(
    scene: Scene<'_>,
    events: Vec<Raw<AnyToDeviceEvent>>,
    heard: &mut Heard,
) -> crate::Result<Vec<Raw<AnyToDeviceEvent>>> {
    let mut kept = Vec::with_capacity(events.len());
    // The request of a device of ours that was kept, and where.
    let mut of_ours: Option<(usize, OwnedDeviceId, String)> = None;
    for event in events {
        let request = read(&event)
            .and_then(Result::ok)
            .filter(|header| header.event_type == REQUEST);
        if let Some(Header { sender, content, .. }) = request
            && let (Some(device), Some(at_ms)) = (&content.from_device, content.timestamp.as_u64())
        {
            let asking = Asking {
                room: None,
                user: &sender,
                device,
                flow_id: &content.transaction_id,
                at_ms,
            };
            if glare::is_left_out(scene, heard, &asking).await? {
                continue;
            }
            if sender == scene.machine.user_id() && glare::is_taken(scene, &asking).await? {
                // Two other devices of ours ask this one, at once.
                match &of_ours {
                    Some((_, first, _)) if first < device => {
                        glare::decline(scene, &asking).await?;
                        continue;
                    }
                    Some((place, other, flow_id)) if other != device => {
                        drop(kept.remove(*place));
                        let other = Asking {
                            device: other,
                            flow_id,
                            ..asking
                        };
                        glare::decline(scene, &other).await?;
                    }
                    _ => {}
                }
                of_ours = Some((kept.len(), device.clone(), content.transaction_id.clone()));
            }
        }
        kept.push(event);
    }
    Ok(kept)
}

/// The devices that ask, or answer, in a sync. The engine ignores one that it does not know.
pub(super) fn devices(events: &[Raw<AnyToDeviceEvent>]) -> BTreeMap<OwnedUserId, BTreeSet<OwnedDeviceId>> {
    let mut devices: BTreeMap<OwnedUserId, BTreeSet<OwnedDeviceId>> = BTreeMap::new();
    for header in events.iter().filter_map(read).flatten() {
        let speaks = matches!(header.event_type.as_str(), REQUEST | "m.key.verification.ready");
        if let Some(device) = header.content.from_device.filter(|_| speaks)
            && (devices.contains_key(&header.sender) || devices.len() < MAX_REQUESTS)
        {
            devices.entry(header.sender).or_default().insert(device);
        }
    }
    devices
}
