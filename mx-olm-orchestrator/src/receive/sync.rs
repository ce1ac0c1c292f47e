//! Asking the homeserver what is new: one exchange after the other, each taken as a whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Accept, Context, Scope, SyncSummary, filters::Messages, gaps::From, source::Asked, to_device::MAX_NAMED, waiting,
};
use crate::{Error, Orchestrator, Result, keys::Upkeep, machine::Ending, rollback, sync_response::SyncResponse};

/// A send trusts what syncs showed as long as one ended this recently,
const FRESH: Duration = Duration::from_secs(1);
/// or this recently while the next one is under way, which shows news at once.
const FRESH_WHILE_LISTENING: Duration = Duration::from_secs(90);

/// Whoever asked for messages this recently will ask again: then a send looks at them, too, so that they are asked for once.
const LISTENS: Duration = Duration::from_secs(600);

/// More pages of to-device events than this in a row are left to the next call.
const MAX_PAGES: usize = 50;

impl Orchestrator {
    /// Ask the homeserver what is new, waiting at most `timeout` for something, and take it: room keys, device lists,
    /// messages. The messages are in the [`inbox`](Self::inbox) afterwards. Where earlier calls failed, or the homeserver
    /// does not wait, a part of `timeout` passes before it is asked.
    ///
    /// # Errors
    /// [`Error::MalformedSync`]; of the request; of the store. Nothing is lost: the same answer is asked for again. Where the
    /// homeserver asked for a pause that is longer than `timeout`, what it said, without a request.
    ///
    /// # Cancel safety
    /// Safe: an answer is taken as a whole or not at all.
    pub async fn sync(&self, timeout: Duration) -> Result<SyncSummary> {
        let left = self.pace().wait(timeout).await?;
        let began = Instant::now();
        let synced = Box::pin(self.sync_and_keep(left, Messages::Wanted)).await;
        self.pace().note(timeout, began.elapsed(), &synced);
        let total = synced?;
        // Not while the lock is held: what goes into a room is sent like everything else.
        Box::pin(self.post_verifications()).await?;
        // What is left in the outbox is tried again; only the rooms that nobody sends to, and not while the lock is held.
        match self.flush_idle_rooms().await {
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => tracing::warn!(
                code = error.code(),
                "the outbox still holds an event: it is tried again"
            ),
            Ok(()) => {}
        }
        Ok(total)
    }

    async fn sync_and_keep(&self, timeout: Duration, messages: Messages) -> Result<SyncSummary> {
        let _single_flight = self.syncing().lock().await;
        let mut total = self.sync_page(timeout, messages).await?.told();
        for _ in 1..MAX_PAGES {
            if !total.more_waiting {
                break;
            }
            let page = self.sync_page(Duration::ZERO, messages).await?;
            total.add(page.told());
        }
        self.synced().note(messages);
        // Keys are topped up, devices asked about, broken sessions renewed; what fails now is tried again with the next
        // sync.
        let upkeep = match self.keep_keys(Upkeep::Everything).await {
            Ok(()) => match self.unwedge().await {
                Ok(()) => Box::pin(self.tend_verifications()).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let upkeep = match upkeep {
            Ok(()) => self.tend_backup(total.room_keys).await,
            Err(error) => Err(error),
        };
        let upkeep = match upkeep {
            Ok(()) => self.tend_histories().await,
            Err(error) => Err(error),
        };
        let upkeep = match upkeep {
            Ok(()) => self.tend_dehydrated_device().await,
            Err(error) => Err(error),
        };
        if let Err(error) = upkeep {
            if error.ends_receiving() {
                return Err(error);
            }
            tracing::warn!(
                code = error.code(),
                "upkeep of keys failed: it is tried again with the next sync"
            );
        }
        Ok(total)
    }

    /// What comes is put into the backup, and what is missing looked for there.
    async fn tend_backup(&self, room_keys: usize) -> Result<()> {
        if room_keys > 0 {
            self.backup_pace().is_due();
        }
        self.take_given_backup_key().await?;
        self.back_up_some().await?;
        self.fetch_waiting_keys().await?;
        if self.options().accept != Accept::Everybody && !waiting::none(self.store()).await? {
            // Who was not accepted may be by now.
            self.retry_waiting().await?;
        }
        Ok(())
    }

    async fn sync_page(&self, timeout: Duration, messages: Messages) -> Result<SyncSummary> {
        let Asked {
            mut sync,
            scope,
            since,
            floor,
            first_sync,
            nothing_new,
        } = self.ask_for_news(timeout, messages).await?;
        let messages = scope.messages();
        self.note_fallback_keys(sync.unused_fallback_keys.as_deref());
        Box::pin(self.know_verifiers(&sync.to_device)).await;
        let from = From {
            since: floor.as_deref(),
            first_sync,
            messages,
        };
        let gaps = self.fill_gaps(&mut sync, &from).await?;
        let device_lists = match (sync.device_lists.take(), &since) {
            (Some(lists), _) => Some(lists),
            (None, Some(since)) => self.device_changes(since, &sync.next_batch).await,
            (None, None) => None,
        };
        let context = Context {
            first_sync,
            scope,
            gaps,
            device_lists,
            ..self.context().await?
        };
        let (sync, context) = (Arc::new(sync), Arc::new(context));
        if let Some(summary) = self.take(Arc::clone(&sync), Arc::clone(&context)).await? {
            return Ok(summary.noting(nothing_new));
        }
        let one_by_one = Context {
            one_by_one: true,
            ..Context::clone(&context)
        };
        let taken = self.take(sync, Arc::new(one_by_one)).await?;
        let summary = taken.ok_or(Error::EngineStopped)?;
        Ok(summary.noting(nothing_new))
    }

    /// Take an answer to `/sync` in one unit of work. `None`: nothing was taken, it has to go one by one.
    async fn take(&self, sync: Arc<SyncResponse>, context: Arc<Context>) -> Result<Option<SyncSummary>> {
        let members = Arc::clone(self.members());
        let store = self.store().clone();
        let taken = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let sync = SyncResponse::clone(&sync);
                    let Some(mut taken) = Box::pin(super::take(machine, unit, &store, sync, &context)).await? else {
                        return Ok(Ending::Undo(None));
                    };
                    if rollback::is_silent(unit).await? {
                        // It may be this very sync that shows it.
                        taken.forwarded.clear();
                    }
                    // Before the commit, and on this task: a caller who goes away must not leave a list out of date,
                    // and what a homeserver showed is true whether our disk has it or not.
                    members.follow(taken.members).await;
                    let (summary, looked, forwarded) = (taken.summary, taken.looked, taken.forwarded);
                    Ok(if taken.rebuild {
                        Ending::CommitAndRebuild(Some((summary, looked, forwarded)))
                    } else {
                        Ending::Commit(Some((summary, looked, forwarded)))
                    })
                })
            })
            .await?;
        Ok(taken.map(|(summary, looked, forwarded)| {
            self.verification().forward(forwarded);
            if let Some(looked) = looked {
                self.verification().show(looked);
            }
            summary
        }))
    }

    /// How long ago the last sync ended that worked, whatever it brought. `None`: none did since this device was opened.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) {
    /// use std::time::Duration;
    ///
    /// // For a health check of a program that receives: a long poll takes half a minute.
    /// let is_alive = device.since_last_sync().is_some_and(|since| since < Duration::from_secs(120));
    /// println!("{}", if is_alive { "ok" } else { "nothing was heard of the homeserver" });
    /// # }
    /// ```
    #[must_use]
    pub fn since_last_sync(&self) -> Option<Duration> {
        self.synced().last().map(|at| at.elapsed())
    }

    /// What the work of receiving is told about this device. An error where the trust manifest cannot be read.
    pub(crate) async fn context(&self) -> Result<Context> {
        Ok(Context {
            user: self.user_id().to_owned(),
            now_ms: self.now_ms(),
            first_sync: false,
            first_timeline: usize::try_from(self.options().first_timeline).unwrap_or(usize::MAX),
            scope: Scope::Everything,
            report_after_ms: u64::try_from(self.options().undecryptable_after.as_millis()).unwrap_or(u64::MAX),
            deliver_own: self.options().deliver_own,
            memberships: self.options().memberships,
            gaps: Vec::new(),
            one_by_one: false,
            most_waiting: self.options().most_waiting,
            accept: self.options().accept,
            manifest: self.manifest().await?,
            device_lists: None,
            verifications: Arc::clone(self.verification()),
            key_requests: self.options().key_requests.clone(),
            accept_history: self.options().accept_history,
        })
    }

    /// Sync once without waiting, unless what is known is fresh: who came, went, or has a new device is looked at before
    /// a key is shared. Messages are left where they are, unless somebody listens.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        // Of many rooms that begin to send at once, one asks: the others find it fresh.
        let _turn = self.synced().asking.lock().await;
        let listening = self.syncing().try_lock().is_err();
        let limit = if listening { FRESH_WHILE_LISTENING } else { FRESH };
        if !self.synced().within(limit) {
            let messages = if self.synced().listened_within(LISTENS) {
                Messages::Wanted
            } else {
                Messages::Left
            };
            // Without looking at the outbox: a room that waits there is not waited for by another.
            self.sync_and_keep(Duration::ZERO, messages).await?;
        }
        Ok(())
    }
}

/// When syncs ended.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    ends: Mutex<Ends>,
    /// Held by who syncs before it sends.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Ends {
    last: Option<Instant>,
    /// The last one that the app asked for.
    listened: Option<Instant>,
}

impl Synced {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, messages: Messages) {
        let mut ends = self.ends();
        ends.last = Some(Instant::now());
        if messages == Messages::Wanted {
            ends.listened = ends.last;
        }
    }

    /// When the last one ended.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.ends().last
    }

    fn within(&self, limit: Duration) -> bool {
        self.last().is_some_and(|at| at.elapsed() <= limit)
    }

    fn listened_within(&self, limit: Duration) -> bool {
        self.ends().listened.is_some_and(|at| at.elapsed() <= limit)
    }
}

impl SyncSummary {
    fn noting(mut self, nothing_new: bool) -> Self {
        self.nothing_new |= nothing_new;
        self
    }

    /// What a homeserver gave and we could not use is in the log, too.
    fn told(self) -> Self {
        if self.to_device_rejected > 0 {
            let count = self.to_device_rejected;
            let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
            for rejected in &self.rejected {
                *reasons.entry(rejected.reason.code()).or_default() += 1;
            }
            tracing::warn!(
                count,
                ?reasons,
                "to-device events had no effect: room keys may be missing"
            );
        }
        if !self.unreadable.is_empty() {
            tracing::warn!(parts = ?self.unreadable, "parts of a sync could not be read");
        }
        self
    }

    fn add(&mut self, page: Self) {
        self.events += page.events;
        self.room_keys += page.room_keys;
        self.to_device_rejected += page.to_device_rejected;
        self.rejected.extend(page.rejected);
        self.rejected.truncate(MAX_NAMED);
        self.to_device_custom += page.to_device_custom;
        self.waiting += page.waiting;
        self.before_this_device += page.before_this_device;
        self.unreadable.extend(page.unreadable);
        self.more_waiting = page.more_waiting;
        self.nothing_new &= page.nothing_new;
    }
}
