//! From a homeserver and a directory to a client: by password, by token, or with the login that is there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mx_crypto_store::{
    KeySource, PickleStore, StoreError, StoreKey,
    backend::{Backend, Memory},
};
use mx_olm_orchestrator::{Options, Orchestrator, Recipients, SyncSource};
use mx_transport::{AccessToken, Homeserver, RefreshToken, RequestError, TokenKeeper, Tokens, Transport};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::client::{
        account::whoami,
        session::{get_login_types, login},
        uiaa::UserIdentifier,
    },
};

use crate::{
    Client, Error, Files, Invites, Result, Session, client,
    session::{self, SessionKeeper},
};

/// The parts of a client before it is logged in or opened.
#[derive(Debug, Default)]
pub struct ClientBuilder {
    homeserver: Option<String>,
    directory: Option<PathBuf>,
    backend: Option<(Arc<dyn Backend>, KeySource)>,
    key: Option<KeySource>,
    transport: Option<Arc<dyn Transport>>,
    device_name: Option<String>,
    in_memory: bool,
    options: Options,
    invites: Invites,
}

impl ClientBuilder {
    /// The homeserver's address, such as `https://matrix.example.org`.
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
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Backend>, key: KeySource) -> Self {
        self.backend = Some((backend, key));
        self
    }

    /// Keep everything in memory: for tests and for devices that are thrown away.
    #[must_use]
    pub const fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Another way to the homeserver than the built-in HTTP client.
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

    /// How the device behaves, in everything: what was set before is replaced.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How careful sends are, where neither the room nor the call says otherwise. Default: strict.
    #[must_use]
    pub const fn recipients(mut self, recipients: Recipients) -> Self {
        self.options.recipients = recipients;
        self
    }

    /// What is asked to learn what is new. Default: `/sync`.
    #[must_use]
    pub const fn sync_source(mut self, source: SyncSource) -> Self {
        self.options.sync_source = source;
        self
    }

    /// Send to nobody but these users and ourselves: a room with another member refuses every send, by name. Give it again
    /// whenever the client is opened; a room's own list is kept with the room ([`Room::set_policy`](crate::Room::set_policy)).
    #[must_use]
    pub fn allow_only(mut self, users: impl IntoIterator<Item = OwnedUserId>) -> Self {
        self.options.allowed_recipients = Some(users.into_iter().collect());
        self
    }

    /// Whose invitations are accepted while receiving. Default: nobody's.
    #[must_use]
    pub fn accept_invites(mut self, invites: Invites) -> Self {
        self.invites = invites;
        self
    }

    /// Log in by password and publish the device's keys. With a store that was used before, the same device logs in
    /// again, as after a token expired.
    ///
    /// # Errors
    /// [`Error::WrongPassword`], [`Error::AlreadyLoggedIn`], [`Error::DeviceDeleted`]; of the request, of the store.
    pub async fn login(self, user: &str, password: &str) -> Result<Client> {
        let (homeserver, store) = self.prepare(true).await?;
        let known = store.device().await?;
        let mut request = login::v3::Request::new(login::v3::LoginInfo::Password(login::v3::Password::new(
            UserIdentifier::Matrix(ruma::api::client::uiaa::MatrixUserIdentifier::new(user.to_owned())),
            password.to_owned(),
        )));
        request.initial_device_display_name = Some(self.device_name.clone().unwrap_or_else(|| "mx-e2ee".to_owned()));
        request.refresh_token = true;
        request.device_id = known.as_ref().map(|(_, device)| device.clone());
        let answer = match homeserver.send(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.why_no_login(&homeserver, error).await),
        };
        let refresh = answer.refresh_token.map(RefreshToken::new);
        let tokens = Tokens::lasting(token(&answer.access_token)?, refresh, answer.expires_in);
        let finished = self
            .finish(homeserver.clone(), store, answer.user_id, answer.device_id, tokens)
            .await;
        if let Err(Error::Orchestrator(mx_olm_orchestrator::Error::StoreOfAnotherDevice { .. })) = &finished {
            // The login that was just made is of no use to anybody.
            client::end_login(&homeserver).await?;
        }
        finished
    }

    /// Take over a login that was made elsewhere: an access token and the device that it belongs to.
    ///
    /// # Errors
    /// [`Error::TokenWithoutDevice`], [`Error::AlreadyLoggedIn`]; of the request, of the store.
    pub async fn login_with_token(self, access_token: &str) -> Result<Client> {
        let (homeserver, store) = self.prepare(true).await?;
        let token = token(access_token)?;
        homeserver.set_access_token(token.clone());
        let who = homeserver.send(whoami::v3::Request::new()).await?;
        let device = who.device_id.ok_or(Error::TokenWithoutDevice)?;
        self.finish(homeserver, store, who.user_id, device, token.into()).await
    }

    /// Go on with the login of the directory: the same device, after a restart. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`], [`Error::StoreLost`]; of the store: wrong key, in use, of another device.
    pub async fn open(mut self) -> Result<Client> {
        let directory = self.kept_in()?.to_owned();
        let Some((session, tokens)) = session::load(&directory)? else {
            return Err(Error::NotLoggedIn { directory });
        };
        self.homeserver.get_or_insert_with(|| session.homeserver.clone());
        let (homeserver, store) = match self.prepare(false).await {
            Err(Error::Orchestrator(mx_olm_orchestrator::Error::Store(
                StoreError::Empty | StoreError::StoreMissing { .. },
            ))) => return Err(Error::StoreLost { directory }),
            prepared => prepared?,
        };
        if store.device().await?.is_none() {
            return Err(Error::StoreLost { directory });
        }
        homeserver.set_tokens(tokens, keeper(Some(&directory), &session));
        let device = Orchestrator::open(homeserver, store, &session.user_id, &session.device_id, self.options).await?;
        Ok(Client::new(device, session, Some(directory), self.invites))
    }

    /// End the login of the directory, also when its store cannot be opened. As [`Client::logout`].
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`]; of the request.
    pub async fn logout(self) -> Result<Session> {
        let directory = self.kept_in()?;
        let (session, homeserver) = self.held(directory)?;
        client::end_login(&homeserver).await?;
        let _locked = session::lock(directory).await?;
        session::forget(directory, &session)?;
        Ok(session)
    }

    /// End the login of the directory and destroy its store and key, as [`Client::logout_and_wipe`], also when the store
    /// cannot be opened. Where there is no login any more, what earlier logouts put aside is destroyed: `None`. A store
    /// without a login stays, since its device may be logged in.
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`] when nothing is left to be destroyed; of the request, and nothing is destroyed then.
    pub async fn logout_and_wipe(self) -> Result<Option<Session>> {
        let directory = self.kept_in()?;
        let (session, homeserver) = match self.held(directory) {
            Err(Error::NotLoggedIn { .. }) if session::destroy_aside(directory)? => return Ok(None),
            held => held?,
        };
        client::end_login_surely(&homeserver).await?;
        let _locked = session::lock(directory).await?;
        session::destroy(directory)?;
        Ok(Some(session))
    }

    /// What fetches files with the login of the directory. It needs no store, and works while another process uses it.
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`].
    pub fn files(self) -> Result<Files> {
        Ok(Files::new(self.held(self.kept_in()?)?.1))
    }

    /// The login of the directory, and its homeserver.
    fn held(&self, directory: &Path) -> Result<(Session, Homeserver)> {
        let Some((session, tokens)) = session::load(directory)? else {
            return Err(Error::NotLoggedIn {
                directory: directory.to_owned(),
            });
        };
        let homeserver = Homeserver::new(&session.homeserver, self.way()?)?;
        homeserver.set_tokens(tokens, keeper(Some(directory), &session));
        Ok((session, homeserver))
    }

    fn kept_in(&self) -> Result<&Path> {
        self.directory.as_deref().ok_or_else(|| Error::Configuration {
            what: "a client needs a directory to keep its login and keys in".to_owned(),
        })
    }

    /// The homeserver and the store, opened: a store that cannot be opened must not cost a login.
    async fn prepare(&self, for_login: bool) -> Result<(Homeserver, PickleStore)> {
        let url = self.homeserver.as_deref().ok_or_else(|| Error::Configuration {
            what: "a client needs the address of its homeserver".to_owned(),
        })?;
        if for_login && let Some(directory) = &self.directory {
            self.refuse_second_login(directory).await?;
        }
        let homeserver = Homeserver::new(url, self.way()?)?;
        let (backend, key) = match &self.backend {
            Some((backend, key)) => (Arc::clone(backend), key.clone()),
            None if self.in_memory => (
                Arc::new(Memory::new()) as Arc<dyn Backend>,
                KeySource::Bytes(StoreKey::generate()?),
            ),
            None => self.own_backend().await?,
        };
        let store = if for_login {
            PickleStore::open(backend, key).await?
        } else {
            PickleStore::open_existing(backend, key).await?
        };
        // Before a password is sent: the same device cannot come again.
        Orchestrator::refuse_ended(&store).await?;
        Ok((homeserver, store))
    }

    /// A login that works is not thrown away by accident; one whose token expired may be made again. It is asked for at its
    /// own homeserver: another one is not shown the token.
    async fn refuse_second_login(&self, directory: &Path) -> Result<()> {
        let (session, homeserver) = match self.held(directory) {
            Err(Error::NotLoggedIn { .. }) => return Ok(()),
            held => held?,
        };
        match homeserver.send(whoami::v3::Request::new()).await {
            Err(RequestError::LoggedOut { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Error::AlreadyLoggedIn {
                directory: directory.to_owned(),
                user: session.user_id.to_string(),
            }),
        }
    }

    fn way(&self) -> Result<Arc<dyn Transport>> {
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

    async fn own_backend(&self) -> Result<(Arc<dyn Backend>, KeySource)> {
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

    async fn why_no_login(&self, homeserver: &Homeserver, error: RequestError) -> Error {
        match error {
            RequestError::Api {
                status, ref errcode, ..
            } if status.as_u16() == 403 && errcode.as_deref() == Some("M_FORBIDDEN") => Error::WrongPassword,
            RequestError::Api { status, .. } if status.as_u16() == 400 => {
                let by_password =
                    |kind: &get_login_types::v3::LoginType| matches!(kind, get_login_types::v3::LoginType::Password(_));
                match homeserver.send(get_login_types::v3::Request::new()).await {
                    Ok(types) if !types.flows.iter().any(by_password) => Error::NoPasswordLogin,
                    _ => error.into(),
                }
            }
            other => other.into(),
        }
    }

    async fn finish(
        self,
        homeserver: Homeserver,
        store: PickleStore,
        user_id: OwnedUserId,
        device_id: OwnedDeviceId,
        tokens: Tokens,
    ) -> Result<Client> {
        let session = Session {
            homeserver: homeserver.base_url().to_owned(),
            user_id,
            device_id,
        };
        homeserver.set_tokens(tokens.clone(), keeper(self.directory.as_deref(), &session));
        let device = Orchestrator::open(homeserver, store, &session.user_id, &session.device_id, self.options).await?;
        if let Some(directory) = &self.directory {
            let directory = session::create_directory(directory)?;
            let _locked = session::lock(&directory).await?;
            session::save(&directory, &session, &tokens)?;
        }
        // A store whose keys never were on the homeserver is that of a login that was interrupted.
        if device.were_keys_published().await? && !device.key_status().await?.published {
            return Err(Error::DeviceDeleted {
                device: session.device_id,
            });
        }
        device.publish_keys().await?;
        // The homeserver's answer makes the engine add a fallback key, and rooms are known from the start.
        if let Err(error) = device.sync(std::time::Duration::ZERO).await {
            tracing::warn!(
                code = error.code(),
                "logged in, and the first sync failed: the next one makes up for it"
            );
        }
        Ok(Client::new(device, session, self.directory, self.invites))
    }
}

/// Where the tokens of a login are kept: in its directory, if it has one.
fn keeper(directory: Option<&Path>, session: &Session) -> Option<Arc<dyn TokenKeeper>> {
    directory.map(|directory| Arc::new(SessionKeeper::new(directory, session)) as _)
}

fn token(given: &str) -> Result<AccessToken> {
    AccessToken::new(given).map_err(|error| Error::Configuration {
        what: error.to_string(),
    })
}
