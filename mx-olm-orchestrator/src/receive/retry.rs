//! Trying again what waits, when keys came otherwise than through a sync: from an import, a backup, another device.

use mx_crypto_store::Cursor;

use super::{SyncSummary, inbox, timeline::Timelines, undecryptable};
use crate::{Event, Orchestrator, Result, UndecryptableReason, machine::Ending};

/// Events that are tried in one unit of work.
const PAGE: usize = 100;

impl Orchestrator {
    /// Try every event again that waits, for its key or for its sender to be accepted. What can be decrypted is in the
    /// [`inbox`](Self::inbox) afterwards. Returns how many messages that are. A sync does this by itself for the keys that
    /// it brings.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // A sender was verified by another program, and what waited for that is given out.
    /// if device.retry_waiting().await? > 0 {
    ///     for delivery in device.inbox(None, 100).await? {
    ///         println!("{:?}", delivery.event);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store. What was decrypted before it is kept.
    ///
    /// # Cancel safety
    /// Safe: each page of events is taken as a whole or not at all.
    pub async fn retry_waiting(&self) -> Result<usize> {
        self.retry(|_| true).await
    }

    /// The same, and what waits for its sender to be accepted is left alone: whoever brings keys may accept more than the
    /// app that it waits for.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, file: String) -> Result<(), mx_olm_orchestrator::Error> {
    /// // An operator's tool beside the app: it brings keys, and does not decide whom the app listens to.
    /// println!("{} messages can be read now", device.retry_for_keys().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`retry_waiting`](Self::retry_waiting).
    ///
    /// # Cancel safety
    /// As [`retry_waiting`](Self::retry_waiting).
    pub async fn retry_for_keys(&self) -> Result<usize> {
        self.retry(|reason| !matches!(reason, UndecryptableReason::NotAccepted { .. }))
            .await
    }

    async fn retry(&self, which: fn(&UndecryptableReason) -> bool) -> Result<usize> {
        let mut decrypted = 0;
        let mut after: Option<Cursor> = None;
        loop {
            let (from, context) = (after.take(), self.context().await?);
            let (opened, last) = self
                .machine()
                .unit(move |machine, unit| {
                    Box::pin(async move {
                        let (page, last) = undecryptable::page(unit, from.as_ref(), PAGE).await?;
                        let (mut summary, mut events) = (SyncSummary::default(), Vec::new());
                        let mut timelines = Timelines::new(machine, unit, &context, &mut summary, &mut events);
                        for waiting in page.into_iter().filter(|waiting| which(&waiting.report.reason)) {
                            timelines.retry_one(waiting).await?;
                        }
                        context.verifications.overhear(timelines.into_heard().1);
                        inbox::append(unit, &events).await?;
                        let messages = events.iter().filter(|event| matches!(event, Event::Message(_)));
                        Ok(Ending::Commit((messages.count(), last)))
                    })
                })
                .await?;
            decrypted += opened;
            let Some(last) = last else { return Ok(decrypted) };
            after = Some(last);
        }
    }
}
