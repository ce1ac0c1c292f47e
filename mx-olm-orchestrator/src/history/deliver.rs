//! Histories that are noted: delivered, tried again by syncs, and told of where they are given up.

use ruma::{RoomId, UserId};

use super::{
    HistoryShared,
    due::{Due, Parcel},
    share::is_final,
};
use crate::{
    Error, Event, HistoryNotShared, Orchestrator, Result,
    machine::{Ending, Work},
    outgoing,
    receive::inbox,
};

impl Orchestrator {
    pub(super) async fn deliver_history(&self, room: &RoomId, user: &UserId, parcel: Parcel) -> Result<HistoryShared> {
        for request in &parcel.requests {
            outgoing::to_device(self.homeserver(), request).await?;
        }
        tracing::info!(%room, %user, keys = parcel.shared.room_keys, "the history of a room was shared");
        Ok(parcel.shared)
    }

    /// What a sync does for histories: those that are due are given, and those that are wanted taken.
    ///
    /// Its future has a type of its own: that of a send, of which it is a part, would be too deep for the compiler.
    pub(crate) fn tend_histories(&self) -> Work<'_, ()> {
        Box::pin(self.tend_histories_now())
    }

    async fn tend_histories_now(&self) -> Result<()> {
        let Ok(_alone) = self.keeping().history.try_lock() else {
            return Ok(());
        };
        for due in Due::all(self.store(), self.now_ms()).await? {
            if self.keeping().inviting.is_under_way(&due.room, &due.user) {
                continue;
            }
            match Box::pin(self.give(&due.room, &due.user)).await {
                Ok(_) => {}
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => self.not_given(&due.room, &due.user, &error).await?,
            }
        }
        if self.options().accept_history {
            Box::pin(self.take_histories()).await?;
        }
        Ok(())
    }

    /// Note that it failed, and tell where it was the last time.
    async fn not_given(&self, room: &RoomId, user: &UserId, error: &Error) -> Result<()> {
        tracing::warn!(%room, code = error.code(), "the history of a room could not be shared");
        let (code, advice) = (error.code().to_owned(), error.to_string());
        let (room, user, now_ms, mut over) = (room.to_owned(), user.to_owned(), self.now_ms(), is_final(error));
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    if let Some(mut due) = Due::load(unit, &room, &user).await? {
                        over |= due.failed(now_ms);
                        due.save(unit)?;
                    }
                    if over {
                        Due::forget(unit, &room, &user)?;
                        let event = HistoryNotShared {
                            room_id: room,
                            user_id: user,
                            code,
                            advice,
                        };
                        inbox::append(unit, &[Event::HistoryNotShared(event)]).await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
