//! Bringing a room's key to its readers, all of them before the event.
//!
//! The engine makes requests of at most 250 messages each and keeps them with the room's key: what a failure or a crash
//! leaves is put by the next send, with the same bytes and transaction ids, and nothing of the rest twice.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use matrix_sdk_crypto::{
    OlmMachine,
    store::types::Changes,
    types::requests::{AnyIncomingResponse, ToDeviceRequest},
};
use mx_transport::RequestError;
use ruma::{OwnedTransactionId, RoomId, api::client::to_device::send_event_to_device};

use super::share::Shared;
use crate::{Error, Orchestrator, ProgressStep, Result, machine::Ending, outgoing};

/// How many requests are under way at once.
const AT_ONCE: usize = 8;

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
        let devices: usize = requests.iter().map(|request| messages(request)).sum();
        let progress = |done| self.progress_at(room, ProgressStep::Keys, done, devices);
        let (mut delivered, mut reached, mut failure) = (0, 0, None);
        progress(0);
        let sizes: BTreeMap<_, _> = requests
            .iter()
            .map(|request| (request.txn_id.clone(), messages(request)))
            .collect();
        // What has come meanwhile is marked together. The others go on when one fails: what is delivered is delivered.
        let mut answers = stream::iter(requests.iter().cloned())
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
                    Err(error) => failure = worse(failure, error),
                }
            }
            delivered += marked.len();
            reached += marked.iter().filter_map(|(id, _)| sizes.get(id)).sum::<usize>();
            self.mark_delivered(room, marked).await?;
            progress(reached);
        }
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
