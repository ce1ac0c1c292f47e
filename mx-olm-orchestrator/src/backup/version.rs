//! Versions of the backup: which one there is, whether it is ours, and making one.

use matrix_sdk_crypto::{OlmMachine, store::types::BackupDecryptionKey, types::RoomKeyBackupInfo};
use mx_crypto_store::{RecordId, StoreError, Unit};
use mx_transport::RequestError;
use ruma::{
    api::client::backup::{create_backup_version, delete_backup_version, get_latest_backup_info},
    serde::Raw,
};
use zeroize::Zeroizing;

use super::{BackupError, BackupHalt, status::halted};
use crate::{
    Error, Orchestrator, Result,
    identity::{backup_not_kept, own},
    keys::SETTINGS,
    machine::Ending,
};

/// The newest version, as the homeserver shows it.
#[derive(Clone)]
pub(super) struct Latest {
    pub(super) version: String,
    pub(super) info: RoomKeyBackupInfo,
    pub(super) count: u64,
}

/// Whose a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its key belongs to the private key that we hold.
    pub(super) is_ours: bool,
    /// Somebody whom we trust signed it: our identity, this device, or a verified one.
    pub(super) is_signed: bool,
    /// This device may say who signed it: it is part of the account's identity, or there is none.
    pub(super) is_judged: bool,
}

/// With which private key a version is used.
pub(super) enum Key {
    /// The one that this version was begun with, or else the one that is here, if it is of this version.
    Held(RoomKeyBackupInfo),
    /// One that was made for it.
    Made(BackupDecryptionKey),
    /// One from secret storage, or from another device.
    Adopted(BackupDecryptionKey),
}

/// A private key whose backup may not have been made yet.
fn being_made() -> RecordId {
    RecordId::named(SETTINGS, &[], "backup-being-made")
}

impl Orchestrator {
    /// The newest version of the backup. `None`: there is none.
    pub(super) async fn latest_backup(&self) -> Result<Option<Latest>> {
        let answer = match self.homeserver().send(get_latest_backup_info::v3::Request::new()).await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let info = answer.algorithm.deserialize_as::<RoomKeyBackupInfo>();
        let info = info.map_err(|_| BackupError::Untrusted {
            version: answer.version.clone(),
        })?;
        Ok(Some(Latest {
            version: answer.version,
            info,
            count: answer.count.into(),
        }))
    }

    /// Use the account's key backup, or make one: room keys are put into it with every sync. `replace`: make a new one
    /// when the one that is there is not ours; what is in it can be read with its own key only. A device that is not part of the
    /// account's identity replaces none: it cannot tell whose it is. Returns its version.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, a_person_said_so: bool) -> Result<(), mx_olm_orchestrator::Error> {
    /// let version = match device.enable_backup(false).await {
    ///     // Made by nobody whom we trust. A new one takes its place, and what only the old one has is lost.
    ///     Err(error) if error.code() == "backup_untrusted" && a_person_said_so => device.enable_backup(true).await?,
    ///     used => used?,
    /// };
    /// println!("room keys go into version {version}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BackupError::Untrusted`], [`BackupError::KeyMissing`], [`BackupError::Unsupported`]; of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: the key is on the disk before its backup is made, and the next call finds it.
    pub async fn enable_backup(&self, replace: bool) -> Result<String> {
        let Some(latest) = self.latest_backup().await? else {
            return self.make_backup().await;
        };
        let standing = self.standing_of(&latest).await?;
        if standing.is_ours {
            self.use_backup(latest.version.clone(), Key::Held(latest.info)).await?;
            return Ok(latest.version);
        }
        match self.refusal(&latest, standing) {
            // What our other devices put there would be lost to whoever comes later.
            error if !replace || !standing.is_judged => Err(error.into()),
            _ => self.make_backup().await,
        }
    }

    /// Why a version that is not ours is not used.
    pub(super) fn refusal(&self, latest: &Latest, standing: Standing) -> BackupError {
        let version = latest.version.clone();
        match &latest.info {
            _ if !standing.is_judged => BackupError::KeyMissing { version },
            RoomKeyBackupInfo::Other { algorithm, .. } => BackupError::Unsupported {
                algorithm: algorithm.chars().take(64).collect(),
            },
            _ if standing.is_signed => BackupError::KeyMissing { version },
            _ => BackupError::Untrusted { version },
        }
    }

    /// Whose this version is.
    pub(super) async fn standing_of(&self, latest: &Latest) -> Result<Standing> {
        let info = latest.info.clone();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move { Ok(Ending::Commit(standing(machine, unit, info).await?)) })
            })
            .await
    }

    /// Use the backup with this private key, from secret storage or another device, if there is one that it belongs to.
    pub(crate) async fn adopt_backup_key(&self, key: &Zeroizing<String>) -> Result<Option<String>> {
        let Some(latest) = self.latest_backup().await? else {
            return Ok(None);
        };
        let adopted = BackupDecryptionKey::from_base64(key).ok();
        let Some(key) = adopted.filter(|key| key.backup_key_matches(&latest.info)) else {
            let standing = self.standing_of(&latest).await?;
            if standing.is_ours {
                self.use_backup(latest.version.clone(), Key::Held(latest.info)).await?;
                return Ok(Some(latest.version));
            }
            return Err(self.refusal(&latest, standing).into());
        };
        self.use_backup(latest.version.clone(), Key::Adopted(key)).await?;
        Ok(Some(latest.version))
    }

    /// From now on, put room keys into this version.
    pub(super) async fn use_backup(&self, version: String, key: Key) -> Result<()> {
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let backups = machine.backup_machine();
                    let (key, is_new) = match key {
                        Key::Adopted(key) => (key, false),
                        Key::Made(key) => (key, true),
                        Key::Held(info) => key_of(machine, unit, &info).await?.ok_or_else(|| {
                            let version = version.clone();
                            BackupError::KeyMissing { version }
                        })?,
                    };
                    if is_new {
                        // The secret storage holds another one, or none.
                        unit.put(&backup_not_kept(), &true)?;
                        unit.delete(&being_made())?;
                    }
                    let public = key.megolm_v1_public_key();
                    public.set_version(version.clone());
                    backups.save_decryption_key(Some(key), Some(version)).await?;
                    backups.enable_backup_v1(public).await?;
                    unit.delete(&halted())?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        self.backup_pace().is_due();
        Ok(())
    }

    async fn make_backup(&self) -> Result<String> {
        let (info, key) = self
            .machine()
            .unit(|machine, unit| {
                Box::pin(async {
                    let key = BackupDecryptionKey::new();
                    unit.put(&being_made(), &*Zeroizing::new(key.to_base64()))?;
                    let mut info = key.to_backup_info();
                    let signed = machine.backup_machine().sign_backup(&mut info).await;
                    signed.map_err(|error| Error::engine(&error))?;
                    Ok(Ending::Commit((info, key)))
                })
            })
            .await?;
        let info = Raw::new(&info).map_err(|error| Error::engine(&error))?;
        let request = create_backup_version::v3::Request::new(info.cast());
        let version = self.homeserver().send(request).await?.version;
        self.use_backup(version.clone(), Key::Made(key)).await?;
        Ok(version)
    }

    /// Delete the newest version of the account's backup, with all keys in it, and use none from now on.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// match device.delete_backup().await {
    ///     Ok(version) => println!("version {version} is gone, for all devices of the account"),
    ///     Err(error) if error.code() == "no_backup" => {}
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BackupError::Absent`]; of the request; of the store.
    pub async fn delete_backup(&self) -> Result<String> {
        let latest = self.latest_backup().await?.ok_or(BackupError::Absent)?;
        let request = delete_backup_version::v3::Request::new(latest.version.clone());
        match self.homeserver().send(request).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error.into()),
        }
        self.halt_backup(BackupHalt::Off, None).await?;
        Ok(latest.version)
    }
}

/// A key whose backup was to be made.
async fn made(unit: &Unit) -> Result<Option<BackupDecryptionKey>> {
    let kept: Option<Zeroizing<String>> = unit.get(&being_made()).await?;
    let key = kept.map(|kept| BackupDecryptionKey::from_base64(&kept)).transpose();
    key.map_err(|_| {
        let what = "the key of a backup that was to be made";
        StoreError::Corrupt { what }.into()
    })
}

/// The homeserver knows no such version. A page that is not found says nothing of backups.
fn is_absent(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::Api { status, errcode: Some(errcode), .. } if status.as_u16() == 404 && errcode == "M_NOT_FOUND"
    )
}

/// The private key that belongs to this version, and whether it was begun with it. One that was begun and not ended may be of a
/// backup that was never made.
async fn key_of(
    machine: &OlmMachine,
    unit: &Unit,
    info: &RoomKeyBackupInfo,
) -> Result<Option<(BackupDecryptionKey, bool)>> {
    let is_of_it = |key: &BackupDecryptionKey| key.backup_key_matches(info);
    if let Some(begun) = made(unit).await?.filter(is_of_it) {
        return Ok(Some((begun, true)));
    }
    let held = machine.backup_machine().get_backup_keys().await?.decryption_key;
    Ok(held.filter(is_of_it).map(|key| (key, false)))
}

async fn standing(machine: &OlmMachine, unit: &Unit, info: RoomKeyBackupInfo) -> Result<Standing> {
    Ok(Standing {
        is_ours: key_of(machine, unit, &info).await?.is_some(),
        is_signed: machine.backup_machine().verify_backup(info, false).await?.trusted(),
        is_judged: !own::standing(machine).await?.is_outside(),
    })
}
