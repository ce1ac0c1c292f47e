//! Bringing a room's key to its readers, all of them before the event.
//!
//! The engine makes requests of at most 250 messages each and keeps them with the room's key: what a failure or a crash
//! leaves is put by the next send, with the same bytes and transaction ids, and nothing of the rest twice.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, stream};
use matrix_sdk_crypto::{
    OlmMachine,
    store::types::Changes,
    types::requests::{AnyIncomingResponse, ToDeviceRequest},
};
use mx_transport::RequestError;
use ruma::{OwnedTransactionId, RoomId, api::client::to_device::send_event_to_device, events::ToDeviceEventType};

use super::share::Shared;
use crate::{Error, Orchestrator, ProgressStep, Result, machine::Ending, outgoing};

/// How many requests are under way at once.
const AT_ONCE: usize = 8;

/// How far the delivery of a key has come.
#[derive(Default)]
struct Delivery {
    /// How many requests.
    delivered: usize,
    /// How many devices.
    reached: usize,
    /// Of so many.
    devices: usize,
    failure: Option<RequestError>,
}

type Delivered = (OwnedTransactionId, send_event_to_device::v3::Response);

impl Orchestrator {
    /// Put every part of the room key that is not delivered yet. All of them, or the event is not sent.
    ///
    /// # Errors
    /// [`Error::KeyShareIncomplete`]; of the store.
    pub(super) async fn deliver_keys(&self, room: &RoomId, shared: &Shared) -> Result<()> {
        let requests = &shared.requests;
        if requests.is_empty() {
            return Ok(());
        }
        let mut delivery = Delivery {
            devices: requests.iter().map(|request| messages(request)).sum(),
            ..Delivery::default()
        };
        self.progress_at(room, ProgressStep::Keys, 0, delivery.devices);
        // A device that was told that it gets no key may be given it now. The engine believes what it hears last: first what
        // is withheld, all of it.
        let (withheld, keys): (Vec<_>, Vec<_>) = requests
            .iter()
            .cloned()
            .partition(|request| request.event_type == ToDeviceEventType::RoomKeyWithheld);
        for requests in [withheld, keys] {
            if delivery.failure.is_none() {
                self.deliver(room, requests, &mut delivery).await?;
            }
        }
        let Delivery { delivered, failure, .. } = delivery;
        match failure {
            None => Ok(()),
            Some(source) => Err(Error::KeyShareIncomplete {
                room: room.to_owned(),
                delivered,
                outstanding: requests.len() - delivered,
                source: Box::new(source),
            }),
        }
    }

    /// Put these, a few at once, in any order. The others go on when one fails: what is delivered is delivered.
    async fn deliver(&self, room: &RoomId, requests: Vec<Arc<ToDeviceRequest>>, delivery: &mut Delivery) -> Result<()> {
        let sizes: BTreeMap<_, _> = requests
            .iter()
            .map(|request| (request.txn_id.clone(), messages(request)))
            .collect();
        // What has come meanwhile is marked together.
        let mut answers = stream::iter(requests)
            .map(|request| async move {
                let answer = outgoing::to_device(self.homeserver(), &request).await;
                answer.map(|answer| (request.txn_id.clone(), answer))
            })
            .buffer_unordered(AT_ONCE)
            .ready_chunks(AT_ONCE);
        while let Some(answers) = answers.next().await {
            let mut marked = Vec::new();
            for answer in answers {
                match answer {
                    Ok(answer) => marked.push(answer),
                    Err(error) => delivery.failure = worse(delivery.failure.take(), error),
                }
            }
            delivery.delivered += marked.len();
            delivery.reached += marked.iter().filter_map(|(id, _)| sizes.get(id)).sum::<usize>();
            self.mark_delivered(room, marked).await?;
            self.progress_at(room, ProgressStep::Keys, delivery.reached, delivery.devices);
        }
        Ok(())
    }

    /// Tell the engine what was delivered: one unit of work.
    async fn mark_delivered(&self, room: &RoomId, delivered: Vec<Delivered>) -> Result<()> {
        if delivered.is_empty() {
            return Ok(());
        }
        let room = room.to_owned();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    for (id, answer) in &delivered {
                        let answer = AnyIncomingResponse::ToDevice(answer);
                        Box::pin(machine.mark_request_as_sent(id, answer)).await?;
                    }
                    mark_unknown(machine, &room, &delivered).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// A machine that was built again since the key was shared does not know whose requests these are, and passes them over
/// in silence: they are marked in the room's key itself.
async fn mark_unknown(machine: &OlmMachine, room: &RoomId, delivered: &[Delivered]) -> Result<()> {
    let Some(session) = machine.store().get_outbound_group_session(room).await? else {
        return Ok(());
    };
    let waiting = session.pickle().await.requests;
    let left = delivered.iter().filter(|(id, _)| waiting.contains_key(id));
    let mut marked = false;
    for (id, _) in left {
        let _told_again = session.mark_request_as_sent(id);
        marked = true;
    }
    if marked {
        let changes = Changes {
            outbound_group_sessions: vec![session],
            ..Changes::default()
        };
        machine.store().save_changes(changes).await?;
    }
    Ok(())
}

fn messages(request: &ToDeviceRequest) -> usize {
    request.messages.values().map(BTreeMap::len).sum()
}

/// Of several failures, the one that will not pass by itself.
fn worse(known: Option<RequestError>, error: RequestError) -> Option<RequestError> {
    match (known, &error) {
        (Some(known), RequestError::Transport(_)) => Some(known),
        _ => Some(error),
    }
}
