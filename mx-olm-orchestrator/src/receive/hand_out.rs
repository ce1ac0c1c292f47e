//! Giving what is in the inbox to the app: what it accepts is looked at once more.
//!
//! # Why
//! The inbox outlives the process that filled it, which may have accepted more than this one, or gone by no manifest. What
//! is not accepted waits, as if it came now. It keeps its plaintext: its place in its session is used, so that it cannot
//! be opened as a new message again.

use matrix_sdk_crypto::{MegolmError, OlmMachine};
use mx_crypto_store::Unit;

use super::{
    Context, Delivery, inbox, standing,
    undecryptable::{self, Waiting},
};
use crate::{Event, LostBecause, Message, Orchestrator, Rejected, RejectedReason, Result, Trust, machine::Ending};

impl Orchestrator {
    /// At most `limit` events that are not acknowledged, oldest first, after `after`. A message that
    /// [`Options::accept`](crate::Options::accept) does not take, and that was taken by a process that accepts more, is not
    /// among them: it waits as [`NotAccepted`](crate::UndecryptableReason::NotAccepted).
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let mut last = None;
    /// loop {
    ///     let page = device.inbox(last.as_ref(), 100).await?;
    ///     let Some(newest) = page.last().cloned() else { break };
    ///     println!("{} events that wait", page.len());
    ///     last = Some(newest);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    ///
    /// # Cancel safety
    /// Safe: what is not accepted is in the inbox, or waits.
    pub async fn inbox(&self, after: Option<&Delivery>, limit: usize) -> Result<Vec<Delivery>> {
        let mut after = after.map(|delivery| delivery.cursor.clone());
        loop {
            let page = inbox::waiting(self.store(), after.as_ref(), limit).await?;
            let context = self.context().await?;
            let Some(last) = page
                .last()
                .filter(|_| page.iter().any(|of| is_doubtful(&context, &of.event)))
            else {
                return Ok(page);
            };
            let (next, from) = (last.cursor.clone(), after.take());
            let given = self
                .machine()
                .unit(move |machine, unit| {
                    Box::pin(async move {
                        let page = inbox::page(unit, from.as_ref(), limit).await?;
                        Ok(Ending::Commit(give(machine, unit, &context, page).await?))
                    })
                })
                .await?;
            if !given.is_empty() {
                return Ok(given);
            }
            after = Some(next);
        }
    }
}

/// Whether it has to be looked at again before the app gets it.
fn is_doubtful(context: &Context, event: &Event) -> bool {
    let Event::Message(message) = event else { return false };
    if context.accept.takes_plaintext() {
        return false;
    }
    match &message.encryption {
        None => message.plaintext_in_encrypted_room,
        Some(encryption) => !context.accept.takes(encryption.trust) || is_listed(context, message),
    }
}

fn is_listed(context: &Context, message: &Message) -> bool {
    let manifest = context.manifest.as_ref();
    manifest.is_some_and(|manifest| manifest.users.contains_key(&message.sender))
}

/// What of a page is given to the app. The rest waits from here on.
async fn give(machine: &OlmMachine, unit: &Unit, context: &Context, page: Vec<Delivery>) -> Result<Vec<Delivery>> {
    let (mut given, mut lost) = (Vec::new(), Vec::new());
    for mut delivery in page {
        if is_doubtful(context, &delivery.event)
            && let Event::Message(message) = &mut delivery.event
        {
            match look_again(machine, unit, context, message).await? {
                Standing::Given => {}
                Standing::Plaintext => delivery.event = rejected(message),
                Standing::Waits(trust) => {
                    lost.extend(hold(unit, context, message.clone(), trust).await?);
                    unit.delete_at(&delivery.cursor)?;
                    continue;
                }
            }
        }
        given.push(delivery);
    }
    inbox::append(unit, &lost).await?;
    Ok(given)
}

/// What becomes of a message that was taken before.
pub(super) enum Standing {
    /// It is given to the app, with how far its device is known now.
    Given,
    /// It is plaintext, and only messages of known devices are accepted.
    Plaintext,
    /// It waits for its sender to be accepted.
    Waits(Trust),
}

/// How a message stands that was taken before: own ones are exempt, as when they come.
pub(super) async fn look_again(
    machine: &OlmMachine,
    unit: &Unit,
    context: &Context,
    message: &mut Message,
) -> Result<Standing> {
    let Some(encryption) = &mut message.encryption else {
        return Ok(Standing::Plaintext);
    };
    let was_accepted = context.accept.takes(encryption.trust);
    let info = machine
        .get_session_encryption_info(&message.room_id, &encryption.session_id, &message.sender)
        .await;
    let info = match info {
        Ok(info) => info,
        // Nobody can say any more who made it.
        Err(MegolmError::MissingRoomKey(_)) if was_accepted => return Ok(Standing::Given),
        Err(MegolmError::MissingRoomKey(_)) => return Ok(Standing::Waits(encryption.trust)),
        Err(error) => return Err(error.into()),
    };
    if standing::is_own(machine, &message.sender, &info) {
        return Ok(Standing::Given);
    }
    let trust = standing::standing(machine, unit, &context.manifest, &message.sender, &info).await?;
    if context.accept.takes(trust) {
        encryption.trust = trust;
        return Ok(Standing::Given);
    }
    // It was genuine when it came: what its sender did with the device since does not undo that.
    if was_accepted && trust != Trust::NotListed {
        return Ok(Standing::Given);
    }
    Ok(Standing::Waits(trust))
}

fn rejected(message: &Message) -> Event {
    Event::Rejected(Rejected {
        room_id: message.room_id.clone(),
        event_id: message.event_id.clone(),
        sender: message.sender.clone(),
        reason: RejectedReason::Plaintext,
    })
}

/// Let a message wait for its sender to be accepted. Returns what had to go for it.
async fn hold(unit: &Unit, context: &Context, message: Message, trust: Trust) -> Result<Vec<Event>> {
    let report_at_ms = context.now_ms.saturating_add(context.report_after_ms);
    let waiting = Waiting::opened(message, trust, context.now_ms);
    let gone = undecryptable::keep_opened(unit, waiting, report_at_ms, context.most_waiting).await?;
    Ok(gone.into_iter().map(|gone| gone.lost(LostBecause::TooMany)).collect())
}
