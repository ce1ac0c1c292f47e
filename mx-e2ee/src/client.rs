//! What an app holds: one device, logged in.

mod health;
mod identity;
pub(crate) mod invites;
mod keys;
mod logout;
mod names;
mod rooms;
mod trust;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::Stream;
use mx_olm_orchestrator::{Delivery, Event, Orchestrator};
use mx_transport::Homeserver;
use ruma::{DeviceId, RoomId, UserId};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

pub use self::identity::RecoveryKeeping;
use self::invites::Invites;
pub(crate) use self::logout::{end_login, end_login_surely};
use crate::{ClientBuilder, Error, Result, Room, Session};

/// How many events are given out at once.
const BATCH: usize = 100;
/// How long a stream asks the homeserver to wait for news.
const LONG_POLL: Duration = Duration::from_secs(30);
/// The first and the longest pause of a stream after an error.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A pause that the homeserver names is not longer than this.
const LONGEST_NAMED: Duration = Duration::from_secs(3600);

/// One device of one user, logged in. Cheap to clone; all clones are the same device.
///
/// ```no_run
/// # async fn example() -> mx_e2ee::Result<()> {
/// use futures_util::StreamExt;
/// use mx_e2ee::{Client, Event};
/// use std::{pin::pin, time::Duration};
///
/// let client = Client::builder().directory("/var/lib/mybot").open().await?;
/// let room = client.room(&client.resolve("#alerts:example.org").await?);
/// room.send_text("all is well").await?;
/// for event in client.receive(Duration::from_secs(30)).await? {
///     if let Event::Message(message) = event {
///         println!("{}: {}", message.sender, message.body().unwrap_or("…"));
///     }
/// }
/// let mut events = pin!(client.events().take_until(tokio::signal::ctrl_c()));
/// while let Some(event) = events.next().await {
///     println!("{event:?}");
/// }
/// client.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Orchestrator,
    session: Session,
    directory: Option<PathBuf>,
    invites: Invites,
    /// Given out, and acknowledged when more is asked for.
    handed_out: Arc<Mutex<Vec<Delivery>>>,
}

impl Client {
    /// The parts of a client, to be logged in or opened.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn new(device: Orchestrator, session: Session, directory: Option<PathBuf>, invites: Invites) -> Self {
        Self(Arc::new(Inner {
            device,
            session,
            directory,
            invites,
            handed_out: Arc::default(),
        }))
    }

    /// Who is logged in.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, message: mx_e2ee::Message) {
    /// // Do not answer yourself: another device of the account may have said it.
    /// if message.sender == client.user_id() {
    ///     return;
    /// }
    /// println!("{} is {}, on {}", client.device_id(), client.user_id(), client.session().homeserver);
    /// # }
    /// ```
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.0.session.user_id
    }

    /// As which device.
    #[must_use]
    pub fn device_id(&self) -> &DeviceId {
        &self.0.session.device_id
    }

    /// The login, without its token.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.0.session
    }

    /// The homeserver, for every request of the Matrix specification that has no method here.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::{api::client::presence::set_presence::v3::Request, presence::PresenceState};
    ///
    /// let me = client.user_id().to_owned();
    /// client.homeserver().send(Request::new(me, PresenceState::Online)).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn homeserver(&self) -> &Homeserver {
        self.0.device.homeserver()
    }

    /// The layer below.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // What only the layer below has: our device as others see it.
    /// let keys = client.orchestrator().inspect_keys().await?;
    /// println!("{:?}, with {} one-time keys", keys.shown, keys.one_time_keys);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.0.device
    }

    /// The directory of the login, where it has one.
    pub(crate) fn kept_in(&self) -> Option<&std::path::Path> {
        self.0.directory.as_deref()
    }

    /// Where an encrypted file waits for its upload.
    pub(crate) fn spool_directory(&self) -> PathBuf {
        self.0.directory.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// A room by its id. Nothing is sent.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> Room {
        Room::new(self.clone(), room.to_owned())
    }

    /// What happened, waiting at most `timeout` for something. What an earlier call returned is acknowledged by this
    /// one, and never returned again; what is not acknowledged is returned again after a restart.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Event;
    /// use std::time::Duration;
    ///
    /// loop {
    ///     for event in client.receive(Duration::from_secs(30)).await? {
    ///         // A process that dies here is given these events again.
    ///         if let Event::Message(message) = event {
    ///             println!("{}: {}", message.sender, message.body().unwrap_or("…"));
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] while another call or a stream receives; of the request, of the store. Nothing is lost.
    ///
    /// # Cancel safety
    /// Safe: what was not returned is returned by the next call.
    pub async fn receive(&self, timeout: Duration) -> Result<Vec<Event>> {
        let mut handed_out = Arc::clone(&self.0.handed_out)
            .try_lock_owned()
            .map_err(|_| Error::Busy)?;
        self.0.device.acknowledge(&handed_out).await?;
        handed_out.clear();
        let end = Instant::now() + timeout;
        let mut waiting = self.0.device.inbox(None, BATCH).await?;
        while waiting.is_empty() {
            // A homeserver answers for keys and members too, which are nothing to the app: ask again until the end.
            let left = end.saturating_duration_since(Instant::now());
            self.0.device.sync(left.min(LONG_POLL)).await?;
            waiting = self.0.device.inbox(None, BATCH).await?;
            if left.is_zero() {
                break;
            }
        }
        Box::pin(self.answer_invites(&mut waiting)).await;
        let events = waiting.iter().map(|delivery| delivery.event.clone()).collect();
        *handed_out = waiting;
        Ok(events)
    }

    /// What happens, for as long as it is polled. An event is acknowledged when the next one is asked for. An error is
    /// an item too: the stream goes on after it, with growing pauses. One receives at a time: while a stream is held, another
    /// one and [`receive`](Self::receive) are [`Error::Busy`].
    pub fn events(&self) -> impl Stream<Item = Result<Event>> + Send + use<> {
        let state = EventStream {
            client: self.clone(),
            last: None,
            waiting: Vec::new(),
            pause: None,
            turn: None,
        };
        futures_util::stream::unfold(state, |mut state| async move {
            let item = state.next().await;
            Some((item, state))
        })
    }

    /// Ask the homeserver what is new without waiting, and keep it for [`receive`](Self::receive).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // A program that only sends, and runs for minutes: what others need of it is done with each sync.
    /// client.sync().await?;
    /// println!("{} events wait for their keys", client.waiting_counts().await?.waiting);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn sync(&self) -> Result<()> {
        self.0.device.sync(Duration::ZERO).await?;
        Ok(())
    }

    /// Release the store, after what is under way: then the same device can be opened again.
    ///
    /// # Errors
    /// Of the store.
    pub async fn close(self) -> Result<()> {
        Ok(self.0.device.close().await?)
    }
}

/// Where a stream of events stands.
struct EventStream {
    client: Client,
    last: Option<Delivery>,
    /// In reverse.
    waiting: Vec<Delivery>,
    pause: Option<Duration>,
    /// Held from the first event on.
    turn: Option<OwnedMutexGuard<Vec<Delivery>>>,
}

impl EventStream {
    async fn next(&mut self) -> Result<Event> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(pause).await;
        }
        match self.try_next().await {
            Ok(event) => {
                self.pause = None;
                Ok(event)
            }
            Err(error) => {
                let pause = self.pause.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
                let named = error.retry_after().unwrap_or_default().min(LONGEST_NAMED);
                self.pause = Some(pause.max(named));
                Err(error)
            }
        }
    }

    async fn try_next(&mut self) -> Result<Event> {
        let device = &self.client.0.device;
        if self.turn.is_none() {
            let turn = Arc::clone(&self.client.0.handed_out).try_lock_owned();
            let mut handed_out = turn.map_err(|_| Error::Busy)?;
            device.acknowledge(&handed_out).await?;
            handed_out.clear();
            self.turn = Some(handed_out);
        }
        if let Some(last) = &self.last {
            device.acknowledge(std::slice::from_ref(last)).await?;
            self.last = None;
        }
        loop {
            if let Some(delivery) = self.waiting.pop() {
                let event = delivery.event.clone();
                self.last = Some(delivery);
                return Ok(event);
            }
            let mut waiting = device.inbox(None, BATCH).await?;
            Box::pin(self.client.answer_invites(&mut waiting)).await;
            waiting.reverse();
            self.waiting = waiting;
            if self.waiting.is_empty() {
                device.sync(LONG_POLL).await?;
                // It works again, also where nobody says anything.
                self.pause = None;
            }
        }
    }
}
