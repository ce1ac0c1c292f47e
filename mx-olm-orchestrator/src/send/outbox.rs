//! Encrypted events on their way: on the disk before they are put, gone from it when the homeserver has them.
//!
//! # Why
//! A parcel is written in the unit that encrypted it, so that there is never a ciphertext without its index being used,
//! nor an index used for a ciphertext that is gone. That the homeserver has it is noted with the next unit that commits,
//! whatever that is, or a moment later: a message costs one commit. Where a process is killed in between, the parcel is
//! put again with the same transaction id, which a homeserver takes once.
//!
//! What an earlier process left is put as it is. Whether it was on the wire before is not known, and a mark that said so
//! would have to be on the disk before the first attempt, at the price of a second commit for every message; to drop it
//! would lose or double a message by guessing. It is encrypted for those who could read the room when it was sent.

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use mx_transport::RequestError;
use ruma::{OwnedEventId, OwnedRoomId, OwnedTransactionId, api::client::message::send_message_event, serde::Raw};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Event, Orchestrator, Result, SendRefused, Sent, machine::Ending, receive::inbox};

const OUTBOX: Family = Family::guarded("outbox").passing();

/// How many parcels are read at once.
const PAGE: usize = 64;

/// An encrypted event on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) room: OwnedRoomId,
    pub(crate) transaction: OwnedTransactionId,
    pub(crate) session: String,
    /// The content of `m.room.encrypted`: the same bytes at every attempt.
    ciphertext: Box<RawValue>,
    /// Its place in the outbox.
    #[serde(default)]
    pub(crate) position: u64,
}

impl Parcel {
    pub(crate) fn new(
        room: OwnedRoomId,
        transaction: OwnedTransactionId,
        session: String,
        ciphertext: Box<RawValue>,
    ) -> Self {
        Self {
            room,
            transaction,
            session,
            ciphertext,
            position: 0,
        }
    }
}

fn id(position: u64) -> RecordId {
    RecordId::sequence(OUTBOX, &[], position)
}

/// Put a parcel behind the others, in the unit that encrypted it.
pub(crate) async fn keep(unit: &Unit, mut parcel: Parcel) -> Result<Parcel> {
    parcel.position = unit.next_sequence(OUTBOX, &[]).await?;
    unit.put(&id(parcel.position), &parcel)?;
    Ok(parcel)
}

/// Take a parcel out.
pub(crate) fn forget(unit: &Unit, position: u64) -> Result<()> {
    Ok(unit.delete(&id(position))?)
}

/// A parcel, if it is on the disk.
pub(super) async fn find(store: &PickleStore, position: u64) -> Result<Option<Parcel>> {
    Ok(store.record(&id(position)).await?)
}

/// All that an earlier process left: whose, where, and under which transaction id, in order.
pub(super) async fn left(store: &PickleStore) -> Result<Vec<(OwnedRoomId, u64, OwnedTransactionId)>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan(OUTBOX, &[], after.as_ref(), PAGE).await?;
        for record in &page {
            let parcel: Parcel = record.decode()?;
            found.push((parcel.room, parcel.position, parcel.transaction));
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.cursor),
            None => return Ok(found),
        }
    }
}

/// How many events wait in the outbox of a store whose device is not open.
pub(crate) async fn unsent(store: &PickleStore) -> Result<usize> {
    Ok(left(store).await?.len())
}

/// How an attempt to put a parcel ended.
pub(super) enum Attempt {
    /// The homeserver has it.
    Taken(OwnedEventId),
    /// It will not take it, whenever it is asked.
    Refused(RequestError),
    /// It may have it, or may take it later.
    Unknown(RequestError),
}

impl Orchestrator {
    /// Put a parcel: the same bytes under the same transaction id, whenever.
    pub(super) async fn put_parcel(&self, parcel: &Parcel) -> Attempt {
        let request = send_message_event::v3::Request::new_raw(
            parcel.room.clone(),
            parcel.transaction.clone(),
            "m.room.encrypted".into(),
            Raw::from_json(parcel.ciphertext.clone()),
        );
        match self.homeserver().send(request).await {
            Ok(answer) => Attempt::Taken(answer.event_id),
            Err(error) if is_final(&error) => Attempt::Refused(error),
            Err(error) => Attempt::Unknown(error),
        }
    }

    /// Take a parcel out that was sent and that nobody waits for any more: the app is told, once.
    pub(super) async fn tell_sent(&self, position: u64, sent: Sent) -> Result<()> {
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    let is_news = unit.get::<Parcel>(&id(position)).await?.is_some();
                    if is_news {
                        forget(unit, position)?;
                        inbox::append(unit, &[Event::Sent(sent)]).await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Take a parcel out that was refused for good. Where nobody waits for it any more, the app is told.
    pub(super) async fn give_up(&self, parcel: Parcel, error: &RequestError, tell: bool) -> Result<()> {
        let (code, errcode) = match error {
            RequestError::Api { status, errcode, .. } => (status.as_u16(), errcode.clone()),
            _ => (0, None),
        };
        tracing::warn!(transaction = %parcel.transaction, room = %parcel.room, code, "the homeserver refuses an event of the outbox for good");
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    forget(unit, parcel.position)?;
                    if tell {
                        let refused = Event::SendRefused(SendRefused {
                            room_id: parcel.room,
                            transaction_id: parcel.transaction,
                            status: code,
                            errcode,
                        });
                        inbox::append(unit, &[refused]).await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// The homeserver understood, and will not take this event whenever we ask. What a proxy says is not its answer, except
/// for a body that is too large for it.
fn is_final(error: &RequestError) -> bool {
    let RequestError::Api { status, errcode, .. } = error else {
        return false;
    };
    let passes = matches!(
        errcode.as_deref(),
        Some("M_RESOURCE_LIMIT_EXCEEDED" | "M_CONSENT_NOT_GIVEN")
    );
    let is_refusal = status.is_client_error() && !matches!(status.as_u16(), 401 | 408 | 429);
    is_refusal && !passes && (errcode.is_some() || status.as_u16() == 413)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_homeserver_itself_refuses_for_good() {
        let refusal = |status: u16, errcode: Option<&str>| {
            is_final(&RequestError::Api {
                endpoint: "/send",
                status: status.try_into().unwrap(),
                errcode: errcode.map(str::to_owned),
                message: String::new(),
                retry_after: None,
            })
        };
        assert!(refusal(403, Some("M_FORBIDDEN")) && refusal(400, Some("M_BAD_JSON")) && refusal(413, None));
        assert!(!refusal(403, None), "a firewall");
        assert!(!refusal(404, None), "a proxy without a homeserver");
        assert!(!refusal(403, Some("M_RESOURCE_LIMIT_EXCEEDED")), "it passes");
        assert!(!refusal(401, Some("M_MISSING_TOKEN")) && !refusal(429, Some("M_LIMIT_EXCEEDED")));
        assert!(!refusal(502, Some("M_UNKNOWN")));
    }
}
