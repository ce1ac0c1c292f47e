//! A device that another client held goes on here: read from its files, which stay as they are, and kept in a directory of ours.
//!
#[cfg(feature = "foreign-stores")]
mod database;
mod file;
#[cfg(feature = "foreign-stores")]
mod matrix_sdk;
mod mx_client;
#[cfg(feature = "foreign-stores")]
mod nio;
mod senders;

use std::{
    io,
    path::{Path, PathBuf},
};

use mx_olm_orchestrator::AdoptedDevice;
use mx_transport::{AccessToken, Homeserver};
use ruma::{OwnedServerName, api::client::account::whoami};

use self::senders::Senders;
use crate::{
    ClientBuilder, Error, Result, Session,
    builder::Prepared,
    session::{self, Credentials},
    staging::Staging,
};

/// A device that was taken over, and what came with it.
///
/// ```no_run
/// # async fn example(imported: mx_e2ee::ImportedDevice) -> mx_e2ee::Result<()> {
/// println!("{} with {} room keys", imported.session.device_id, imported.room_keys);
/// // From now on it runs here, and there never again.
/// let bot = mx_e2ee::Client::builder().directory("/var/lib/mybot").open().await?;
/// # drop(bot);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportedDevice {
    /// Who goes on as which device.
    pub session: Session,
    /// Its fingerprint, which stays the same.
    pub ed25519: String,
    /// Olm sessions with other devices.
    pub olm_sessions: usize,
    /// Room keys.
    pub room_keys: usize,
    /// Room keys of which nobody could be asked whose they are: their messages are read, and marked as imported.
    pub room_keys_of_unknown_devices: usize,
    /// Room keys that were under the name of another one, or for no room: they are left out.
    pub room_keys_left_out: usize,
}

/// Why a device of another client is not taken over. Nothing was changed, neither its files nor ours.
///
/// ```
/// use mx_e2ee::{Error, ImportError};
///
/// let error = Error::from(ImportError::NotEmpty { directory: "/var/lib/mybot".into() });
/// assert_eq!(error.code(), "import_not_empty");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file is missing or cannot be read.
    #[error("{path:?} cannot be read: is this the directory of that client?")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },

    /// A file is not what that client writes.
    #[error("{path:?} is not what that client writes: {what}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what is in it.
        what: String,
    },

    /// The login of the other client is another device than its keys.
    #[error("{wanted} is what the files are of, and {found} what the homeserver says: they do not belong together")]
    OtherDevice {
        /// By the files.
        wanted: String,
        /// By the homeserver.
        found: String,
    },

    /// Servers could not be asked for the devices of their users, who gave room keys.
    #[error(
        "whose room keys these are is not known while {} cannot be reached: try again later, or go on without, and they stay \
         marked as imported for good",
        names(servers)
    )]
    Unreachable {
        /// The servers.
        servers: Vec<OwnedServerName>,
    },

    /// There is something in the directory where the device would be kept.
    #[error("{directory:?} is not empty: a device comes into a directory of its own")]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
}

impl ImportError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "import_unreadable",
            Self::Foreign { .. } => "import_foreign",
            Self::OtherDevice { .. } => "import_other_device",
            Self::Unreachable { .. } => "import_unreachable",
            Self::NotEmpty { .. } => "import_not_empty",
        }
    }
}

fn names(servers: &[OwnedServerName]) -> String {
    let names: Vec<&str> = servers.iter().map(|server| server.as_str()).collect();
    names.join(", ")
}

/// The login of a device whose store does not hold it.
///
/// ```
/// use mx_e2ee::ImportLogin;
///
/// // As the other client has it in its configuration.
/// let login = ImportLogin::new("https://matrix.example.org", "syt_bXlib3Q_secret")?;
/// assert!(!format!("{login:?}").contains("secret"));
/// # Ok::<_, mx_e2ee::Error>(())
/// ```
#[cfg(feature = "foreign-stores")]
#[derive(Clone, Debug)]
pub struct ImportLogin {
    homeserver: String,
    token: AccessToken,
}

#[cfg(feature = "foreign-stores")]
impl ImportLogin {
    /// The address of the homeserver, and the access token of the device.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the token cannot be one.
    pub fn new(homeserver: impl Into<String>, access_token: &str) -> Result<Self> {
        Ok(Self {
            homeserver: homeserver.into(),
            token: crate::login::token(access_token)?,
        })
    }
}

/// A device as it was found, before it is known whose its room keys are.
struct Found {
    device: AdoptedDevice,
    homeserver: String,
    token: AccessToken,
    room_keys: Vec<senders::FoundRoomKey>,
    room_keys_left_out: usize,
}

impl ClientBuilder {
    /// Take a device over although the servers of some who gave it room keys cannot be reached. Default: no. Messages of those
    /// keys are read, and marked as imported, for good.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Client;
    ///
    /// let import = |without| Client::builder().directory("/var/lib/mybot").without_unreachable(without)
    ///     .import_mx_client("/srv/old/crypto", "/srv/old/matrix.json");
    /// let imported = match import(false).await {
    ///     // A server that is gone for good. Nothing was changed: the same again, without it.
    ///     Err(error) if error.code() == "import_unreachable" => import(true).await?,
    ///     imported => imported?,
    /// };
    /// println!("{} keys are of devices that nobody could ask", imported.room_keys_of_unknown_devices);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn without_unreachable(mut self, without: bool) -> Self {
        self.without_unreachable = without;
        self
    }

    /// Take over the device of the R packages mx.client and mx.crypto: the same device id and keys, its Olm sessions and the
    /// room keys that it was given. `store` is the directory with `pickle.key`, `account.pickle` and `sessions.json`;
    /// `config` the file `matrix.json` with the login. Both are only read. [`open`](Self::open) goes on with the device, and
    /// the other client must never run again: two that use one device lose messages of both.
    ///
    /// The homeserver is asked whether the login is this device's, and for the keys of the devices that gave the room keys.
    /// Outbound room keys are not taken: the first message to a room makes a new one. While a server of theirs cannot be
    /// reached it is refused, unless it is to go on [without](Self::without_unreachable).
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let builder = mx_e2ee::Client::builder().directory("/var/lib/mybot");
    /// let imported = builder.import_mx_client("/srv/old/crypto", "/srv/old/matrix.json").await?;
    /// println!("{} goes on here", imported.session.device_id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`]; of the request, of the directory and the store.
    ///
    /// # Cancel safety
    /// Either the directory holds the whole device or nothing; a directory `….importing` beside it may be left, and is
    /// removed by the next attempt.
    pub async fn import_mx_client(self, store: impl AsRef<Path>, config: impl AsRef<Path>) -> Result<ImportedDevice> {
        let found = mx_client::read(store.as_ref(), config.as_ref())?;
        self.take_over(found).await
    }

    /// Take over the device of matrix-nio, as [`import_mx_client`](Self::import_mx_client): `database` is the file
    /// `USER_DEVICE.db` of its store, `pickle_key` the passphrase that it was given, `DEFAULT_KEY` where it was given none.
    /// What it was told about the trust of devices is not taken.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, ImportLogin};
    ///
    /// let login = ImportLogin::new("https://matrix.example.org", "syt_…")?;
    /// let builder = Client::builder().directory("/var/lib/mybot");
    /// let imported = builder.import_nio("/srv/old/@mybot:example.org_NIODEVICE.db", "DEFAULT_KEY", login).await?;
    /// println!("{} room keys came with it", imported.room_keys);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`]; of the request, of the directory and the store.
    ///
    /// # Cancel safety
    /// As [`import_mx_client`](Self::import_mx_client).
    #[cfg(feature = "foreign-stores")]
    pub async fn import_nio(
        self,
        database: impl AsRef<Path>,
        pickle_key: &str,
        login: ImportLogin,
    ) -> Result<ImportedDevice> {
        let found = nio::read(database.as_ref(), pickle_key, login)?;
        self.take_over(found).await
    }

    /// Take over the device of matrix-rust-sdk with its SQLite store, as [`import_mx_client`](Self::import_mx_client):
    /// `directory` holds `matrix-sdk-crypto.sqlite3`. Its private identity, and what it knows of devices and identities,
    /// come with it. Where it has read to is not known: what is new is looked for from the beginning.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, ImportLogin};
    ///
    /// let login = ImportLogin::new("https://matrix.example.org", "syt_…")?;
    /// let builder = Client::builder().directory("/var/lib/mybot");
    /// let imported = builder.import_matrix_sdk("/srv/old/store", Some("its passphrase"), login).await?;
    /// println!("{} room keys came with it", imported.room_keys);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`]; of the request, of the directory and the store.
    ///
    /// # Cancel safety
    /// As [`import_mx_client`](Self::import_mx_client).
    #[cfg(feature = "foreign-stores")]
    pub async fn import_matrix_sdk(
        self,
        directory: impl AsRef<Path>,
        passphrase: Option<&str>,
        login: ImportLogin,
    ) -> Result<ImportedDevice> {
        let found = matrix_sdk::read(directory.as_ref(), passphrase, login)?;
        self.take_over(found).await
    }

    async fn take_over(mut self, found: Found) -> Result<ImportedDevice> {
        if !self.keeps_its_store() {
            return Err(Error::Configuration {
                what: "a device is taken over into a directory with a store of its own: leave the backend out"
                    .to_owned(),
            });
        }
        let mut staging = Staging::beside(self.kept_in()?)?;
        let Found {
            mut device,
            homeserver: address,
            token,
            room_keys,
            room_keys_left_out,
        } = found;
        let homeserver = Homeserver::new(&address, self.way()?)?;
        homeserver.set_access_token(token.clone());
        is_its_login(&homeserver, &device).await?;
        let senders = Senders::of(&homeserver, &device, &room_keys).await?;
        if !self.without_unreachable {
            senders.are_known()?;
        }
        device.room_keys = senders.resolve(room_keys);

        let imported = ImportedDevice {
            session: Session {
                homeserver: homeserver.base_url().to_owned(),
                user_id: device.user_id.clone(),
                device_id: device.device_id.clone(),
            },
            ed25519: device.identity_keys().0.to_base64(),
            olm_sessions: device.sessions.len(),
            room_keys: device.room_keys.len() + device.kept_room_keys.len(),
            room_keys_of_unknown_devices: senders::of_unknown_devices(&device),
            room_keys_left_out,
        };
        self.homeserver = Some(imported.session.homeserver.clone());
        self.directory = Some(staging.path().to_owned());
        self.keep_imported(device, &imported.session, token).await?;
        staging.give_its_name()?;
        Ok(imported)
    }

    /// A store and a login in the directory, which is beside the one that they are for.
    async fn keep_imported(&self, device: AdoptedDevice, session: &Session, token: AccessToken) -> Result<()> {
        let Prepared { store, key, .. } = self.prepare(true).await?;
        device.put_into(&store).await?;
        // Its files are closed before they have another path.
        store.shutdown().await?;
        session::Safe::create(key)
            .await?
            .save(self.kept_in()?, session, &Credentials::native(token.into()))
    }
}

/// The token must be the device's: with another one its keys would be published under another name.
async fn is_its_login(homeserver: &Homeserver, device: &AdoptedDevice) -> Result<()> {
    let who = homeserver.send(whoami::v3::Request::new()).await?;
    let found = (Some(&who.user_id), who.device_id.as_ref());
    if found == (Some(&device.user_id), Some(&device.device_id)) {
        return Ok(());
    }
    let named = |user: &ruma::UserId, device: Option<&ruma::DeviceId>| {
        format!("{user} device {}", device.map_or("(none)", ruma::DeviceId::as_str))
    };
    Err(ImportError::OtherDevice {
        wanted: named(&device.user_id, Some(&device.device_id)),
        found: named(&who.user_id, who.device_id.as_deref()),
    }
    .into())
}
