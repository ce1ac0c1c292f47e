//! What goes along with a store, and how it is unpacked where it arrives.

use std::path::Path;

use mx_crypto_store::{KeySource, PickleStore};
use mx_olm_orchestrator::Departure;
use ruma::serde::Base64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    ClientBuilder, Error, ImportError, Result, Session,
    private_file::write_private_file,
    session::{self, Credentials, Safe, Written},
};

/// What goes along with a store.
#[derive(Serialize, Deserialize)]
struct Luggage {
    homeserver: String,
    user_id: ruma::OwnedUserId,
    device_id: ruma::OwnedDeviceId,
    login: Written,
    /// Files that belong to the login, by their names.
    files: Vec<(String, Base64)>,
}

impl ClientBuilder {
    /// The login, and what is to be taken along.
    pub(super) fn packed(
        &self,
        directory: &Path,
        session: &Session,
        credentials: &Credentials,
    ) -> Result<Zeroizing<String>> {
        let mut files = Vec::new();
        for name in &self.luggage {
            let path = directory.join(checked(name)?);
            match std::fs::read(&path) {
                Ok(content) => files.push((name.clone(), Base64::new(content))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::FileUnreadable { path, source }),
            }
        }
        let luggage = Luggage {
            homeserver: session.homeserver.clone(),
            user_id: session.user_id.clone(),
            device_id: session.device_id.clone(),
            login: credentials.written(),
            files,
        };
        let text = serde_json::to_string(&luggage).map(Zeroizing::new);
        text.map_err(|_| session::damaged(directory))
    }
}

/// A store that came with its luggage: the login and the files are put beside it, and it may be opened.
pub(super) async fn settle_in(from: &Path, directory: &Path, store: &PickleStore, key: KeySource) -> Result<Session> {
    let foreign = |what: &str| -> Error {
        ImportError::Foreign {
            path: from.to_owned(),
            what: what.to_owned(),
        }
        .into()
    };
    let departure = Departure::of(store).await?;
    let departure = departure.ok_or_else(|| foreign("it holds a store, and no device that was moved"))?;
    let luggage: Luggage =
        serde_json::from_str(departure.luggage()).map_err(|_| foreign("what came with the store is not a login"))?;
    let session = Session {
        homeserver: luggage.homeserver,
        user_id: luggage.user_id,
        device_id: luggage.device_id,
    };
    if store.device().await? != Some((session.user_id.clone(), session.device_id.clone())) {
        return Err(foreign("the store is of another device than the login"));
    }
    let credentials = luggage.login.credentials(&session);
    let credentials = credentials.ok_or_else(|| foreign("what came with the store is not a login"))?;
    Safe::create(key).await?.save(directory, &session, &credentials)?;
    for (name, content) in luggage.files {
        write_private_file(directory.join(checked(&name)?), content.as_bytes(), false)?;
    }
    Departure::arrive(store).await?;
    Ok(session)
}

/// The name of a file beside the store: no path, and none of the store's.
fn checked(name: &str) -> Result<&str> {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    let ours = ["store", "session", "pickle.key"]
        .iter()
        .any(|ours| name.starts_with(ours));
    if name.is_empty() || name.starts_with('.') || ours || !name.chars().all(plain) {
        return Err(Error::Configuration {
            what: format!("{name:?} is not the name of a file that can be taken along"),
        });
    }
    Ok(name)
}
