//! What an app of this layer holds: one device, its homeserver and its store.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use mx_crypto_store::{Cursor, PickleStore};
use mx_transport::{Call, Homeserver};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::{
        filter::{FilterDefinition, LazyLoadOptions, RoomEventFilter},
        sync::sync_events,
    },
    presence::PresenceState,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use crate::{
    Clock, Delivery, Error, Result,
    claims::Backoff,
    keys::{Upkeep, pace::Pace},
    machine::{Ending, MachineSlot},
    members::MemberCache,
    receive::{self, Context, SyncSummary},
    sync_response::SyncResponse,
};

/// A send trusts what syncs showed as long as one ended this recently,
const FRESH: Duration = Duration::from_secs(1);
/// or this recently while the next one is under way, which shows news at once.
const FRESH_WHILE_LISTENING: Duration = Duration::from_secs(90);

/// More pages of to-device events than this in a row are left to the next call.
const MAX_PAGES: usize = 50;

/// How long an exchange may take beyond the time that the homeserver was asked to wait.
const SYNC_GRACE: Duration = Duration::from_secs(30);

/// How one device behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long an event may wait for its key before it is reported as undecryptable. Default: one minute.
    pub undecryptable_after: Duration,
    /// Deliver what this very device sent, too. Default: no.
    pub deliver_own: bool,
    /// How many events are kept that wait for their keys. When there are more, the oldest is reported as lost. Default:
    /// 10,000.
    pub most_waiting: usize,
    /// How many events of each room the first sync of a device looks at. Default: 20.
    pub first_timeline: u32,
    /// Where the time is read.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            undecryptable_after: Duration::from_secs(60),
            deliver_own: false,
            most_waiting: 10_000,
            first_timeline: 20,
            clock: Clock::system(),
        }
    }
}

/// One device. Cheap to clone; all clones are the same device.
#[derive(Clone, Debug)]
pub struct Orchestrator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    homeserver: Homeserver,
    store: PickleStore,
    machine: Arc<MachineSlot>,
    user: OwnedUserId,
    device: OwnedDeviceId,
    options: Options,
    members: Arc<MemberCache>,
    /// When the last sync ended. Held while one is under way.
    synced: Mutex<()>,
    synced_at: std::sync::Mutex<Option<Instant>>,
    upkeep: Mutex<()>,
    claim: Mutex<()>,
    claim_backoff: std::sync::Mutex<Backoff>,
    pace: std::sync::Mutex<Pace>,
    fallback_used: AtomicBool,
    outbox: Mutex<()>,
    rooms: Mutex<HashMap<OwnedRoomId, Arc<Mutex<()>>>>,
}

impl Orchestrator {
    /// Open the device whose store this is, or mint it in an empty store. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::StoreOfAnotherDevice`]; of the store.
    pub async fn open(
        homeserver: Homeserver,
        store: PickleStore,
        user: &UserId,
        device: &DeviceId,
        options: Options,
    ) -> Result<Self> {
        let machine = MachineSlot::open(store.clone(), user.to_owned(), device.to_owned()).await?;
        Ok(Self(Arc::new(Inner {
            homeserver,
            store,
            machine,
            user: user.to_owned(),
            device: device.to_owned(),
            options,
            members: Arc::default(),
            synced: Mutex::default(),
            synced_at: std::sync::Mutex::default(),
            upkeep: Mutex::default(),
            claim: Mutex::default(),
            claim_backoff: std::sync::Mutex::default(),
            pace: std::sync::Mutex::default(),
            fallback_used: AtomicBool::default(),
            outbox: Mutex::default(),
            rooms: Mutex::default(),
        })))
    }

    /// Whose device this is.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.0.user
    }

    /// Which device this is.
    #[must_use]
    pub fn device_id(&self) -> &DeviceId {
        &self.0.device
    }

    /// The homeserver, for requests that are not about encryption.
    #[must_use]
    pub fn homeserver(&self) -> &Homeserver {
        &self.0.homeserver
    }

    /// The store, for what this layer does not show.
    #[must_use]
    pub fn store(&self) -> &PickleStore {
        &self.0.store
    }

    /// Ask the homeserver what is new, waiting at most `timeout` for something, and take it: room keys, device lists,
    /// messages. The messages are in the [`inbox`](Self::inbox) afterwards.
    ///
    /// # Errors
    /// [`Error::MalformedSync`]; of the request; of the store. Nothing is lost: the same answer is asked for again.
    ///
    /// # Cancel safety
    /// Safe: an answer is taken as a whole or not at all.
    pub async fn sync(&self, timeout: Duration) -> Result<SyncSummary> {
        let _single_flight = self.0.synced.lock().await;
        let mut total = self.sync_page(timeout).await?.told();
        for _ in 1..MAX_PAGES {
            if !total.more_waiting {
                break;
            }
            let page = self.sync_page(Duration::ZERO).await?;
            total.add(page.told());
        }
        if let Ok(mut synced_at) = self.0.synced_at.lock() {
            *synced_at = Some(Instant::now());
        }
        // Keys are topped up, devices asked about, broken sessions renewed; what fails now is tried again with the next
        // sync.
        let upkeep = match self.keep_keys(Upkeep::Everything).await {
            Ok(()) => self.unwedge().await,
            Err(error) => Err(error),
        };
        if let Err(error) = upkeep {
            if matches!(
                error,
                Error::DeviceKeysMismatch { .. } | Error::OwnDeviceDeleted { .. } | Error::Store(_)
            ) {
                return Err(error);
            }
            tracing::warn!(
                code = error.code(),
                "upkeep of keys failed: it is tried again with the next sync"
            );
        }
        Ok(total)
    }

    async fn sync_page(&self, timeout: Duration) -> Result<SyncSummary> {
        use matrix_sdk_crypto::store::CryptoStore;
        let since = self.0.store.next_batch_token().await?;
        let first_sync = since.is_none();
        let mut request = sync_events::v3::Request::new();
        request.filter = Some(sync_events::v3::Filter::FilterDefinition(self.filter(first_sync)));
        request.since.clone_from(&since);
        request.timeout = Some(timeout);
        request.set_presence = PresenceState::Offline;
        let call = Call::repeatable().within(timeout.saturating_add(SYNC_GRACE));
        let answer = self.0.homeserver.exchange(request, call).await?;
        let mut sync = SyncResponse::parse(answer.body())?;
        self.note_fallback_keys(sync.unused_fallback_keys.as_deref());
        let gaps = match &since {
            Some(since) => self.fill_gaps(&mut sync, since).await?,
            None => Vec::new(),
        };
        let device_lists = match (sync.device_lists.take(), &since) {
            (Some(lists), _) => Some(lists),
            (None, Some(since)) => self.device_changes(since, &sync.next_batch).await,
            (None, None) => None,
        };
        let context = Context {
            first_sync,
            gaps,
            device_lists,
            ..self.context()
        };
        let (sync, context) = (Arc::new(sync), Arc::new(context));
        if let Some(summary) = self.take(Arc::clone(&sync), Arc::clone(&context)).await? {
            return Ok(summary);
        }
        let one_by_one = Context {
            one_by_one: true,
            ..Context::clone(&context)
        };
        let taken = self.take(sync, Arc::new(one_by_one)).await?;
        taken.ok_or(Error::EngineStopped)
    }

    /// Take an answer to `/sync` in one unit of work. `None`: nothing was taken, it has to go one by one.
    async fn take(&self, sync: Arc<SyncResponse>, context: Arc<Context>) -> Result<Option<SyncSummary>> {
        let members = Arc::clone(&self.0.members);
        let store = self.0.store.clone();
        self.0
            .machine
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let sync = SyncResponse::clone(&sync);
                    let Some(taken) = Box::pin(receive::take(machine, unit, &store, sync, &context)).await? else {
                        return Ok(Ending::Undo(None));
                    };
                    // Before the commit, and on this task: a caller who goes away must not leave a list out of date,
                    // and what a homeserver showed is true whether our disk has it or not.
                    members.follow(taken.members).await;
                    Ok(if taken.rebuild {
                        Ending::CommitAndRebuild(Some(taken.summary))
                    } else {
                        Ending::Commit(Some(taken.summary))
                    })
                })
            })
            .await
    }

    /// What the work of receiving is told about this device.
    pub(crate) fn context(&self) -> Context {
        Context {
            user: self.0.user.clone(),
            device: self.0.device.clone(),
            now_ms: self.now_ms(),
            first_sync: false,
            report_after_ms: u64::try_from(self.0.options.undecryptable_after.as_millis()).unwrap_or(u64::MAX),
            deliver_own: self.0.options.deliver_own,
            gaps: Vec::new(),
            one_by_one: false,
            most_waiting: self.0.options.most_waiting,
            device_lists: None,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.options.clock.now_ms()
    }

    /// Little is asked for: no presence, no receipts, and members only as far as they speak.
    fn filter(&self, first_sync: bool) -> FilterDefinition {
        let mut filter = FilterDefinition::default();
        let nothing = || {
            let mut nothing = ruma::api::client::filter::Filter::default();
            nothing.not_types = vec!["*".to_owned()];
            nothing
        };
        filter.presence = nothing();
        filter.account_data = nothing();
        let mut no_room_events = RoomEventFilter::default();
        no_room_events.not_types = vec!["*".to_owned()];
        filter.room.ephemeral = no_room_events.clone();
        filter.room.account_data = no_room_events;
        filter.room.state.lazy_load_options = LazyLoadOptions::Enabled {
            include_redundant_members: false,
        };
        filter.room.timeline.lazy_load_options = LazyLoadOptions::Enabled {
            include_redundant_members: false,
        };
        let limit = if first_sync { self.0.options.first_timeline } else { 100 };
        filter.room.timeline.limit = Some(limit.into());
        filter
    }

    /// Sync once without waiting, unless what is known is fresh: who came, went, or has a new device is looked at before
    /// a key is shared.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        let listening = self.0.synced.try_lock().is_err();
        let limit = if listening { FRESH_WHILE_LISTENING } else { FRESH };
        let last = self.0.synced_at.lock().ok().and_then(|at| *at);
        if last.is_none_or(|at| at.elapsed() > limit) {
            self.sync(Duration::ZERO).await?;
        }
        Ok(())
    }

    /// At most `limit` events that are not acknowledged, oldest first, after `after`.
    ///
    /// # Errors
    /// Of the store.
    pub async fn inbox(&self, after: Option<&Delivery>, limit: usize) -> Result<Vec<Delivery>> {
        receive::inbox::waiting(&self.0.store, after.map(|delivery| &delivery.cursor), limit).await
    }

    /// The app has handled these events: they are never delivered again.
    ///
    /// # Errors
    /// Of the store: then they are delivered again.
    ///
    /// # Cancel safety
    /// Safe: all of them are acknowledged, or none.
    pub async fn acknowledge(&self, deliveries: &[Delivery]) -> Result<()> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let cursors: Vec<Cursor> = deliveries.iter().map(|delivery| delivery.cursor.clone()).collect();
        self.0
            .machine
            .unit(move |_, unit| {
                Box::pin(async move {
                    for cursor in &cursors {
                        unit.delete_at(cursor)?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Release the store, after what is under way. The device can be opened again then, here or elsewhere.
    ///
    /// # Errors
    /// Of the store.
    pub async fn close(&self) -> Result<()> {
        self.0.machine.close().await;
        Ok(self.0.store.shutdown().await?)
    }

    pub(crate) fn machine(&self) -> &Arc<MachineSlot> {
        &self.0.machine
    }

    pub(crate) fn members(&self) -> &MemberCache {
        &self.0.members
    }

    pub(crate) async fn upkeep_lock(&self) -> MutexGuard<'_, ()> {
        self.0.upkeep.lock().await
    }

    pub(crate) async fn claim_lock(&self) -> MutexGuard<'_, ()> {
        self.0.claim.lock().await
    }

    pub(crate) fn claim_backoff(&self) -> &std::sync::Mutex<Backoff> {
        &self.0.claim_backoff
    }

    pub(crate) fn pace(&self) -> &std::sync::Mutex<Pace> {
        &self.0.pace
    }

    /// The last sync showed that somebody used our fallback key.
    pub(crate) fn fallback_used(&self) -> &AtomicBool {
        &self.0.fallback_used
    }

    pub(crate) async fn outbox_lock(&self) -> MutexGuard<'_, ()> {
        self.0.outbox.lock().await
    }

    /// What keeps the sends of one room in order.
    pub(crate) async fn room_lock(&self, room: &RoomId) -> Arc<Mutex<()>> {
        let mut rooms = self.0.rooms.lock().await;
        Arc::clone(rooms.entry(room.to_owned()).or_default())
    }
}

impl SyncSummary {
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
        self.to_device_custom += page.to_device_custom;
        self.waiting += page.waiting;
        self.before_this_device += page.before_this_device;
        self.unreadable.extend(page.unreadable);
        self.more_waiting = page.more_waiting;
    }
}
