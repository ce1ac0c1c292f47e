//! The lanes of all rooms, with what an earlier process left in them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mx_crypto_store::PickleStore;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OnceCell;

use super::{lane::Lane, outbox};
use crate::Result;

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<OwnedRoomId, Arc<Lane>>>,
    /// What an earlier process left is in the lanes.
    loaded: OnceCell<()>,
}

impl Lanes {
    /// The lane of a room, with what an earlier process left in it.
    pub(super) async fn of(&self, store: &PickleStore, room: &RoomId) -> Result<Arc<Lane>> {
        self.load(store).await?;
        Ok(self.lane(room))
    }

    /// All lanes that something is in.
    pub(super) async fn busy(&self, store: &PickleStore) -> Result<Vec<Arc<Lane>>> {
        self.load(store).await?;
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(lanes.values().filter(|lane| !lane.is_empty()).map(Arc::clone).collect())
    }

    async fn load(&self, store: &PickleStore) -> Result<()> {
        let load = async {
            for (room, position, transaction) in outbox::left(store).await? {
                self.lane(&room).was_left(position, transaction);
            }
            Ok(())
        };
        self.loaded.get_or_try_init(|| load).await.copied()
    }

    fn lane(&self, room: &RoomId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes
            .entry(room.to_owned())
            .or_insert_with(|| Arc::new(Lane::new(room.to_owned())));
        Arc::clone(lane)
    }
}
