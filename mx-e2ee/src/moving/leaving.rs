//! How a device leaves, step by step, and how what was done is taken back.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use mx_crypto_store::{
    KeySource, PickleStore,
    backend::{Backend, Sqlite},
};
use mx_olm_orchestrator::Departure;
use zeroize::Zeroizing;

use super::{MovedDevice, luggage::settle_in};
use crate::{
    ClientBuilder, Error, Result, Session, builder,
    private_file::write_private_file,
    session::{self, Credentials, Kept, Safe},
};

const KEY_FILE: &str = "pickle.key";

/// Where a device goes.
pub(super) struct Destination {
    /// As it is said where it leaves.
    pub(super) name: String,
    /// All of it is there.
    pub(super) is_there: bool,
    /// It was begun to be put there, and not all of it is.
    is_begun: bool,
}

impl Destination {
    pub(super) fn new(path: &Path, is_there: bool, is_begun: bool) -> Self {
        let name = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            name: name.display().to_string(),
            is_there,
            is_begun,
        }
    }
}

/// A store whose device is about to leave it.
pub(super) struct Leaving {
    pub(super) directory: PathBuf,
    to: String,
    session: Session,
    backend: Arc<dyn Backend>,
    pub(super) store: PickleStore,
    /// What takes the first steps back. `None`: an earlier call may have come as far as the third.
    stays: Option<(Safe, Credentials)>,
    _locked: session::Locked,
}

impl ClientBuilder {
    /// The first two steps.
    pub(super) async fn leave(&self, to: Destination, again: bool) -> Result<Leaving> {
        self.needs_its_own_store()?;
        let directory = self.kept_in()?.to_owned();
        if session::find(&directory)?.is_none() {
            return Err(builder::not_logged_in(&directory));
        }
        let (backend, key) = self.own_backend().await?;
        let store = builder::existing_store(&directory, Arc::clone(&backend), &key).await?;
        let left = self.note_departure(&directory, &store, &key, (&to, again)).await;
        match left {
            Ok((session, stays, locked)) => Ok(Leaving {
                directory,
                to: to.name,
                session,
                backend,
                store,
                stays,
                _locked: locked,
            }),
            Err(error) => {
                closed(&store).await;
                Err(error)
            }
        }
    }

    async fn note_departure(
        &self,
        directory: &Path,
        store: &PickleStore,
        key: &KeySource,
        (to, again): (&Destination, bool),
    ) -> Result<(Session, Option<(Safe, Credentials)>, session::Locked)> {
        let gone = || builder::not_logged_in(directory);
        let locked = session::lock(directory).await?;
        let (session, kept) = session::find(directory)?.ok_or_else(gone)?;
        let noted = Departure::of(store).await?.is_some();
        let kept = match kept {
            Kept::Leaving(sealed, _) if !noted => Kept::Sealed(sealed),
            // Killed on its way: it goes on from where it was, where it is known that nothing is there.
            Kept::Leaving(_, ref earlier) if again || (*earlier == to.name && to.is_begun) => {
                return Ok((session, None, locked));
            }
            Kept::Left(_) if noted && again => return Ok((session, None, locked)),
            kept => kept,
        };
        kept.refuse_moved(directory, &session)?;
        if noted && !again {
            // A file of the login from before.
            return Err(Error::MoveUnfinished {
                directory: directory.to_owned(),
                device: session.device_id,
                to: to.name.clone(),
            });
        }
        let unlocked = session::unlock_held(key, directory, &session, kept).await?;
        let (safe, credentials) = unlocked.ok_or_else(gone)?;
        let luggage = self.packed(directory, &session, &credentials)?;
        safe.save_leaving(directory, &session, &credentials, to.name.clone())?;
        if noted {
            // It left before, and may be anywhere: nothing takes that back, and what went along then goes along.
            return Ok((session, None, locked));
        }
        if let Err(error) = Departure::begin(store, luggage, now_ms()).await {
            take_back(directory, store, &session, (&safe, &credentials)).await;
            return Err(error.into());
        }
        Ok((session, Some((safe, credentials)), locked))
    }
}

impl Leaving {
    /// The third step, into a directory.
    pub(super) async fn copy_to(&self, staging: &Path, key: &KeySource) -> Result<u64> {
        let own_key = self.directory.join(KEY_FILE);
        let key = match key {
            KeySource::File(path) if is_same(path, &own_key) => {
                let bytes = std::fs::read(path).map(Zeroizing::new);
                let bytes = bytes.map_err(|source| Error::FileUnreadable {
                    path: path.clone(),
                    source,
                })?;
                let path = staging.join(KEY_FILE);
                write_private_file(&path, &bytes, false)?;
                KeySource::File(path)
            }
            key => key.clone(),
        };
        let to: Arc<dyn Backend> = Arc::new(Sqlite::open(staging.join("store")).await?);
        let records = mx_crypto_store::copy(&*self.backend, &*to).await?;
        let store = PickleStore::open_existing(to, key.clone()).await?;
        settle_in(staging, staging, &store, key).await?;
        store.shutdown().await?;
        Ok(records)
    }

    /// The last step.
    pub(super) async fn gone(self, records: u64) -> Result<MovedDevice> {
        self.store.shutdown().await?;
        session::save(&self.directory, &self.session, &Kept::Left(self.to))?;
        Ok(MovedDevice {
            session: self.session,
            records,
        })
    }

    /// Take the first steps back, if they were taken now and there is nothing that could arrive.
    pub(super) async fn stay(self, nothing_arrives: bool) {
        if let Some((safe, credentials)) = self.stays.as_ref().filter(|_| nothing_arrives) {
            take_back(&self.directory, &self.store, &self.session, (safe, credentials)).await;
        }
        closed(&self.store).await;
    }
}

/// After something else went wrong, which is what the caller is told.
async fn closed(store: &PickleStore) {
    if let Err(error) = store.shutdown().await {
        tracing::warn!(code = error.code(), "the store of a device that stays is not closed");
    }
}

/// The second step back, then the first: whoever dies in between has a device that leaves, and can leave or stay. What went
/// wrong before is what the caller is told.
async fn take_back(
    directory: &Path,
    store: &PickleStore,
    session: &Session,
    (safe, credentials): (&Safe, &Credentials),
) {
    let back = Departure::arrive(store).await.map_err(Error::from);
    if let Err(error) = back.and_then(|()| safe.save(directory, session, credentials)) {
        tracing::error!(
            code = error.code(),
            "the device does not run until the move is tried again"
        );
    }
}

/// Two names of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
