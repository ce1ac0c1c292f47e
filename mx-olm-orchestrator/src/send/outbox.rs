//! Encrypted events on their way: on the disk before they are put, gone from it when the homeserver has them.

use mx_crypto_store::{Family, RecordId, Unit};
use mx_transport::RequestError;
use ruma::{OwnedEventId, OwnedRoomId, OwnedTransactionId, api::client::message::send_message_event, serde::Raw};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Error, Orchestrator, Result, machine::Ending};

const OUTBOX: Family = Family::guarded("outbox");

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
    position: u64,
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

/// Put a parcel behind the others, in the unit that encrypted it.
pub(crate) async fn keep(unit: &Unit, mut parcel: Parcel) -> Result<Parcel> {
    parcel.position = unit.next_sequence(OUTBOX, &[]).await?;
    unit.put(&RecordId::sequence(OUTBOX, &[], parcel.position), &parcel)?;
    Ok(parcel)
}

impl Orchestrator {
    /// Send what an earlier call, or an earlier process, encrypted and could not confirm.
    ///
    /// # Errors
    /// [`Error::SendPending`] when the homeserver still does not confirm. Events that it refuses for good are dropped
    /// and reported in the log; the others go on.
    ///
    /// # Cancel safety
    /// Safe: a homeserver takes the same transaction id once.
    pub async fn flush_outbox(&self) -> Result<usize> {
        let _single_flight = self.outbox_lock().await;
        // A send that was dropped may still be encrypting: its parcel is on the disk when the units before this are.
        self.machine()
            .unit(|_, _| Box::pin(async { Ok(Ending::Commit(())) }))
            .await?;
        let mut sent = 0;
        loop {
            let page = self.store().scan(OUTBOX, &[], None, 64).await?;
            if page.is_empty() {
                return Ok(sent);
            }
            for record in page {
                let parcel: Parcel = record.decode()?;
                match self.put_parcel(&parcel).await {
                    Ok(_) => sent += 1,
                    Err(error @ Error::Request(RequestError::Api { .. })) => {
                        tracing::warn!(transaction = %parcel.transaction, code = error.code(), "the homeserver refuses an event of the outbox for good");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Put one parcel and take it out of the outbox. A refusal for good takes it out too.
    pub(crate) async fn put_parcel(&self, parcel: &Parcel) -> Result<OwnedEventId> {
        let request = send_message_event::v3::Request::new_raw(
            parcel.room.clone(),
            parcel.transaction.clone(),
            "m.room.encrypted".into(),
            Raw::from_json(parcel.ciphertext.clone()),
        );
        let answer = self.homeserver().send(request).await;
        if let Err(error) = &answer
            && !is_final(error)
        {
            return answer
                .map(|response| response.event_id)
                .map_err(|source| Error::SendPending {
                    transaction_id: parcel.transaction.clone(),
                    source,
                });
        }
        let position = parcel.position;
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.delete(&RecordId::sequence(OUTBOX, &[], position))?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        Ok(answer?.event_id)
    }
}

/// The homeserver understood, and will not take this event whenever we ask.
fn is_final(error: &RequestError) -> bool {
    matches!(error, RequestError::Api { status, .. }
        if status.is_client_error() && !matches!(status.as_u16(), 401 | 408 | 429))
}
