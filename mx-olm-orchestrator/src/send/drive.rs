//! Driving a lane: the next step for all that are in it, whoever takes it.

use std::{sync::Arc, time::Duration};

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::Unit;
use mx_transport::RequestError;
use ruma::{OwnedTransactionId, RoomId, TransactionId};
use tokio::{sync::oneshot, time::Instant};

use super::{
    SendReceipt,
    failure::{again, fail, tell},
    lane::{Batch, Lane, Next, OnItsWay, Sealed},
    outbox::{self, Attempt, Parcel},
    policy::Care,
    rotation::spent,
    steady::{Ready, Stamp},
};
use crate::{
    Error, Orchestrator, Result, Sent,
    machine::Ending,
    rooms::{MEGOLM, RoomRecord},
};

/// Whom a message is for is found out again while it changes, and the key is shared again where it expires before its
/// use; more often than this means that the homeserver leads us in a circle, or that a clock is broken.
const MAX_ROUNDS: usize = 5;

/// A sync does not try again sooner what the homeserver did not confirm.
const PAUSE: Duration = Duration::from_secs(30);

/// What became of the first event of a lane.
pub(super) enum Put {
    Taken,
    Refused,
    /// It stays, and everything behind it.
    Stays(Error),
}

impl Orchestrator {
    /// Take steps in a lane until `ended` says how one's own event ended.
    ///
    /// # Errors
    /// What stopped one's own event before it was encrypted; of the store.
    pub(super) async fn drive(
        &self,
        lane: &Arc<Lane>,
        ready: &mut Option<Arc<Ready>>,
        ended: &mut oneshot::Receiver<Result<SendReceipt>>,
    ) -> Result<SendReceipt> {
        self.take_over(lane).await?;
        loop {
            match ended.try_recv() {
                Ok(ended) => return ended,
                // Nobody is left who could tell.
                Err(oneshot::error::TryRecvError::Closed) => return Err(Error::EngineStopped),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            match lane.next() {
                Some(Next::Encrypt) => {
                    let encrypted = self.encrypt_next(lane, ready).await;
                    let unheard = encrypted.err().and_then(|error| fail(lane, error));
                    lane.put_back();
                    if let Some(error) = unheard {
                        return Err(error);
                    }
                }
                Some(Next::Put(number, event)) => drop(self.put_next(lane, number, event).await?),
                None => return Err(Error::EngineStopped),
            }
        }
    }

    /// Go on where another call was dropped: what it was encrypting is encrypted, or waits.
    async fn take_over(&self, lane: &Lane) -> Result<()> {
        if lane.is_taken() {
            // Units run one after the other: that one has ended when this one has.
            self.machine()
                .unit(|_, _| Box::pin(async { Ok(Ending::Commit(())) }))
                .await?;
            lane.put_back();
        }
        Ok(())
    }

    /// Put what is on its way in a lane. How many were taken.
    pub(super) async fn clear(&self, lane: &Arc<Lane>) -> Result<usize> {
        self.take_over(lane).await?;
        let mut taken = 0;
        while let Some(Next::Put(number, event)) = lane.next() {
            match self.put_next(lane, number, event).await? {
                Put::Taken => taken += 1,
                Put::Refused => {}
                Put::Stays(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Know what is new, and whether a copy of this device has sent to the room meanwhile.
    async fn catch_up_for(&self, lane: &Lane) -> Result<()> {
        self.catch_up().await?;
        let synced = self.synced().last();
        if !lane.was_looked_at(synced) {
            self.look_for_copies(&lane.room).await?;
            lane.looked_at(synced);
        }
        Ok(())
    }

    /// Encrypt what waits: whom it is for is found out first, unless that is known and has not changed.
    async fn encrypt_next(&self, lane: &Arc<Lane>, known: &mut Option<Arc<Ready>>) -> Result<()> {
        let caught_up = Box::pin(self.catch_up_for(lane)).await;
        // Also when that failed: they all hear of it.
        let Some(batch) = lane.batch().map(Arc::new) else {
            return caught_up;
        };
        caught_up?;
        let mut found: Option<Arc<Ready>> = None;
        let mut overtaken = false;
        for round in 1..=MAX_ROUNDS {
            let now = self.stamp(&lane.room).await;
            let steady = known.take().filter(|ready| self.is_steady(ready, batch.care, now));
            let ready = match steady {
                Some(ready) => ready,
                None => {
                    let ready = self.find_ready(&lane.room, batch.care, now, found.as_deref()).await?;
                    overtaken = ready.is_none();
                    let Some(ready) = ready else { continue };
                    Arc::clone(found.insert(Arc::new(ready)))
                }
            };
            let sealed = Sealed {
                ready: Arc::clone(&ready),
                stamp: now,
            };
            // It may be another one than when the readers were found: then they are found again.
            drop(self.manifest().await?);
            let last_round = round == MAX_ROUNDS;
            if let Some(parcels) = self.encrypt(lane, Arc::clone(&batch), sealed, last_round).await? {
                lane.durable(parcels);
                *known = Some(ready);
                return Ok(());
            }
        }
        if overtaken {
            return Err(Error::MembersIncomplete {
                room: lane.room.clone(),
                reason: "members or their devices change faster than they can be given a key",
                source: None,
            });
        }
        Err(Error::Engine {
            reason:
                "the room key expires, or the room changes, before the key can be used: try again, and check the clock"
                    .to_owned(),
        })
    }

    /// Find out whom a message is for, and give them the room's key. `None`: a sync has overtaken what was found.
    async fn find_ready(&self, room: &RoomId, care: Care, now: Stamp, before: Option<&Ready>) -> Result<Option<Ready>> {
        let encryption = self.room_encryption(room).await?;
        if encryption.algorithm != MEGOLM {
            return Err(Error::UnsupportedAlgorithm {
                room: room.to_owned(),
                algorithm: encryption.algorithm,
            });
        }
        if !care.into_tombstoned {
            self.refuse_tombstoned(room).await?;
        }
        let policy = self.policy(room, care.recipients).await?;
        let readers = self.readers(room, &policy).await?;
        let Some(shared) = self.share(room, &readers, &policy).await? else {
            return Ok(None);
        };
        if shared.rotation.is_some() {
            // Our own devices shall read what we say, too.
            self.backup_pace().is_due();
        }
        self.deliver_keys(room, &shared).await?;
        Ok(Some(Ready::new(care, readers, shared, now, before)))
    }

    /// Encrypt a batch into the outbox: one unit, in which nothing else can change. `None`: whom it is for may have
    /// changed, or the key may not be used any more.
    async fn encrypt(
        &self,
        lane: &Arc<Lane>,
        batch: Arc<Batch>,
        mut sealed: Sealed,
        last_round: bool,
    ) -> Result<Option<Vec<(u64, Parcel)>>> {
        let (this, lane) = (self.clone(), Arc::clone(lane));
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let now = this.stamp(&lane.room).await;
                    let is_so = if last_round {
                        // Something always changes. What this room's readers hang on did not.
                        let record = RoomRecord::load(unit, &lane.room).await?;
                        sealed.stamp.has_the_readers_of(now) && sealed.ready.is_of(&record)
                    } else {
                        sealed.stamp.is_as(now)
                    };
                    if !is_so {
                        return Ok(Ending::Commit(None));
                    }
                    sealed.stamp = now;
                    let parcels = encrypt_all(
                        machine,
                        unit,
                        (&lane.room, sealed.ready.record()),
                        &batch,
                        this.now_ms(),
                    )
                    .await?;
                    if parcels.is_empty() {
                        return Ok(Ending::Commit(None));
                    }
                    lane.encrypted(&parcels, &sealed);
                    Ok(Ending::Commit(Some(parcels)))
                })
            })
            .await
    }

    /// Put the first event of a lane.
    async fn put_next(&self, lane: &Arc<Lane>, number: u64, event: OnItsWay) -> Result<Put> {
        if let Some(sealed) = &event.sealed
            && !sealed.stamp.is_as(self.stamp(&lane.room).await)
            && lane.may_be_withdrawn(number)
            && self.withdraw(lane, number).await? > 0
        {
            // Somebody came, went, or has another device, and it was never on the wire: once more, for whom it is now.
            return Ok(Put::Refused);
        }
        let parcel = match event.parcel {
            Some(parcel) => parcel,
            None => match self.parcel_on_disk(event.position).await? {
                Some(parcel) => parcel,
                None => {
                    lane.take(number);
                    return Ok(Put::Refused);
                }
            },
        };
        lane.attempt(number);
        match self.put_parcel(&parcel).await {
            Attempt::Taken(event_id) => {
                if !lane.is_awaited(number) {
                    let sent = Sent {
                        room_id: parcel.room,
                        event_id,
                        transaction_id: parcel.transaction,
                        session_id: parcel.session,
                        readable_by: event.sealed.map(|sealed| sealed.ready.readable_by()),
                    };
                    self.tell_sent(parcel.position, sent).await?;
                    lane.take(number);
                    return Ok(Put::Taken);
                }
                self.machine().forget_soon(parcel.position);
                if let (Some(done), Some(sealed)) = (lane.take(number), event.sealed) {
                    let (receipt, news) = sealed.ready.receipt(parcel, event_id);
                    if done.send(Ok(receipt)).is_ok() && news {
                        // Only what somebody was told is not new any more.
                        sealed.ready.was_told();
                        self.note_audience(&lane.room, sealed.ready.audience()).await;
                    }
                }
                Ok(Put::Taken)
            }
            Attempt::Refused(error) => {
                let is_awaited = lane.is_awaited(number);
                self.give_up(parcel, &error, !is_awaited).await?;
                if let Some(done) = lane.take(number) {
                    tell(done, Err(error.into()));
                }
                Ok(Put::Refused)
            }
            Attempt::Unknown(error) => self.stay(lane, number, event.transaction, error).await,
        }
    }

    /// The first event of a lane is not confirmed: it stays, and what is behind it is sent away instead of trying one
    /// after the other in vain.
    async fn stay(
        &self,
        lane: &Arc<Lane>,
        number: u64,
        transaction_id: OwnedTransactionId,
        error: RequestError,
    ) -> Result<Put> {
        self.withdraw(lane, number + 1).await?;
        for done in lane.dismiss() {
            let earlier = Error::EarlierSendPending {
                transaction_id: transaction_id.clone(),
                source: again(&error),
            };
            tell(done, Err(earlier));
        }
        let pending = |source| Error::SendPending {
            transaction_id: transaction_id.clone(),
            source,
        };
        if let Some(done) = lane.leave(number, Instant::now() + PAUSE) {
            tell(done, Err(pending(again(&error))));
        }
        Ok(Put::Stays(pending(error)))
    }

    /// Take out of the outbox what was never on the wire, from `number` on: it waits to be encrypted again. How many.
    async fn withdraw(&self, lane: &Arc<Lane>, number: u64) -> Result<usize> {
        let events = lane.not_attempted(number);
        if events.is_empty() {
            return Ok(0);
        }
        let lane = Arc::clone(lane);
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    // Whoever asked for this may be gone, and another one may have put some of them meanwhile.
                    let withdrawn = lane.wait_again(&events);
                    for position in &withdrawn {
                        outbox::forget(unit, *position)?;
                    }
                    Ok(Ending::Commit(withdrawn.len()))
                })
            })
            .await
    }

    /// A parcel that another call, or another process, wrote: on the disk, or nowhere.
    async fn parcel_on_disk(&self, position: u64) -> Result<Option<Parcel>> {
        // Its unit may still be on the way there: it is there when a unit after it is.
        self.machine()
            .unit(move |_, _| Box::pin(async { Ok(Ending::Commit(())) }))
            .await?;
        outbox::find(self.store(), position).await
    }
}

/// Encrypt as many of a batch as the room's key may be used for.
async fn encrypt_all(
    machine: &OlmMachine,
    unit: &Unit,
    (room, record): (&RoomId, &RoomRecord),
    batch: &Batch,
    now_ms: u64,
) -> Result<Vec<(u64, Parcel)>> {
    // The engine panics where it meets a key that is missing or expired: look first.
    let Some(session) = machine.store().get_outbound_group_session(room).await? else {
        return Ok(Vec::new());
    };
    let Some(encryption) = &record.encryption else {
        return Ok(Vec::new());
    };
    let mut parcels = Vec::with_capacity(batch.events.len());
    for (number, event) in &batch.events {
        // The index of the next message is the number of those before it.
        let messages = u64::from(session.message_index().await);
        let is_spent = spent(record, encryption, session.session_id(), messages, now_ms).is_some();
        if is_spent || !session.shared() || session.expired() || session.invalidated() {
            break;
        }
        let encrypted = Box::pin(machine.encrypt_room_event_raw(room, &event.event_type, &event.content)).await?;
        let parcel = Parcel::new(
            room.to_owned(),
            TransactionId::new(),
            session.session_id().to_owned(),
            encrypted.content.into_json(),
        );
        parcels.push((*number, outbox::keep(unit, parcel).await?));
    }
    Ok(parcels)
}
