//! The parts of a client: which homeserver, which directory, which store and key; and the login that is there.

mod behaviour;
mod discovery;
mod ending;
mod rekey;
mod rooms;
mod trust;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mx_crypto_store::{
    KeySource, PickleStore, StoreError, StoreKey,
    backend::{Backend, Memory},
};
use mx_olm_orchestrator::{Options, Orchestrator};
use mx_transport::{Homeserver, OAuthClient, TokenKeeper, Transport};

use crate::{
    Client, Error, Files, Finding, Invites, Result, Session,
    session::{self, SessionKeeper},
    staging,
};

/// A homeserver, and an open store with its key.
pub(crate) struct Prepared {
    pub(crate) homeserver: Homeserver,
    pub(crate) store: PickleStore,
    pub(crate) key: KeySource,
}

/// The login of a directory.
pub(crate) struct Held {
    pub(crate) session: Session,
    /// With its tokens. `None`: the login was ended, and not all of its files are gone.
    pub(crate) homeserver: Option<Homeserver>,
    /// Our name at the authorization server that gave the tokens.
    pub(crate) oauth: Option<OAuthClient>,
}

/// The parts of a client before it is logged in or opened.
///
/// ```no_run
/// # async fn example() -> mx_e2ee::Result<()> {
/// use mx_e2ee::{Client, Invites, Recipients, store::KeySource};
///
/// let client = Client::builder()
///     .homeserver("example.org")
///     .directory("/var/lib/mybot")
///     .key(KeySource::Credential("store.key".to_owned()))
///     .device_name("the alert bot")
///     .recipients(Recipients::OnlyTrusted)
///     .accept_invites(Invites::of(&["@boss:example.org"])?)
///     .login("mybot", "password")
///     .await?;
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClientBuilder {
    pub(crate) homeserver: Option<String>,
    pub(crate) directory: Option<PathBuf>,
    backend: Option<(Arc<dyn Backend>, KeySource)>,
    pub(crate) key: Option<KeySource>,
    transport: Option<Arc<dyn Transport>>,
    pub(crate) device_name: Option<String>,
    in_memory: bool,
    #[cfg(feature = "sqlite")]
    pub(crate) luggage: Vec<String>,
    follow_redirects: bool,
    pub(crate) options: Options,
    pub(crate) manifest_unreadable: Option<Finding>,
    pub(crate) invites: Invites,
    pub(crate) without_unreachable: bool,
}

impl ClientBuilder {
    /// The homeserver: its address (`https://matrix.example.org`), the name of a server (`example.org`) or a user id
    /// (`@bot:example.org`), whose server says where its homeserver is ([`discover`](Self::discover)).
    #[must_use]
    pub fn homeserver(mut self, url: impl Into<String>) -> Self {
        self.homeserver = Some(url.into());
        self
    }

    /// Where the login, the store and its key (`pickle.key`) are kept. It is made where it is missing.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What opens the store in the directory, instead of the file `pickle.key` beside it: a passphrase, a credential of
    /// the service manager, a key that the caller keeps.
    #[must_use]
    pub fn key(mut self, key: KeySource) -> Self {
        self.key = Some(key);
        self
    }

    /// Another storage engine than the one in the directory, with the key to seal it with.
    ///
    /// ```no_run
    /// # async fn example(backend: std::sync::Arc<dyn mx_e2ee::store::backend::Backend>) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, store::KeySource};
    ///
    /// // The store is elsewhere, as in a database of yours; the directory keeps the login, which the same key opens.
    /// let key = KeySource::Credential("store.key".to_owned());
    /// let bot = Client::builder().directory("/var/lib/mybot").backend(backend, key).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Backend>, key: KeySource) -> Self {
        self.backend = Some((backend, key));
        self
    }

    /// Keep everything in memory: for tests and for devices that are thrown away.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # async fn example(transport: Arc<dyn mx_e2ee::transport::Transport>) -> mx_e2ee::Result<()> {
    /// let bot = mx_e2ee::Client::builder().homeserver("https://hs.test").transport(transport).in_memory();
    /// let bot = bot.login("bot", "password").await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Another way to the homeserver than the built-in HTTP client.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use mx_e2ee::{Client, transport::{RateLimit, ReqwestTransport, Retry}};
    ///
    /// // Through a proxy. What tries again is part of the transport, and has to be put around a client of yours.
    /// let client = ReqwestTransport::builder().proxy("http://proxy.example.org:3128")?.build()?;
    /// let way = Arc::new(Retry::new(RateLimit::new(client)));
    /// let bot = Client::builder().directory("/var/lib/mybot").transport(way).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// How a new device is called where people look at their devices.
    #[must_use]
    pub fn device_name(mut self, name: impl Into<String>) -> Self {
        self.device_name = Some(name.into());
        self
    }

    /// Go on with the login of the directory: the same device, after a restart. Nothing is sent. The homeserver is that of
    /// the login, whatever the builder was told: its tokens are for no other.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, Error};
    ///
    /// match Client::builder().directory("/var/lib/mybot").open().await {
    ///     Ok(bot) => println!("{} goes on as {}", bot.user_id(), bot.device_id()),
    ///     Err(Error::NotLoggedIn { directory }) => println!("log in first: there is nothing in {}", directory.display()),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`], [`Error::StoreLost`]; of the store: wrong key, in use, of another device.
    pub async fn open(mut self) -> Result<Client> {
        let directory = self.kept_in()?.to_owned();
        let (session, kept) = session::find(&directory)?.ok_or_else(|| not_logged_in(&directory))?;
        self.homeserver = Some(session.homeserver.clone());
        kept.refuse_moved(&directory, &session)?;
        staging::refuse_unnamed(&directory)?;
        let prepared = self.prepare(false).await;
        let Prepared { homeserver, store, key } = prepared.map_err(|error| lost(error, &directory))?;
        if store.device().await?.is_none() {
            return Err(Error::StoreLost { directory });
        }
        let between_two_keys = kept.is_for_two_keys();
        let Some((safe, credentials)) = session::unlock(&key, &directory, &session, kept).await? else {
            return Err(Error::NotLoggedIn { directory });
        };
        if between_two_keys {
            session::settle(&directory, &session, &safe).await?;
        }
        let keeper = keeper(&directory, &session, safe, &credentials);
        credentials.give_to(&homeserver, Some(keeper));
        let device = Orchestrator::open(homeserver, store, &session.user_id, &session.device_id, self.options).await?;
        Ok(Client::new(device, session, Some(directory), self.invites))
    }

    /// What fetches files with the login of the directory. It needs the key and no store, and works while another process
    /// uses that.
    ///
    /// ```no_run
    /// # async fn example(file: mx_e2ee::ReceivedFile) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Client;
    ///
    /// // The bot runs, and holds the store. A worker beside it fetches what the bot was sent.
    /// let files = Client::builder().directory("/var/lib/mybot").files().await?;
    /// println!("{} bytes", files.download(&file, "/srv/inbox/report.pdf").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`]; of the key.
    pub async fn files(self) -> Result<Files> {
        let directory = self.kept_in()?;
        let homeserver = self.held(directory).await?.homeserver;
        Ok(Files::new(homeserver.ok_or_else(|| not_logged_in(directory))?))
    }

    /// The login of the directory, and its homeserver.
    pub(crate) async fn held(&self, directory: &Path) -> Result<Held> {
        let (session, kept) = session::find(directory)?.ok_or_else(|| not_logged_in(directory))?;
        let key = self.key_of(directory);
        let Some((safe, credentials)) = session::unlock(&key, directory, &session, kept).await? else {
            return Ok(Held {
                session,
                homeserver: None,
                oauth: None,
            });
        };
        let homeserver = Homeserver::new(&session.homeserver, self.way()?)?;
        let keeper = keeper(directory, &session, safe, &credentials);
        let oauth = match &credentials.kind {
            session::Kind::OAuth(client) => Some(client.clone()),
            _ => None,
        };
        credentials.give_to(&homeserver, Some(keeper));
        Ok(Held {
            session,
            homeserver: Some(homeserver),
            oauth,
        })
    }

    /// What opens the store of the directory, and the tokens of the login.
    pub(crate) fn key_of(&self, directory: &Path) -> KeySource {
        match (&self.backend, &self.key) {
            (Some((_, key)), _) | (None, Some(key)) => key.clone(),
            (None, None) => KeySource::File(directory.join("pickle.key")),
        }
    }

    /// Whether the store is one in the directory.
    pub(crate) const fn keeps_its_store(&self) -> bool {
        self.backend.is_none() && !self.in_memory
    }

    pub(crate) fn kept_in(&self) -> Result<&Path> {
        self.directory.as_deref().ok_or_else(|| Error::Configuration {
            what: "a client needs a directory to keep its login and keys in".to_owned(),
        })
    }

    /// The homeserver and the store, opened: a store that cannot be opened must not cost a login.
    pub(crate) async fn prepare(&self, for_login: bool) -> Result<Prepared> {
        let url = self.homeserver.as_deref().ok_or_else(|| Error::Configuration {
            what: "a client needs the address of its homeserver".to_owned(),
        })?;
        let found = self.discovery()?.find(url).await?;
        let homeserver = Homeserver::new(&found.base_url, self.way()?)?;
        let (backend, key) = match &self.backend {
            Some((backend, key)) => (Arc::clone(backend), key.clone()),
            None if self.in_memory => (
                Arc::new(Memory::new()) as Arc<dyn Backend>,
                KeySource::Bytes(StoreKey::generate()?),
            ),
            None => self.own_backend().await?,
        };
        let store = if for_login {
            PickleStore::open(backend, key.clone()).await?
        } else {
            PickleStore::open_existing(backend, key.clone()).await?
        };
        // Before a password is sent: the same device cannot come again.
        Orchestrator::refuse_ended(&store).await?;
        Ok(Prepared { homeserver, store, key })
    }

    pub(crate) fn way(&self) -> Result<Arc<dyn Transport>> {
        if let Some(transport) = &self.transport {
            return Ok(Arc::clone(transport));
        }
        #[cfg(feature = "reqwest")]
        {
            crate::way::built_in()
        }
        #[cfg(not(feature = "reqwest"))]
        Err(Error::Configuration {
            what: "without the feature reqwest, bring a transport".to_owned(),
        })
    }

    pub(crate) async fn own_backend(&self) -> Result<(Arc<dyn Backend>, KeySource)> {
        let directory = session::create_directory(self.kept_in()?)?;
        #[cfg(feature = "sqlite")]
        {
            let backend = mx_crypto_store::backend::Sqlite::open(directory.join("store")).await?;
            let key = self.key.clone();
            let key = key.unwrap_or_else(|| KeySource::File(directory.join("pickle.key")));
            Ok((Arc::new(backend), key))
        }
        #[cfg(not(feature = "sqlite"))]
        Err(Error::Configuration {
            what: format!("without the feature sqlite, bring a backend for {directory:?}"),
        })
    }
}

/// Where the tokens of a login are kept.
pub(crate) fn keeper(
    directory: &Path,
    session: &Session,
    safe: session::Safe,
    credentials: &session::Credentials,
) -> Arc<dyn TokenKeeper> {
    Arc::new(SessionKeeper::new(directory, session, safe, credentials.clone()))
}

/// The store of a login.
pub(crate) async fn existing_store(
    directory: &Path,
    backend: Arc<dyn Backend>,
    key: &KeySource,
) -> Result<PickleStore> {
    let opened = PickleStore::open_existing(backend, key.clone()).await;
    opened.map_err(|error| lost(error.into(), directory))
}

/// A store that is not there was lost: there is a login.
fn lost(error: Error, directory: &Path) -> Error {
    match error {
        Error::Orchestrator(mx_olm_orchestrator::Error::Store(StoreError::Empty | StoreError::StoreMissing { .. })) => {
            Error::StoreLost {
                directory: directory.to_owned(),
            }
        }
        error => error,
    }
}

pub(crate) fn not_logged_in(directory: &Path) -> Error {
    Error::NotLoggedIn {
        directory: directory.to_owned(),
    }
}
