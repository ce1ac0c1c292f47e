//! Events that the first sync shows and that are older than this device: nobody could have encrypted them for it.
//!
//! # Why they are kept
//! A dehydrated device may have been given their keys. They are tried when it is opened, and not otherwise: who restores a
//! backup does not want to be told again what another device was told long ago.

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{SyncSummary, inbox, timeline::Timelines};
use crate::{Orchestrator, Result, machine::Ending};

const BEFORE: Family = Family::new("before-this-device").passing();

/// More are not kept.
const MOST: u64 = 5_000;
/// Events that are tried in one unit of work.
const PAGE: usize = 100;

#[derive(Serialize, Deserialize)]
struct Before {
    room: OwnedRoomId,
    raw: Box<RawValue>,
}

/// Keep an event.
pub(super) async fn keep(unit: &Unit, room: &RoomId, raw: Box<RawValue>) -> Result<()> {
    let position = unit.next_sequence(BEFORE, &[]).await?;
    if position >= MOST {
        return Ok(());
    }
    let room = room.to_owned();
    Ok(unit.put(&RecordId::sequence(BEFORE, &[], position), &Before { room, raw })?)
}

impl Orchestrator {
    /// Try them, once. What can be decrypted is in the inbox afterwards; returns how many could.
    pub(crate) async fn deliver_before(&self) -> Result<usize> {
        let mut decrypted = 0;
        loop {
            let context = self.context().await?;
            let (opened, more) = self
                .machine()
                .unit(move |machine, unit| {
                    Box::pin(async move {
                        let page = unit.scan(BEFORE, &[], None, PAGE).await?;
                        let more = page.len() == PAGE;
                        let (mut summary, mut events) = (SyncSummary::default(), Vec::new());
                        let mut timelines = Timelines::new(machine, unit, &context, &mut summary, &mut events);
                        for record in page {
                            let before: Before = record.decode()?;
                            timelines.again(&before.room, &before.raw).await?;
                            unit.delete_at(&record.cursor)?;
                        }
                        context.verifications.overhear(timelines.into_heard().1);
                        inbox::append(unit, &events).await?;
                        Ok(Ending::Commit((events.len(), more)))
                    })
                })
                .await?;
            decrypted += opened;
            if !more {
                return Ok(decrypted);
            }
        }
    }
}
