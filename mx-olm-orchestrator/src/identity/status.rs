//! Who we are, who vouches for us, what is missing, and what mends it: one look at everything.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{OlmMachine, UserIdentity};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Serialize;

use super::{IdentityStanding, create::backup_not_kept, own, set_up::key_name};
use crate::{
    BackupStatus, DehydrationStatus, Orchestrator, Result, VerifiedBy, machine::Ending, secrets::SECRETS,
    verification::verified_by,
};

/// Everything about our own identity.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::IdentityStanding;
///
/// let us = device.identity_status().await?;
/// assert_eq!(us.standing, IdentityStanding::Good, "{:?}", us.problems);
/// // What others compare.
/// println!("{} {:?}; this device {} {}", us.user_id, us.master_key, us.device_id, us.fingerprint);
/// for other in &us.unsigned_devices {
///     println!("{other} is ours by its name alone: verify it, or delete it");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct IdentityStatus {
    /// Who we are.
    pub user_id: OwnedUserId,
    /// Which device this is.
    pub device_id: OwnedDeviceId,
    /// This device's fingerprint, its Ed25519 key.
    pub fingerprint: String,
    /// How our identity stands.
    pub standing: IdentityStanding,
    /// The public master key of the account, which others verify.
    pub master_key: Option<String>,
    /// Which private keys are not here: `master key`, `self-signing key`, `user-signing key`.
    pub private_keys_missing: Vec<&'static str>,
    /// Our other devices that the identity has signed.
    pub signed_devices: BTreeSet<OwnedDeviceId>,
    /// Our other devices that it has not signed.
    pub unsigned_devices: BTreeSet<OwnedDeviceId>,
    /// Users who have verified this identity together with this device. Whom else it convinces is known to themselves alone:
    /// a homeserver shows nobody the signatures of others.
    pub verified_by: Vec<VerifiedBy>,
    /// Users whom this identity has verified.
    pub verified_users: BTreeSet<OwnedUserId>,
    /// Users who were verified, and have another identity now: nothing is sent to them until that is acknowledged.
    pub changed_users: BTreeSet<OwnedUserId>,
    /// The secret storage.
    pub secret_storage: SecretStorageStatus,
    /// The key backup.
    pub backup: BackupStatus,
    /// The dehydrated device.
    pub dehydrated_device: DehydrationStatus,
    /// What is missing, the most important first.
    pub problems: Vec<IdentityProblem>,
}

/// What is in the secret storage.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let storage = device.identity_status().await?.secret_storage;
/// if !storage.holds.iter().any(|secret| secret == "m.cross_signing.master") {
///     println!("a recovery key would not bring the identity back");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SecretStorageStatus {
    /// The name of its key. `None`: there is no storage.
    pub key_id: Option<String>,
    /// The secrets that it holds, of those that belong to an identity and a backup.
    pub holds: Vec<String>,
}

/// Something that is missing.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// if let Some(first) = device.identity_status().await?.problems.first() {
///     println!("{} [{}]: run {}", first.advice, first.code, first.command);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IdentityProblem {
    /// A stable name, for programs.
    pub code: &'static str,
    /// What is wrong and what to do, in one sentence.
    pub advice: &'static str,
    /// The command that mends it.
    pub command: &'static str,
}

const fn problem(code: &'static str, advice: &'static str, command: &'static str) -> IdentityProblem {
    IdentityProblem { code, advice, command }
}

/// What the engine knows.
struct Known {
    fingerprint: String,
    standing: IdentityStanding,
    master_key: Option<String>,
    private_keys_missing: Vec<&'static str>,
    signed_devices: BTreeSet<OwnedDeviceId>,
    unsigned_devices: BTreeSet<OwnedDeviceId>,
    verified_users: BTreeSet<OwnedUserId>,
    changed_users: BTreeSet<OwnedUserId>,
}

impl Orchestrator {
    /// Everything about our own identity, as the homeserver shows it now. It looks at every room key.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let us = device.identity_status().await?;
    /// match us.problems.as_slice() {
    ///     [] => println!("{} is in order", us.user_id),
    ///     problems => problems.iter().for_each(|problem| println!("{}: {}", problem.advice, problem.command)),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store. What is wrong with the identity is no error, but in the answer.
    pub async fn identity_status(&self) -> Result<IdentityStatus> {
        self.refresh_own_keys().await?;
        let known = self
            .machine()
            .unit(|machine, _| Box::pin(async { Ok(Ending::Commit(known(machine).await?)) }))
            .await?;
        let key_id = self.default_key().await?;
        let holds = match &key_id {
            Some(key_id) => self.kept_secrets(key_id).await?,
            None => Vec::new(),
        };
        let mut status = IdentityStatus {
            user_id: self.user_id().to_owned(),
            device_id: self.device_id().to_owned(),
            verified_by: verified_by(self.store(), known.master_key.as_deref()).await?,
            verified_users: known.verified_users,
            changed_users: known.changed_users,
            fingerprint: known.fingerprint,
            standing: known.standing,
            master_key: known.master_key,
            private_keys_missing: known.private_keys_missing,
            signed_devices: known.signed_devices,
            unsigned_devices: known.unsigned_devices,
            secret_storage: SecretStorageStatus {
                key_id,
                holds: holds.iter().map(|name| name.as_str().to_owned()).collect(),
            },
            backup: self.backup_status().await?,
            dehydrated_device: self.dehydration_status().await?,
            problems: Vec::new(),
        };
        if self.own_device().await?.is_some() {
            status.problems.push(problem(
                "device_deleted",
                "the homeserver does not show this device, or shows it with other keys: log out, and log in for a new device",
                "mx logout",
            ));
        }
        status.find_problems();
        let new_key = self.store().record::<bool>(&backup_not_kept()).await? == Some(true);
        if new_key && status.secret_storage.key_id.is_some() {
            status.problems.push(problem(
                "backup_key_not_kept",
                "the key of the backup is in no secret storage: when this disk is lost, nothing opens the backup",
                "mx identity new-recovery-key",
            ));
        }
        Ok(status)
    }
}

async fn known(machine: &OlmMachine) -> Result<Known> {
    let identity = machine.get_identity(machine.user_id(), None).await?;
    let master_key = identity.and_then(|identity| match identity {
        UserIdentity::Own(own) => own.master_key().get_first_key(),
        UserIdentity::Other(_) => None,
    });
    let mut missing = Vec::new();
    for name in &SECRETS {
        if let Some(key) = key_name(name)
            && machine.store().export_secret(name).await?.is_none()
        {
            missing.push(key);
        }
    }
    let (mut signed, mut unsigned) = (BTreeSet::new(), BTreeSet::new());
    for device in machine.get_user_devices(machine.user_id(), None).await?.devices() {
        if device.device_id() == machine.device_id() {
            continue;
        }
        let which = if device.is_cross_signed_by_owner() {
            &mut signed
        } else {
            &mut unsigned
        };
        which.insert(device.device_id().to_owned());
    }
    let (mut verified, mut changed) = (BTreeSet::new(), BTreeSet::new());
    for user in machine.tracked_users().await? {
        match machine.get_identity(&user, None).await? {
            Some(UserIdentity::Other(other)) if other.is_verified() => _ = verified.insert(user),
            Some(UserIdentity::Other(other)) if other.has_verification_violation() => _ = changed.insert(user),
            _ => {}
        }
    }
    Ok(Known {
        fingerprint: machine.identity_keys().ed25519.to_base64(),
        standing: own::standing(machine).await?,
        master_key: master_key.map(|key| key.to_base64()),
        private_keys_missing: missing,
        signed_devices: signed,
        unsigned_devices: unsigned,
        verified_users: verified,
        changed_users: changed,
    })
}

impl IdentityStatus {
    fn find_problems(&mut self) {
        let standing = self.standing;
        let mend = match standing {
            IdentityStanding::Absent | IdentityStanding::DeviceNotSigned => "mx identity setup",
            IdentityStanding::Unverified | IdentityStanding::Replaced => "mx identity recover",
            IdentityStanding::Good => "",
        };
        if !standing.is_good() {
            self.problems.push(problem(standing.code(), standing.advice(), mend));
        }
        if standing.is_good() && !self.private_keys_missing.is_empty() {
            self.problems.push(problem(
                "identity_incomplete",
                "this device is verified and does not hold the private keys, so that it can verify nobody: recover them",
                "mx identity recover",
            ));
        }
        if self.secret_storage.key_id.is_none() {
            self.problems.push(problem(
                "no_secret_storage",
                "the secrets of the identity are kept nowhere else: when this disk is lost, so is the identity",
                "mx identity setup",
            ));
        } else if self.secret_storage.holds.len() < SECRETS.len() {
            self.problems.push(problem(
                "secrets_missing",
                "the secret storage does not hold all secrets: with its recovery key alone not everything can be recovered",
                "mx identity new-recovery-key",
            ));
        }
        if self.dehydrated_device.enabled && self.dehydrated_device.device_id.is_none() {
            self.problems.push(problem(
                "dehydrated_device_missing",
                "the homeserver has lost the dehydrated device: a device that is set up later cannot read what comes until then",
                "mx identity dehydrate",
            ));
        }
        self.find_problems_of_backup();
    }

    fn find_problems_of_backup(&mut self) {
        let found = match (&self.backup.on_server, self.backup.enabled) {
            (Some(on_server), true) if on_server.is_ours => return,
            (None, _) => problem(
                "no_backup",
                "room keys are kept on this disk only: when it is lost, so is what was said",
                "mx backup enable",
            ),
            (Some(on_server), _) if on_server.is_ours => problem(
                "backup_off",
                "the account has a key backup whose key is here, and this device does not use it",
                "mx backup enable",
            ),
            // It may well be ours, where this device cannot say.
            (Some(on_server), _) if on_server.is_signed || self.standing.is_outside() => problem(
                "backup_key_missing",
                "the account has a key backup whose key is not here",
                "mx identity recover",
            ),
            (Some(_), _) => problem(
                "backup_untrusted",
                "the account has a key backup that nobody whom this device trusts has signed: it is not used",
                "mx identity recover, or mx backup enable --replace",
            ),
        };
        self.problems.push(found);
    }
}
