//! Word of room keys that somebody does not give us.
//!
//! # Why
//! Anybody can send it, in plaintext, and the engine keeps all of it for ever, with whatever else is inside.

use mx_crypto_store::Unit;
use ruma::{OwnedRoomId, events::AnyToDeviceEvent, serde::Raw};
use serde::Deserialize;

use super::{
    quota,
    to_device::{Header, Rejections, ToDeviceRejectedReason, Took},
};
use crate::Result;

const TYPE: &str = "m.room_key.withheld";

/// Several times what a code and its reason need, in bytes.
const MAX_BYTES: usize = 4 * 1024;

#[derive(Deserialize)]
struct Withheld {
    code: String,
    room_id: Option<OwnedRoomId>,
    session_id: Option<String>,
    #[serde(default)]
    sender_key: String,
}

/// Leave out what is more than anybody needs.
pub(super) async fn bounded(
    unit: &Unit,
    events: Vec<Raw<AnyToDeviceEvent>>,
    rejections: &mut Rejections,
    now_ms: u64,
) -> Result<Vec<Raw<AnyToDeviceEvent>>> {
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        let header = serde_json::from_str::<Header>(event.json().get()).ok();
        if let Some(header) = header.filter(|header| header.event_type == TYPE) {
            let reason = if event.json().get().len() > MAX_BYTES {
                Some(ToDeviceRejectedReason::TooLarge)
            } else if quota::WITHHELD.is_over(unit, &header.sender, now_ms).await? {
                Some(ToDeviceRejectedReason::TooManyWithheld)
            } else {
                None
            };
            if let Some(reason) = reason {
                rejections.add(Some(header.sender), TYPE, reason);
                continue;
            }
        }
        kept.push(event);
    }
    Ok(kept)
}

/// What one says.
pub(super) fn read(header: &Header) -> Option<Took> {
    if header.event_type != TYPE {
        return None;
    }
    let content: Withheld = serde_json::from_str(header.content.get()).ok()?;
    if content.code == "m.no_olm" {
        return Some(Took::NoSession {
            sender: header.sender.clone(),
            sender_key: content.sender_key,
        });
    }
    Some(Took::Withheld {
        room: content.room_id?,
        session: content.session_id?,
    })
}
