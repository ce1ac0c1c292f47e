//! A device moves to another directory, or in a file to another machine: everything that it is goes along, and what it
//! leaves does not run any more.
//!
//! # Order
//! 1. The file of the login says that the device leaves. It does not run here from then on.
//! 2. The store notes it, too, with what goes along: the login, and files.
//! 3. The copy is made, whole and on the disk.
//! 4. The file of the login says that the device left, and holds no token.
//!
//! Where a step fails, what was done is taken back. Whoever is killed between two of them has a device that does not run,
//! and the same call goes on. Where the device arrives, everything is made beside the directory and gets its name last.

mod leaving;
mod luggage;

use std::{path::Path, sync::Arc};

use mx_crypto_store::{KeySource, PickleStore, SealedStore, StoreError, StoreKey, backend::Memory};
use mx_olm_orchestrator::Departure;

use self::{leaving::Destination, luggage::settle_in};
use crate::{
    ClientBuilder, Error, Result, Session, builder,
    session::{self, Kept},
    staging::{self, Staging},
};

/// A device that left its directory.
///
/// ```no_run
/// # async fn example() -> mx_e2ee::Result<()> {
/// let moved = mx_e2ee::Client::builder().directory("/var/lib/mybot").move_to("/srv/mybot").await?;
/// println!("{} of {} took {} records along", moved.session.device_id, moved.session.user_id, moved.records);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MovedDevice {
    /// Who, as which device, where.
    pub session: Session,
    /// How many records of its store went along. 0 where an earlier call had done all but the last step.
    pub records: u64,
}

impl ClientBuilder {
    /// A file in the directory, by its name, that belongs to the login and moves with it, if it is there: what an app keeps
    /// beside the store, such as the trust manifest that it uses. May be called several times.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let old = mx_e2ee::Client::builder().directory("/var/lib/mybot");
    /// // By their names in the directory. One that is not there is no error.
    /// old.take_along("trust.json").take_along("mybot.toml").move_to("/srv/mybot").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn take_along(mut self, file: impl Into<String>) -> Self {
        self.luggage.push(file.into());
        self
    }

    /// Move the device of the directory into `file`, which must not exist, encrypted under `key`: the store with all its
    /// keys, the login, and what is to be [taken along](Self::take_along). [`move_in`](Self::move_in) goes on with it,
    /// on this machine or another. From then on the device does not run here: [`Error::Moved`].
    ///
    /// Whoever has the file and the key is this device. Use it once, and destroy it.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, store::{KeySource, Passphrase}};
    ///
    /// let key = KeySource::Passphrase(Passphrase::new("correct horse battery staple"));
    /// let old = Client::builder().directory("/var/lib/mybot").take_along("trust.json");
    /// let moved = old.move_out("/mnt/stick/mybot.device", &key).await?;
    /// println!("{} has left, with {} records", moved.session.device_id, moved.records);
    ///
    /// // On the other machine.
    /// let new = || Client::builder().directory("/var/lib/mybot");
    /// new().move_in("/mnt/stick/mybot.device", &key).await?;
    /// let bot = new().open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`], [`Error::Moved`], [`Error::MoveUnfinished`]; [`Error::FileExists`]; of the outbox, where events
    /// wait to be sent; of the store: in use, wrong key, damaged; of the file. Where there is no file, the device runs as
    /// before then.
    ///
    /// # Cancel safety
    /// A call that was dropped, or whose process died, may leave a device that does not run ([`Error::MoveUnfinished`]): the
    /// same call ends it, or [`move_out_again`](Self::move_out_again). Where there is a file, that is whole.
    pub async fn move_out(self, file: impl AsRef<Path>, key: &KeySource) -> Result<MovedDevice> {
        self.into_file(file.as_ref(), key, false).await
    }

    /// As [`move_out`](Self::move_out), for a device that was moved before, or may have been, from what is left of it here.
    /// Only where nothing of it ever arrived: two of one device lose messages of both, and use keys twice.
    ///
    /// ```no_run
    /// # async fn example(key: mx_e2ee::store::KeySource) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Client;
    ///
    /// // The stick with the file was lost before anybody used it: what is left here makes another one.
    /// let old = || Client::builder().directory("/var/lib/mybot");
    /// assert_eq!(old().open().await.err().map(|error| error.code()), Some("device_moved"));
    /// old().move_out_again("/mnt/stick/mybot.device", &key).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`move_out`](Self::move_out).
    pub async fn move_out_again(self, file: impl AsRef<Path>, key: &KeySource) -> Result<MovedDevice> {
        self.into_file(file.as_ref(), key, true).await
    }

    async fn into_file(self, file: &Path, key: &KeySource, again: bool) -> Result<MovedDevice> {
        staging::refuse_unnamed(self.kept_in()?)?;
        let is_there = std::fs::symlink_metadata(file).is_ok();
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let to = Destination::new(file, is_there, Path::new(&part).exists());
        if let Some(moved) = self.has_left_for(&to, Some((file, key))).await? {
            return Ok(moved);
        }
        // Before anything is changed.
        if is_there {
            return Err(Error::FileExists { path: file.to_owned() });
        }
        let leaving = self.leave(to, again).await?;
        match leaving.store.sealed().export(file, key).await {
            Ok(records) => leaving.gone(records).await,
            Err(error) => {
                let is_others = matches!(&error, StoreError::ExportFile { source, .. }
                    if source.kind() == std::io::ErrorKind::AlreadyExists);
                // One that is there and whose name may not be on the disk yet may arrive.
                let nothing_arrives = is_others || std::fs::symlink_metadata(file).is_err();
                leaving.stay(nothing_arrives).await;
                Err(error.into())
            }
        }
    }

    /// Take the device of a `file` that [`move_out`](Self::move_out) made with `key` into the directory, which must be
    /// missing or empty, or hold the rest of a device that was moved away, which is put aside beside it. Its store is opened
    /// by the key of the builder, or by a new one in a file. [`open`](Self::open) goes on with the device. Nothing is sent.
    ///
    /// Rooms get a new room key with their next message. Destroy the file afterwards.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, store::{KeySource, Passphrase}};
    ///
    /// let key = KeySource::Passphrase(Passphrase::new("correct horse battery staple"));
    /// let file = "/mnt/stick/mybot.device";
    /// let moved = Client::builder().directory("/var/lib/mybot").move_in(file, &key).await?;
    /// println!("{} goes on here, on {}", moved.session.device_id, moved.session.homeserver);
    /// std::fs::remove_file(file).map_err(|source| mx_e2ee::Error::File { path: file.into(), source })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`] when the directory is used, or the file is not that of a device; of the key and the file: wrong key,
    /// damaged, not whole.
    ///
    /// # Cancel safety
    /// Either the directory holds the whole device or nothing; a directory `….importing` beside it may be left, and is
    /// removed by the next attempt.
    pub async fn move_in(mut self, file: impl AsRef<Path>, key: &KeySource) -> Result<MovedDevice> {
        self.needs_its_own_store()?;
        if let Some(KeySource::File(path)) = &self.key {
            return Err(Error::Configuration {
                what: format!(
                    "a device arrives with a new key file in its directory: bring it in without {}, and rekey it to that then",
                    path.display()
                ),
            });
        }
        let file = file.as_ref();
        let mut staging = Staging::beside(self.kept_in()?)?;
        self.directory = Some(staging.path().to_owned());
        let (backend, new_key) = self.own_backend().await?;
        let sealed = SealedStore::import(file, key, backend, &new_key).await?;
        let store = PickleStore::over(sealed);
        let records = store.sealed().stats().await?.records.values().sum();
        let session = settle_in(file, staging.path(), &store, new_key).await?;
        store.shutdown().await?;
        staging.give_its_name()?;
        Ok(MovedDevice { session, records })
    }

    /// Move the device of the directory into another directory, which must be missing or empty: the store row by row, still
    /// sealed, read back and compared; the login, a key file, and what is to be [taken along](Self::take_along). From then
    /// on the device does not run here: [`Error::Moved`].
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, Error};
    ///
    /// Client::builder().directory("/var/lib/mybot").move_to("/srv/mybot").await?;
    /// let here = Client::builder().directory("/var/lib/mybot").open().await;
    /// assert!(matches!(here, Err(Error::Moved { .. })), "it runs in one place");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`move_out`](Self::move_out), and [`Error::Import`] when the directory is used.
    ///
    /// # Cancel safety
    /// As [`move_out`](Self::move_out) and [`move_in`](Self::move_in).
    pub async fn move_to(self, directory: impl AsRef<Path>) -> Result<MovedDevice> {
        self.into_directory(directory.as_ref(), false).await
    }

    /// As [`move_to`](Self::move_to) and [`move_out_again`](Self::move_out_again).
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Client;
    ///
    /// // The disk with the copy broke at once. Only since nothing was sent or received from there.
    /// Client::builder().directory("/var/lib/mybot").move_to_again("/srv/mybot").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`move_to`](Self::move_to).
    pub async fn move_to_again(self, directory: impl AsRef<Path>) -> Result<MovedDevice> {
        self.into_directory(directory.as_ref(), true).await
    }

    async fn into_directory(self, directory: &Path, again: bool) -> Result<MovedDevice> {
        staging::refuse_unnamed(self.kept_in()?)?;
        let (here, there) = (session::find(self.kept_in()?)?, session::find(directory).ok().flatten());
        let has_arrived = match (&here, &there) {
            (Some((here, _)), Some((there, kept))) => here == there && !kept.is_moved(),
            _ => false,
        };
        let to = Destination::new(directory, has_arrived, Staging::is_left(directory));
        if let Some(moved) = self.has_left_for(&to, None).await? {
            return Ok(moved);
        }
        let mut staging = Staging::beside(directory)?;
        let leaving = self.leave(to, again).await?;
        let key = self.key_of(&leaving.directory);
        let copied = leaving.copy_to(staging.path(), &key).await;
        let named = match copied {
            Ok(records) => staging.give_its_name().map(|()| records),
            Err(error) => Err(error),
        };
        match named {
            Ok(records) => leaving.gone(records).await,
            Err(error) => {
                let nothing_arrives = !staging.is_named();
                drop(staging);
                leaving.stay(nothing_arrives).await;
                Err(error)
            }
        }
    }

    /// A call before this one has done all but the last step: it is done. A `file` has to prove that it is the device's.
    async fn has_left_for(&self, to: &Destination, file: Option<(&Path, &KeySource)>) -> Result<Option<MovedDevice>> {
        let directory = self.kept_in()?;
        let is_on_its_way =
            |found: &(Session, Kept)| matches!(&found.1, Kept::Leaving(_, earlier) if *earlier == to.name);
        if !to.is_there || !session::find(directory)?.as_ref().is_some_and(is_on_its_way) {
            return Ok(None);
        }
        let _locked = session::lock(directory).await?;
        let Some((session, _)) = session::find(directory)?.filter(is_on_its_way) else {
            return Ok(None);
        };
        // Without the note it did not come as far, and what is there is something else.
        let (backend, key) = self.own_backend().await?;
        let store = builder::existing_store(directory, backend, &key).await?;
        let noted = Departure::of(&store).await;
        store.shutdown().await?;
        let Some(noted) = noted? else { return Ok(None) };
        if let Some((file, key)) = file
            && !is_in(file, key, &session, &noted).await?
        {
            return Ok(None);
        }
        session::save(directory, &session, &Kept::Left(to.name.clone()))?;
        Ok(Some(MovedDevice { session, records: 0 }))
    }

    fn needs_its_own_store(&self) -> Result<()> {
        if self.keeps_its_store() {
            return Ok(());
        }
        Err(Error::Configuration {
            what: "a device is moved with a store in its directory: move the store of a backend of yours with its own tools"
                .to_owned(),
        })
    }
}

/// Whether a file holds this device as it left: it is opened as where it arrives, in memory.
async fn is_in(file: &Path, key: &KeySource, session: &Session, noted: &Departure) -> Result<bool> {
    let here = KeySource::Bytes(StoreKey::generate()?);
    let sealed = match SealedStore::import(file, key, Arc::new(Memory::new()), &here).await {
        Ok(sealed) => sealed,
        Err(StoreError::Corrupt { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let store = PickleStore::over(sealed);
    let departure = Departure::of(&store).await?;
    let device = store.device().await?;
    Ok(device == Some((session.user_id.clone(), session.device_id.clone()))
        && departure.is_some_and(|departure| {
            (departure.since_ms(), departure.luggage()) == (noted.since_ms(), noted.luggage())
        }))
}
