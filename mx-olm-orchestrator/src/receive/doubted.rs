//! Room keys that are here on somebody's word, and that their own sender sends now.
//!
//! # Why
//! A key out of a backup, a file or a history proves nothing: whoever gave it can have made it up, under the name of a
//! session that is another's. The engine keeps what it has when a key comes that does not continue it, so that a forged one
//! would keep the real one away for ever. But the key that a device sends of its own session is signed with that session's
//! key, whose name it bears, and cannot be made up. So it counts, and what was here goes, unless it is the same session
//! from an earlier message on.

use std::collections::BTreeSet;

use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;
use matrix_sdk_crypto::{olm::InboundGroupSession, store::CryptoStore};
use mx_crypto_store::PickleStore;
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{Result, imported::are_of_one_session};

type Sessions = BTreeSet<(OwnedRoomId, String)>;

/// Sessions whose keys came from their senders and were not taken, because of what is here on somebody's word.
pub(super) async fn among(
    store: &PickleStore,
    processed: &[ProcessedToDeviceEvent],
    known: &Sessions,
) -> Result<Sessions> {
    let mut doubted = Sessions::new();
    for place in processed.iter().filter_map(room_key) {
        if known.contains(&place) || doubted.contains(&place) {
            continue;
        }
        let held = store.get_inbound_group_session(&place.0, &place.1).await?;
        if held.is_some_and(|held| held.has_been_imported()) {
            doubted.insert(place);
        }
    }
    Ok(doubted)
}

/// Of which session an event brings the key.
fn room_key(event: &ProcessedToDeviceEvent) -> Option<(OwnedRoomId, String)> {
    #[derive(Deserialize)]
    struct Inside {
        #[serde(rename = "type")]
        event_type: String,
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        room_id: OwnedRoomId,
        session_id: String,
    }
    let ProcessedToDeviceEvent::Decrypted { raw, .. } = event else {
        return None;
    };
    let inside: Inside = raw.deserialize_as_unchecked().ok()?;
    (inside.event_type == "m.room_key").then_some((inside.content.room_id, inside.content.session_id))
}

/// Take them out of the engine's sight, for the rest of the unit of work.
pub(super) async fn set_aside(store: &PickleStore, doubted: &Sessions) -> Result<Vec<InboundGroupSession>> {
    let mut aside = Vec::with_capacity(doubted.len());
    for (room, session) in doubted {
        aside.extend(store.get_inbound_group_session(room, session).await?);
    }
    let places: Vec<_> = doubted.iter().cloned().collect();
    store.forget_room_keys(&places).await?;
    Ok(aside)
}

/// What became of them: back where nothing came, or where they are the same session from an earlier message on.
pub(super) async fn put_back(store: &PickleStore, aside: Vec<InboundGroupSession>) -> Result<()> {
    let mut back = Vec::new();
    for held in aside {
        let came = store
            .get_inbound_group_session(held.room_id(), held.session_id())
            .await?;
        let stays = match came {
            None => true,
            Some(came) if are_of_one_session(&held, &came).await => held.first_known_index() < came.first_known_index(),
            Some(_) => {
                tracing::warn!(
                    room = %held.room_id(),
                    session = held.session_id(),
                    "a room key that was imported was made up: its sender's own takes its place"
                );
                false
            }
        };
        if stays {
            back.push(held);
        }
    }
    Ok(store.save_inbound_group_sessions(back, None).await?)
}
