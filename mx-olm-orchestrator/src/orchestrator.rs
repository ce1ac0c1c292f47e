//! What an app of this layer holds: one device, its homeserver and its store.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use mx_crypto_store::{Cursor, PickleStore};
use mx_transport::Homeserver;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::{
    Accept, Clock, Delivery, KeyRequests, ManifestFile, Progress, Recipients, Result, SyncSource, TrustManifest,
    keys::Keeping,
    machine::{Ending, MachineSlot},
    members::MemberCache,
    receive::{Pace, Synced},
    send::Lanes,
    trust_manifest::Kept,
    verification::Verifications,
};

/// How one device behaves.
///
/// ```
/// use std::time::Duration;
/// use mx_olm_orchestrator::{Accept, KeyRequests, Options, Recipients, SyncSource};
///
/// let mut options = Options::default();
/// options.recipients = Recipients::OnlyTrusted;
/// options.accept = Accept::CrossSigned;
/// options.key_requests = KeyRequests::Verified;
/// options.sync_source = SyncSource::SlidingWhereOffered;
/// options.undecryptable_after = Duration::from_secs(300);
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long an event may wait for its key before it is reported as undecryptable. Default: one minute.
    pub undecryptable_after: Duration,
    /// Deliver what this very device sent, too. Default: no.
    pub deliver_own: bool,
    /// Tell who comes to rooms and who goes ([`Event::MembershipChanged`](crate::Event::MembershipChanged)). Default: no, since
    /// a large room has more of that than of messages.
    pub memberships: bool,
    /// How many events are kept that wait for their keys. When there are more, the oldest is reported as lost. Default:
    /// 10,000.
    pub most_waiting: usize,
    /// How careful sends are, where neither the room nor the call says otherwise. Default: strict.
    pub recipients: Recipients,
    /// Who may ever be sent something, beside ourselves. Default, `None`: every member of the room.
    pub allowed_recipients: Option<BTreeSet<OwnedUserId>>,
    /// Who is who. Nothing is sent to a room while a reader differs from it. Default: nobody is listed anywhere.
    pub trust_manifest: Option<Arc<TrustManifest>>,
    /// Who is who, in a file: it is read again before each send and with each sync, and one that cannot be read stops both.
    /// It counts instead of `trust_manifest`. Default: none.
    pub trust_manifest_file: Option<ManifestFile>,
    /// There is a manifest, and it could not be read: what differed from it stays noted. Default: no.
    pub trust_manifest_unreadable: bool,
    /// Whose messages are given to the app. Default: everybody's.
    pub accept: Accept,
    /// How many events of each room the first sync of a device looks at. Default: 20.
    pub first_timeline: u32,
    /// What is asked to learn what is new. Default: `/sync`.
    pub sync_source: SyncSource,
    /// How often the passphrase of a key file, or of a bundle of secrets, is hashed. Fewer make a file that is guessed
    /// faster. Default: 500,000, as Element does.
    pub key_file_rounds: u32,
    /// Which other devices of our own user are given the room keys that they ask for. Default: none.
    pub key_requests: KeyRequests,
    /// Take room keys of the time before we came from who invited us, up to a day after we joined. What they open is marked
    /// as [`Trust::Imported`](crate::Trust::Imported). Default: yes.
    pub accept_history: bool,
    /// Where the time is read.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            undecryptable_after: Duration::from_secs(60),
            deliver_own: false,
            memberships: false,
            most_waiting: 10_000,
            recipients: Recipients::default(),
            allowed_recipients: None,
            trust_manifest: None,
            trust_manifest_file: None,
            trust_manifest_unreadable: false,
            accept: Accept::Everybody,
            first_timeline: 20,
            sync_source: SyncSource::default(),
            key_file_rounds: 500_000,
            key_requests: KeyRequests::default(),
            accept_history: true,
            clock: Clock::system(),
        }
    }
}

/// One device. Cheap to clone; all clones are the same device.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::Arc, time::Duration};
/// use mx_crypto_store::{KeySource, PickleStore, backend::Memory};
/// use mx_olm_orchestrator::{Options, Orchestrator};
///
/// let store = PickleStore::open(Arc::new(Memory::new()), KeySource::File("pickle.key".into())).await?;
/// let user = ruma::user_id!("@bot:example.org");
/// let device = Orchestrator::open(homeserver, store, user, "BOT".into(), Options::default()).await?;
/// device.publish_keys().await?;
/// device.sync(Duration::from_secs(30)).await?;
/// for delivery in device.inbox(None, 100).await? {
///     println!("{:?}", delivery.event);
///     device.acknowledge(&[delivery]).await?;
/// }
/// device.close().await?;
/// # Ok(()) }
/// ```
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
    manifest: Kept,
    members: Arc<MemberCache>,
    /// Held while a sync is under way.
    syncing: Mutex<()>,
    synced: Synced,
    pace: Pace,
    upkeep: Mutex<()>,
    claim: Mutex<()>,
    keeping: Keeping,
    lanes: Lanes,
    verification: Arc<Verifications>,
    /// How often our user decided about a device.
    decisions: AtomicU64,
    progress: watch::Sender<Option<Progress>>,
}

impl Orchestrator {
    /// Open the device whose store this is, or mint it in an empty store. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::StoreOfAnotherDevice`](crate::Error::StoreOfAnotherDevice),
    /// [`Error::OwnDeviceDeleted`](crate::Error::OwnDeviceDeleted) when the homeserver has ended the device before;
    /// [`ManifestError`](crate::ManifestError) of a file that cannot be read; of the store.
    pub async fn open(
        homeserver: Homeserver,
        store: PickleStore,
        user: &UserId,
        device: &DeviceId,
        options: Options,
    ) -> Result<Self> {
        Self::refuse_ended(&store).await?;
        let machine = MachineSlot::open(store.clone(), user.to_owned(), device.to_owned()).await?;
        let opened = Self(Arc::new(Inner {
            homeserver,
            store,
            machine,
            user: user.to_owned(),
            device: device.to_owned(),
            options,
            manifest: Kept::default(),
            members: Arc::default(),
            syncing: Mutex::default(),
            synced: Synced::default(),
            pace: Pace::default(),
            upkeep: Mutex::default(),
            claim: Mutex::default(),
            keeping: Keeping::default(),
            lanes: Lanes::default(),
            verification: Arc::default(),
            decisions: AtomicU64::default(),
            progress: watch::Sender::default(),
        }));
        opened.begin_with_manifest().await?;
        Ok(opened)
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
        self.0.machine.close().await?;
        Ok(self.0.store.shutdown().await?)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.options.clock.now_ms()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn kept_manifest(&self) -> &Kept {
        &self.0.manifest
    }

    /// Held while a sync is under way.
    pub(crate) fn syncing(&self) -> &Mutex<()> {
        &self.0.syncing
    }

    /// When the last syncs ended.
    pub(crate) fn synced(&self) -> &Synced {
        &self.0.synced
    }

    /// When a long poll may follow another.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    pub(crate) fn machine(&self) -> &Arc<MachineSlot> {
        &self.0.machine
    }

    pub(crate) fn members(&self) -> &Arc<MemberCache> {
        &self.0.members
    }

    pub(crate) async fn upkeep_lock(&self) -> MutexGuard<'_, ()> {
        self.0.upkeep.lock().await
    }

    pub(crate) async fn claim_lock(&self) -> MutexGuard<'_, ()> {
        self.0.claim.lock().await
    }

    pub(crate) fn keeping(&self) -> &Keeping {
        &self.0.keeping
    }

    /// What keeps the sends of one room in order.
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.0.lanes
    }

    /// The verifications under way.
    pub(crate) fn verification(&self) -> &Arc<Verifications> {
        &self.0.verification
    }

    pub(crate) fn decisions(&self) -> &AtomicU64 {
        &self.0.decisions
    }

    pub(crate) fn progress_sender(&self) -> &watch::Sender<Option<Progress>> {
        &self.0.progress
    }
}
