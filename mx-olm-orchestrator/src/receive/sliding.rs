//! Simplified sliding sync (MSC4186): a second source of the same events, where the homeserver offers it.
//!
//! # Why this shape
//! The homeserver remembers what it has given to a connection, and may forget it at any time. So two positions are kept, in
//! the unit of work that takes an answer: that of the connection, without which a new one begins, and that of the to-device
//! events, which are deleted by it and by nothing else. What a new connection shows once more is left out as far as it was
//! [`seen`](super::seen), and what it does not reach is asked for page by page, as with any timeline that is limited.
//! A new connection says nothing of devices that changed before it: everybody's may have.
//!
//! One list with all rooms is asked for, and no room by its name: a bot has no screen that shows some of them. State is
//! asked for as far as it matters to encryption. Messages are always asked for, also by a send: the connection has one list,
//! and what was left out of it would not come again.

use std::time::Duration;

use matrix_sdk_crypto::store::CryptoStore;
use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use mx_transport::{Call, RequestError};
use ruma::{
    UInt,
    api::client::sync::sync_events::v5::{Request, request},
    presence::PresenceState,
};
use serde::{Deserialize, Serialize};

use super::{
    Scope,
    backlog::Backlog,
    source::{Asked, SYNC_GRACE},
};
use crate::{Orchestrator, Result, SyncSource, sync_response::SyncResponse};

const SLIDING: Family = Family::new("sliding").passing();

/// What a homeserver calls it.
const FEATURE: &str = "org.matrix.simplified_msc3575";

/// The name of our connection; the device has no other one.
const CONNECTION: &str = "mx";

/// State of a room that is asked for; members as far as they speak or change.
const STATE: [(&str, &str); 5] = [
    ("m.room.encryption", ""),
    ("m.room.history_visibility", ""),
    ("m.room.tombstone", ""),
    ("m.room.member", "$LAZY"),
    ("m.room.member", "$ME"),
];

/// How many events of a room an answer shows. It is never another number: a homeserver gives what it gave once more where it
/// grows, and nothing at all of a room's messages where it is none.
const TIMELINE: u32 = 50;

/// All rooms: nobody is in more.
const LAST_ROOM: u32 = 999_999;

/// To-device events in one answer.
const TO_DEVICE_PAGE: u32 = 100;

/// Where we are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Positions {
    /// Of the connection. `None`: a new one begins.
    pub(crate) pos: Option<String>,
    /// Of the to-device events.
    pub(crate) to_device: Option<String>,
}

fn id() -> RecordId {
    RecordId::named(SLIDING, &[], "")
}

impl Positions {
    /// `None`: this device does not slide.
    pub(super) async fn committed(store: &PickleStore) -> Result<Option<Self>> {
        Ok(store.record(&id()).await?)
    }

    pub(super) fn save(&self, unit: &Unit) -> Result<()> {
        Ok(unit.put(&id(), self)?)
    }
}

/// The device does not slide any more.
pub(super) fn clear(unit: &Unit) -> Result<()> {
    Ok(unit.delete(&id())?)
}

impl Orchestrator {
    /// Whether syncs slide: it is wanted, and offered, or was when it began: one of several servers behind a name may not
    /// say so.
    pub(super) async fn slides(&self) -> Result<bool> {
        if self.options().sync_source != SyncSource::SlidingWhereOffered {
            return Ok(false);
        }
        if Positions::committed(self.store()).await?.is_some() {
            return Ok(true);
        }
        Ok(self.homeserver().supports(FEATURE).await?)
    }

    /// What is new, from the connection's position on, or from a new connection.
    pub(super) async fn ask_sliding(&self, timeout: Duration) -> Result<Asked> {
        let known = Positions::committed(self.store()).await?;
        let token = self.store().next_batch_token().await?;
        let backlog = Backlog::committed(self.store()).await?;
        let first_sync = known.is_none() && token.is_none();
        let mut positions = known.unwrap_or_default();
        let call = Call::repeatable().within(timeout.saturating_add(SYNC_GRACE));
        let asked = asking(&positions, timeout);
        let mut answer = self.homeserver().exchange(asked, call).await;
        if positions.pos.is_some() && answer.as_ref().is_err_and(is_forgotten) {
            tracing::info!("the homeserver has forgotten our sliding sync: it begins anew");
            positions.pos = None;
            self.pace().began_anew();
            let asked = asking(&positions, timeout);
            answer = self.homeserver().exchange(asked, call).await;
        }
        let answer = self.noticing_its_end(answer).await?;
        let mut sync = SyncResponse::parse_sliding(answer.body(), self.user_id(), &positions)?;
        let begins = positions.pos.is_none();
        if begins {
            sync.joined.iter_mut().for_each(|(_, joined)| joined.initial = true);
            sync.left.iter_mut().for_each(|(_, left)| left.initial = true);
        }
        if begins && !first_sync {
            sync.device_lists = None;
        }
        let nothing_new = sync.has_nothing() || positions.pos.as_ref() == Some(&sync.next_batch);
        let scope = if begins && !first_sync {
            Scope::Again {
                taken: Backlog::default(),
            }
        } else {
            Scope::Everything
        };
        Ok(Asked {
            sync,
            scope,
            since: None,
            floor: backlog.map_or(token, |backlog| Some(backlog.from)),
            first_sync,
            nothing_new,
        })
    }
}

fn asking(positions: &Positions, timeout: Duration) -> Request {
    let mut list = request::List::default();
    list.ranges = vec![(UInt::from(0_u32), UInt::from(LAST_ROOM))];
    list.room_details.timeline_limit = TIMELINE.into();
    list.room_details.required_state = STATE.map(|(kind, key)| (kind.into(), key.to_owned())).to_vec();
    let mut asked = Request::new();
    asked.pos.clone_from(&positions.pos);
    asked.conn_id = Some(CONNECTION.to_owned());
    asked.timeout = Some(timeout);
    asked.set_presence = PresenceState::Offline;
    asked.lists.insert("all".to_owned(), list);
    asked.extensions.e2ee.enabled = Some(true);
    asked.extensions.to_device.enabled = Some(true);
    asked.extensions.to_device.limit = Some(TO_DEVICE_PAGE.into());
    asked.extensions.to_device.since.clone_from(&positions.to_device);
    asked
}

/// The connection is not known any more: `M_UNKNOWN_POS`, or, of a position that another version of the homeserver gave, any
/// other word of the same status (`M_UNKNOWN` of Synapse). Where something else is wrong, a new connection is refused, too.
fn is_forgotten(error: &RequestError) -> bool {
    error.status().is_some_and(|status| status.as_u16() == 400)
}
