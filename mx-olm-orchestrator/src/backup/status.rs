//! How the backup stands, here and on the homeserver.

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{RecordId, Unit};
use serde::{Deserialize, Serialize};

use crate::{BackupStopped, Event, Orchestrator, Problem, Result, keys::SETTINGS, machine::Ending, receive::inbox};

/// Why no room keys are put into a backup that was used.
///
/// ```
/// use mx_olm_orchestrator::BackupHalt;
///
/// fn is_to_be_looked_at(halted: BackupHalt) -> bool {
///     match halted {
///         BackupHalt::Off => false,
///         // Another device of ours did so, or whoever has our login.
///         BackupHalt::Deleted | BackupHalt::Replaced => true,
///         _ => true,
///     }
/// }
/// assert!(is_to_be_looked_at(BackupHalt::Replaced), "{}", BackupHalt::Replaced.advice());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupHalt {
    /// Somebody here said so.
    Off,
    /// The homeserver has it no more.
    Deleted,
    /// Another one has taken its place.
    Replaced,
}

impl BackupHalt {
    /// What to do, in one sentence.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Off => "the key backup is off: run mx backup enable",
            Self::Deleted => {
                "the key backup was deleted by another device, and room keys are not backed up any more: run mx backup enable"
            }
            Self::Replaced => {
                "another key backup has taken the place of ours, and room keys are not backed up any more: run mx identity \
                 recover if it is yours, or mx backup enable --replace"
            }
        }
    }
}

/// How the backup stands.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let status = device.backup_status().await?;
/// if !status.enabled && status.on_server.is_none() {
///     device.enable_backup(false).await?;
///     println!("{} room keys went into a new backup", device.back_up(usize::MAX).await?);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackupStatus {
    /// Room keys are put into it.
    pub enabled: bool,
    /// The version that is used here.
    pub version: Option<String>,
    /// The newest version on the homeserver.
    pub on_server: Option<BackupOnServer>,
    /// Why room keys are not put into it any more.
    pub halted: Option<BackupHalt>,
    /// How many room keys this device has.
    pub room_keys: usize,
    /// How many of them are in the version that is used here.
    pub backed_up: usize,
}

/// A backup as the homeserver shows it.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// if let Some(found) = device.backup_status().await?.on_server
///     && !found.is_ours
///     && !found.is_signed
/// {
///     println!("somebody whom we do not trust has made version {}: no key is put into it", found.version);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackupOnServer {
    /// Its version.
    pub version: String,
    /// How many room keys it says to hold.
    pub room_keys: u64,
    /// Its key belongs to the private key that we hold.
    pub is_ours: bool,
    /// Somebody whom we trust signed it.
    pub is_signed: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Halted {
    pub(super) because: BackupHalt,
    since_ms: u64,
}

pub(super) fn halted() -> RecordId {
    RecordId::named(SETTINGS, &[], "backup-halted")
}

/// Whether room keys are put into a backup, and may be looked for there.
pub(crate) async fn is_active(machine: &OlmMachine, unit: &Unit) -> Result<bool> {
    Ok(machine.backup_machine().enabled().await && unit.get::<Halted>(&halted()).await?.is_none())
}

impl Orchestrator {
    /// How the backup stands. It looks at every room key.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let stands = device.backup_status().await?;
    /// match (stands.enabled, stands.on_server) {
    ///     (true, _) => println!("{} of {} room keys are in version {:?}", stands.backed_up, stands.room_keys, stands.version),
    ///     (false, Some(found)) => println!("there is version {}, and it is not used here", found.version),
    ///     (false, None) => println!("there is none"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn backup_status(&self) -> Result<BackupStatus> {
        let on_server = match self.latest_backup().await? {
            None => None,
            Some(latest) => {
                let standing = self.standing_of(&latest).await?;
                Some(BackupOnServer {
                    version: latest.version,
                    room_keys: latest.count,
                    is_ours: standing.is_ours,
                    is_signed: standing.is_signed,
                })
            }
        };
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let backups = machine.backup_machine();
                    let counts = backups.room_key_counts().await?;
                    let halted: Option<Halted> = unit.get(&halted()).await?;
                    Ok(Ending::Commit(BackupStatus {
                        enabled: is_active(machine, unit).await?,
                        version: backups.backup_version().await,
                        on_server,
                        halted: halted.map(|halted| halted.because),
                        room_keys: counts.total,
                        backed_up: counts.backed_up,
                    }))
                })
            })
            .await
    }

    /// Put nothing into the backup any more. `told`: the version, when nobody here said so.
    pub(super) async fn halt_backup(&self, because: BackupHalt, told: Option<String>) -> Result<()> {
        let since_ms = self.now_ms();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    machine.backup_machine().disable_backup().await?;
                    unit.put(&halted(), &Halted { because, since_ms })?;
                    if let Some(version) = told {
                        tracing::error!(%version, ?because, "the key backup is not what it was, and is not used any more");
                        let advice = because.advice().to_owned();
                        let event = BackupStopped { version, because, advice };
                        inbox::append(unit, &[Event::BackupStopped(event)]).await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// What is wrong with the backup, as far as earlier exchanges showed.
    pub(crate) async fn backup_problem(&self) -> Result<Option<Problem>> {
        let halted: Option<Halted> = self.store().record(&halted()).await?;
        let halted = halted.filter(|halted| halted.because != BackupHalt::Off);
        Ok(halted.map(|halted| Problem {
            code: "backup_changed",
            advice: halted.because.advice().to_owned(),
            since_ms: Some(halted.since_ms),
        }))
    }
}
