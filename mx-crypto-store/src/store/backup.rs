//! Which Megolm sessions are in a backup, and which are still to be put there.
//!
//! # Why a list in memory
//! With each room key that comes, the next ones for the backup are asked for. To read every session for that, most of which
//! are there for years, would take longer with each year. One look at all of them for each process is enough: what is written
//! later says itself where it belongs. A unit that is undone takes the list with it.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{olm::InboundGroupSession, store::types::RoomKeyCounts};
use ruma::RoomId;

use super::{PickleStore, damaged, decoded::KnownInbound, rows::Rows};
use crate::{
    Result,
    layout::{self, Row, Table},
};

/// The sessions that a version of the backup does not have.
pub(super) struct Missing {
    version: String,
    rows: BTreeSet<Row>,
}

impl Missing {
    /// A session was written.
    pub(super) fn note(&mut self, row: &Row, known: &KnownInbound) {
        if known.backed_up_to.as_ref() == Some(&self.version) {
            self.rows.remove(row);
        } else {
            self.rows.insert(row.clone());
        }
    }

    /// A session was deleted.
    pub(super) fn forget(&mut self, row: &Row) {
        self.rows.remove(row);
    }
}

impl PickleStore {
    pub(super) async fn inbound_counts(&self, version: Option<&str>) -> Result<RoomKeyCounts> {
        let total = self.count(Table::InboundGroupSession).await?;
        let missing = match version {
            Some(version) => self.missing(version, |missing| missing.rows.len()).await?,
            None => total,
        };
        Ok(RoomKeyCounts {
            total,
            backed_up: total.saturating_sub(missing),
        })
    }

    pub(super) async fn inbounds_to_back_up(&self, version: &str, limit: usize) -> Result<Vec<InboundGroupSession>> {
        let first = |missing: &Missing| missing.rows.iter().take(limit).cloned().collect::<Vec<_>>();
        let mut sessions = Vec::new();
        for row in self.missing(version, first).await? {
            sessions.extend(self.known_inbound(&row).await?.map(|known| known.session));
        }
        Ok(sessions)
    }

    /// What is missing in a version.
    async fn missing<T>(&self, version: &str, look: impl Fn(&Missing) -> T) -> Result<T> {
        if let Some(missing) = self
            .kept()
            .missing
            .as_ref()
            .filter(|missing| missing.version == version)
        {
            return Ok(look(missing));
        }
        let stamp = self.stamp();
        let mut missing = Missing {
            version: version.to_owned(),
            rows: BTreeSet::new(),
        };
        for (row, known) in self.inbounds_under(&layout::table(Table::InboundGroupSession)).await? {
            missing.note(&row, &known);
        }
        let seen = look(&missing);
        self.keep(stamp, |kept| kept.missing = Some(missing));
        Ok(seen)
    }

    pub(super) async fn mark_backed_up(&self, version: &str, sessions: &[(&RoomId, &str)]) -> Result<()> {
        let turn = self.turn().await?;
        let mut marked = Vec::with_capacity(sessions.len());
        for (room, session) in sessions {
            if let Some(session) = self.inbound(room, session).await? {
                // A copy: the mark of the one that is kept would stand when this is not written.
                let pickle = session.pickle().await;
                let session = self.taint(InboundGroupSession::from_pickle(pickle).map_err(|_| damaged()))?;
                session.mark_as_backed_up();
                marked.push(session);
            }
        }
        let mut rows = Rows::default();
        self.put_inbounds(&mut rows, &marked, Some(version)).await?;
        self.write_in(turn, rows).await
    }
}
