//! What the engine knows, held against the manifest: before a send, after a query, with each message.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{OlmMachine, UserIdentity};
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{DeviceId, OwnedUserId, UserId};

use super::{Drift, Found, ListedUser, Manifest, ManifestError, TrustManifest};
use crate::{Error, Event, Orchestrator, Problem, Result, Trust, TrustDrift, machine::Ending, receive::inbox};

const DRIFT: Family = Family::new("manifest-drift");

/// As many users with differences are named in the health of a device.
const NAMED: usize = 20;

fn id(user: &UserId) -> RecordId {
    RecordId::named(DRIFT, &[], user.as_str())
}

async fn found(machine: &OlmMachine, user: &UserId) -> Result<Found> {
    let identity = machine.get_identity(user, None).await?;
    let master_key = identity.and_then(|identity| match identity {
        UserIdentity::Own(own) => own.master_key().get_first_key(),
        UserIdentity::Other(other) => other.master_key().get_first_key(),
    });
    let mut found = Found {
        master_key: master_key.map(|key| key.to_base64()),
        ..Found::default()
    };
    for device in machine.get_user_devices(user, None).await?.devices() {
        let is_this_one = user == machine.user_id() && device.device_id() == machine.device_id();
        if let Some(key) = device.ed25519_key().filter(|_| !is_this_one) {
            let known = (key.to_base64(), device.is_cross_signed_by_owner());
            found.devices.insert(device.device_id().to_owned(), known);
        }
    }
    Ok(found)
}

async fn differences(machine: &OlmMachine, manifest: &TrustManifest, user: &UserId) -> Result<Vec<Drift>> {
    let is_own = user == machine.user_id();
    let mut differences = manifest.differences(user, is_own, &found(machine, user).await?);
    // This very device is no reader of its own.
    differences.retain(
        |drift| !matches!(drift, Drift::DeviceMissing { device_id, .. } if is_own && device_id == machine.device_id()),
    );
    Ok(differences)
}

/// Refuse to go on while one of these users differs.
pub(crate) async fn refuse_drift(
    machine: &OlmMachine,
    manifest: &Manifest,
    users: &BTreeSet<OwnedUserId>,
) -> Result<()> {
    let Some(manifest) = manifest else { return Ok(()) };
    let mut all = Vec::new();
    for user in users {
        all.extend(differences(machine, manifest, user).await?);
    }
    if all.is_empty() {
        Ok(())
    } else {
        Err(ManifestError::Drift { differences: all }.into())
    }
}

/// Note how a user differs, and tell what is new.
pub(crate) async fn note_drift(
    machine: &OlmMachine,
    unit: &Unit,
    manifest: &Manifest,
    user: &UserId,
    events: &mut Vec<Event>,
) -> Result<()> {
    let before: Option<Vec<Drift>> = unit.get(&id(user)).await?;
    let now = match manifest {
        Some(manifest) if manifest.users.contains_key(user) => differences(machine, manifest, user).await?,
        _ => Vec::new(),
    };
    if now.is_empty() {
        if before.is_some() {
            unit.delete(&id(user))?;
        }
        return Ok(());
    }
    if before.as_ref() != Some(&now) {
        for drift in &now {
            tracing::error!(%drift, "what there is differs from the trust manifest");
        }
        unit.put(&id(user), &now)?;
        events.push(Event::TrustDrift(TrustDrift { differences: now }));
    }
    Ok(())
}

/// How far a device is known, with what the manifest says about it.
pub(crate) async fn standing(
    machine: &OlmMachine,
    manifest: &Manifest,
    sender: &UserId,
    device: &DeviceId,
    judged: Trust,
) -> Result<Trust> {
    let Some(manifest) = manifest.as_ref().filter(|manifest| manifest.users.contains_key(sender)) else {
        return Ok(judged);
    };
    Ok(match manifest.means(sender, device, &found(machine, sender).await?) {
        Some(true) => Trust::Verified,
        Some(false) => Trust::NotListed,
        None => judged,
    })
}

/// What a device is worth that is not the one that is known by its name.
pub(crate) fn standing_of_nobody(manifest: &Manifest, sender: &UserId, judged: Trust) -> Trust {
    match manifest {
        Some(manifest) if manifest.users.contains_key(sender) => Trust::NotListed,
        _ => judged,
    }
}

impl Orchestrator {
    /// Hold the users of a manifest against what the homeserver shows of them now: every difference.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_olm_orchestrator::TrustManifest;
    ///
    /// // Before it is put into use: what would be refused.
    /// let manifest = TrustManifest::parse(&std::fs::read_to_string("/etc/mybot/trust.json")?)?;
    /// for difference in device.check_trust_manifest(&manifest).await? {
    ///     println!("{difference}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn check_trust_manifest(&self, manifest: &TrustManifest) -> Result<Vec<Drift>> {
        let mut all = Vec::new();
        for user in manifest.users.keys() {
            self.refresh_keys_of(user).await?;
            let (user, manifest) = (user.clone(), manifest.clone());
            let found = self.machine().unit(move |machine, _| {
                Box::pin(async move { Ok(Ending::Commit(differences(machine, &manifest, &user).await?)) })
            });
            all.extend(found.await?);
        }
        Ok(all)
    }

    /// A manifest of these users as the homeserver shows them now: with their master keys where they have one, and the
    /// devices that those have not signed. Whether that is right is for people to say.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let users = [ruma::owned_user_id!("@boss:example.org")].into();
    /// let draft = device.draft_trust_manifest(&users).await?;
    /// // It is what the homeserver says. Compare each key with its owner before it is kept.
    /// for (user, listed) in &draft.users {
    ///     println!("{user}: {:?}, and {} devices by themselves", listed.master_key, listed.devices.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn draft_trust_manifest(&self, users: &BTreeSet<OwnedUserId>) -> Result<TrustManifest> {
        let mut manifest = TrustManifest::new();
        for user in users {
            self.refresh_keys_of(user).await?;
            let of = user.clone();
            let found = self
                .machine()
                .unit(move |machine, _| Box::pin(async move { Ok(Ending::Commit(found(machine, &of).await?)) }))
                .await?;
            let vouched = found.master_key.is_some();
            let unsigned = found
                .devices
                .into_iter()
                .filter(|(_, (_, signed))| !(vouched && *signed));
            let listed = ListedUser {
                master_key: found.master_key,
                devices: unsigned.map(|(device, (key, _))| (device, key)).collect(),
            };
            if listed.master_key.is_some() || !listed.devices.is_empty() {
                manifest.users.insert(user.clone(), listed);
            }
        }
        Ok(manifest)
    }

    /// How the users who are known differ from a manifest that is new here: noted, and told.
    pub(super) async fn apply_trust_manifest(&self, manifest: Manifest) -> Result<()> {
        let noted = self.store().scan(DRIFT, &[], None, usize::MAX).await?;
        if manifest.is_none() && noted.is_empty() {
            return Ok(());
        }
        // Those as well who are not listed any more.
        let mut users = BTreeSet::new();
        for record in noted {
            let differences: Vec<Drift> = record.decode()?;
            users.extend(differences.first().map(|drift| drift.user_id().to_owned()));
        }
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let mut events = Vec::new();
                    let tracked = machine.tracked_users().await?;
                    let listed = manifest.iter().flat_map(|manifest| manifest.users.keys());
                    users.extend(listed.filter(|user| tracked.contains(*user)).cloned());
                    for user in &users {
                        note_drift(machine, unit, &manifest, user, &mut events).await?;
                    }
                    inbox::append(unit, &events).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// That the manifest's file cannot be read now; and what differs from it, as far as earlier exchanges showed.
    pub(crate) async fn manifest_problems(&self) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        match self.manifest().await {
            Err(Error::Manifest(error)) => problems.push(error.problem()),
            manifest => drop(manifest?),
        }
        let mut differences: Vec<Drift> = Vec::new();
        for record in self.store().scan(DRIFT, &[], None, NAMED).await? {
            differences.extend(record.decode::<Vec<Drift>>()?);
        }
        if !differences.is_empty() {
            problems.push(ManifestError::Drift { differences }.problem());
        }
        Ok(problems)
    }
}

impl ManifestError {
    fn problem(&self) -> Problem {
        let is_of_the_file = !matches!(self, Self::Drift { .. });
        Problem {
            // Whoever looks wants to know that it does not count, and only then why.
            code: if is_of_the_file {
                "trust_manifest_unreadable"
            } else {
                self.code()
            },
            advice: self.to_string(),
            since_ms: None,
        }
    }
}
