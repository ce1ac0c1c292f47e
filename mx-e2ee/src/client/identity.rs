//! Our own identity and the key backup: set up, recovered, looked at.

use std::path::PathBuf;

use mx_olm_orchestrator::{
    BackupStatus, DehydrationStatus, IdentityStatus, Recovered, Rehydrated, RoomKeyImport, SetUp, SetUpIdentity,
};
use mx_transport::Answers;
use ruma::{OwnedDeviceId, RoomId};
use zeroize::Zeroizing;

use super::Client;
use crate::{Result, write_private_file};

/// What a recovery key is kept in, and what opens the secret storage beside it.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
/// use mx_e2ee::{RecoveryKeeping, transport::Unattended};
///
/// let mut keeping = RecoveryKeeping::default();
/// keeping.file = Some("/mnt/safe/mybot.recovery".into());
/// keeping.passphrase = Some("correct horse battery staple".to_owned().into());
/// client.set_up_identity(&Unattended::new(), keeping).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RecoveryKeeping {
    /// Write the recovery key into this file, for its owner only, before it is the one that counts. It must not exist.
    pub file: Option<PathBuf>,
    /// A passphrase that opens the secret storage, too.
    pub passphrase: Option<Zeroizing<String>>,
}

impl RecoveryKeeping {
    fn keep(file: PathBuf) -> mx_olm_orchestrator::KeepRecoveryKey<'static> {
        Box::new(move |key: &str| {
            write_private_file(&file, format!("{key}\n").as_bytes(), false).map_err(std::io::Error::other)
        })
    }
}

impl Client {
    /// Give the account what a verified device needs, as far as it lacks it: a cross-signing identity that signs this
    /// device, a key backup, and a secret storage with the keys of both. As
    /// [`Orchestrator::set_up_identity`](mx_olm_orchestrator::Orchestrator::set_up_identity).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{RecoveryKeeping, transport::Unattended};
    ///
    /// let set_up = client.set_up_identity(&Unattended::new(), RecoveryKeeping::default()).await?;
    /// if let Some(key) = set_up.recovery_key {
    ///     println!("keep this, it is not shown again: {}", *key);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `identity_exists`; of the authentication; of the request; of the store; `recovery_key_not_kept`.
    pub async fn set_up_identity(&self, answers: &dyn Answers, keeping: RecoveryKeeping) -> Result<SetUp> {
        let how = SetUpIdentity {
            answers,
            passphrase: keeping.passphrase,
            keep_recovery_key: keeping.file.map(RecoveryKeeping::keep),
        };
        Ok(self.0.device.set_up_identity(how).await?)
    }

    /// Replace the account's identity by a new one, and set up what belongs to it. Everybody who verified the account has to
    /// verify it again.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{RecoveryKeeping, transport::Unattended};
    /// use mx_e2ee::ruma::api::client::uiaa::{MatrixUserIdentifier, UserIdentifier};
    ///
    /// let me = UserIdentifier::Matrix(MatrixUserIdentifier::new("mybot".to_owned()));
    /// let answers = Unattended::new().password(me, "the password of the account");
    /// let made = client.reset_identity(&answers, RecoveryKeeping::default()).await?;
    /// println!("there is a new recovery key: {}", made.recovery_key.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`set_up_identity`](Self::set_up_identity).
    pub async fn reset_identity(&self, answers: &dyn Answers, keeping: RecoveryKeeping) -> Result<SetUp> {
        self.0.device.reset_identity(answers).await?;
        self.set_up_identity(answers, keeping).await
    }

    /// Make this device part of the account's identity with its recovery key, or the passphrase of its secret storage. As
    /// [`Orchestrator::recover_identity`](mx_olm_orchestrator::Orchestrator::recover_identity).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let recovered = client.recover_identity("EsTc …").await?;
    /// if let Some(rehydrated) = recovered.rehydrated {
    ///     println!("{} room keys came while there was no device", rehydrated.room_keys);
    /// }
    /// let restored = client.restore_backup(None).await?;
    /// println!("{} of {} room keys of the backup are new here", restored.imported, restored.total);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `wrong_recovery_key`, `no_secret_storage`, `secret_storage_rejected`, `secrets_missing`, `no_identity`,
    /// `identity_mismatch`; of the request; of the store.
    pub async fn recover_identity(&self, key_or_passphrase: &str) -> Result<Recovered> {
        let device = &self.0.device;
        let mut storage = device.open_secret_storage(key_or_passphrase).await?;
        Ok(device.recover_identity(&mut storage).await?)
    }

    /// Make a dehydrated device (MSC3814): one on the homeserver that takes room keys while this device is lost, for the one
    /// that recovers the identity afterwards. It is replaced by a sync every week. One that another device made is opened
    /// first. As [`Orchestrator::dehydrate`](mx_olm_orchestrator::Orchestrator::dehydrate).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// if client.dehydration_status().await?.supported {
    ///     println!("{} takes room keys from now on", client.dehydrate("EsTc …").await?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `dehydration_unsupported`, `dehydration_not_signed`, `wrong_recovery_key`, `no_secret_storage`; of the request; of
    /// the store.
    pub async fn dehydrate(&self, key_or_passphrase: &str) -> Result<OwnedDeviceId> {
        let device = &self.0.device;
        let mut storage = device.open_secret_storage(key_or_passphrase).await?;
        Ok(device.dehydrate(&mut storage).await?)
    }

    /// Open the account's dehydrated device, take the room keys that it was sent, and make a new one;
    /// [`recover_identity`](Self::recover_identity) does this by itself. As
    /// [`Orchestrator::rehydrate`](mx_olm_orchestrator::Orchestrator::rehydrate).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// match client.rehydrate().await {
    ///     Ok(opened) => println!("{} room keys of it are new here", opened.room_keys),
    ///     Err(error) if error.code() == "no_dehydrated_device" => println!("there is none"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `no_dehydrated_device`, `dehydration_key_missing`, `dehydrated_device_rejected`; of the request; of the store.
    pub async fn rehydrate(&self) -> Result<Rehydrated> {
        Ok(self.0.device.rehydrate().await?)
    }

    /// How the account's dehydrated device stands.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let stands = client.dehydration_status().await?;
    /// match stands.device_id {
    ///     Some(device) => println!("{device} takes keys; it is opened from here: {}", stands.key_is_here),
    ///     None if stands.supported => println!("there is none: make one with `dehydrate`"),
    ///     None => println!("the homeserver does not know such devices"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn dehydration_status(&self) -> Result<DehydrationStatus> {
        Ok(self.0.device.dehydration_status().await?)
    }

    /// Delete the account's dehydrated device, and make none any more. Returns its id.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// match client.delete_dehydrated_device().await {
    ///     Ok(device) => println!("{device} takes no keys any more"),
    ///     Err(error) if error.code() == "no_dehydrated_device" => {}
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `no_dehydrated_device`, `dehydration_unsupported`; of the request; of the store.
    pub async fn delete_dehydrated_device(&self) -> Result<OwnedDeviceId> {
        Ok(self.0.device.delete_dehydrated_device().await?)
    }

    /// Make a new secret storage with the secrets that this device holds: its recovery key counts from then on.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let key = client.change_recovery_key(mx_e2ee::RecoveryKeeping::default()).await?;
    /// println!("the former one opens nothing any more, keep this: {}", *key);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `identity_incomplete`, `recovery_key_not_kept`; of the request; of the store.
    pub async fn change_recovery_key(&self, keeping: RecoveryKeeping) -> Result<Zeroizing<String>> {
        let keep = keeping.file.map(RecoveryKeeping::keep);
        Ok(self.0.device.change_recovery_key(keeping.passphrase, keep).await?)
    }

    /// Who we are, who vouches for us, what is missing, and what mends it.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let status = client.identity_status().await?;
    /// println!("people verify us by {:?}", status.master_key);
    /// for problem in status.problems {
    ///     println!("{}: {} ({})", problem.code, problem.advice, problem.command);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn identity_status(&self) -> Result<IdentityStatus> {
        Ok(self.0.device.identity_status().await?)
    }

    /// The secrets of our identity and backup, as a file that `passphrase` opens. As
    /// [`Orchestrator::export_secrets`](mx_olm_orchestrator::Orchestrator::export_secrets).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, other: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::write_private_file;
    ///
    /// let file = client.export_secrets("correct horse battery staple").await?;
    /// write_private_file("/mnt/safe/mybot.secrets", file.as_bytes(), false)?;
    ///
    /// // On another device of the account.
    /// other.import_secrets(&file, "correct horse battery staple").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `identity_incomplete`, `key_file_no_passphrase`; of the store.
    pub async fn export_secrets(&self, passphrase: &str) -> Result<String> {
        Ok(self.0.device.export_secrets(passphrase).await?)
    }

    /// Make this device part of the identity whose secrets are in such a file. As
    /// [`Orchestrator::import_secrets`](mx_olm_orchestrator::Orchestrator::import_secrets).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::fs::read_to_string("/mnt/safe/mybot.secrets")?;
    /// match client.import_secrets(&file, "correct horse battery staple").await {
    ///     Ok(recovered) => println!("{}; backup {:?}", recovered.standing.code(), recovered.backup_version),
    ///     // The identity was reset since the file was made.
    ///     Err(error) if error.code() == "identity_mismatch" => println!("{error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `no_secrets_bundle`, `wrong_recovery_key`, `identity_mismatch`; of the request; of the store.
    pub async fn import_secrets(&self, file: &str, passphrase: &str) -> Result<Recovered> {
        Ok(self.0.device.import_secrets(file, passphrase).await?)
    }

    /// How the key backup stands. It looks at every room key.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let backup = client.backup_status().await?;
    /// println!("{} of {} room keys are in the backup", backup.backed_up, backup.room_keys);
    /// if let Some(halted) = backup.halted {
    ///     println!("no more are put into it: {}", halted.advice());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn backup_status(&self) -> Result<BackupStatus> {
        Ok(self.0.device.backup_status().await?)
    }

    /// Use the account's key backup, or make one. As
    /// [`Orchestrator::enable_backup`](mx_olm_orchestrator::Orchestrator::enable_backup).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let version = client.enable_backup(false).await?;
    /// println!("{} room keys went into version {version}", client.back_up().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `backup_untrusted`, `backup_key_missing`, `backup_unsupported`; of the request; of the store.
    pub async fn enable_backup(&self, replace: bool) -> Result<String> {
        Ok(self.0.device.enable_backup(replace).await?)
    }

    /// Put all room keys that are not in the backup into it. Every sync puts some by itself. Returns how many went.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // Before the device is thrown away.
    /// client.back_up().await?;
    /// let stands = client.backup_status().await?;
    /// println!("{} of {} room keys are in it", stands.backed_up, stands.room_keys);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `backup_changed`; of the request, and the rest goes next time; of the store.
    pub async fn back_up(&self) -> Result<usize> {
        Ok(self.0.device.back_up(usize::MAX).await?)
    }

    /// Take the room keys of the backup, or of one room in it. As
    /// [`Orchestrator::restore_backup`](mx_olm_orchestrator::Orchestrator::restore_backup).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::room_id;
    ///
    /// // One room first, which somebody waits for, and then the rest.
    /// let taken = client.restore_backup(Some(room_id!("!alerts:example.org"))).await?;
    /// println!("{} of {} keys are new, and {} cannot be used", taken.imported, taken.total, taken.unusable);
    /// client.restore_backup(None).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `no_backup`, `backup_untrusted`, `backup_key_missing`; of the request; of the store.
    pub async fn restore_backup(&self, room: Option<&RoomId>) -> Result<RoomKeyImport> {
        Ok(self.0.device.restore_backup(room).await?)
    }

    /// Delete the account's key backup with all keys in it, and use none from now on. Returns its version.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // Keys that are nowhere else are gone with it: take them first.
    /// client.restore_backup(None).await?;
    /// println!("version {} is gone", client.delete_backup().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `no_backup`; of the request; of the store.
    pub async fn delete_backup(&self) -> Result<String> {
        Ok(self.0.device.delete_backup().await?)
    }
}
