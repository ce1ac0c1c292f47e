//! Who can read a room's next message, and why not: the same looks as a send, without sending.
//!
//! # Why
//! A receipt says whom a message reached, when it is too late. This says it before, and says more: which device is trusted
//! how far, how old the room's key is, and everything that a send would refuse. Members and devices are asked for as a send
//! does; no one-time key is claimed and no key is given to anybody.

mod shown;

use std::collections::BTreeSet;

use matrix_sdk_crypto::{Device, OlmMachine, olm::ShareInfo};
use mx_crypto_store::Unit;
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::history_visibility::HistoryVisibility,
};

pub use self::shown::{Outlook, Reader, ReaderDevice, ReaderIdentity, ReaderTrust, Readership, Refusal, RoomKeyStatus};
use super::{
    Recipients,
    policy::Policy,
    rotation::{self, Now, RoomKey, RotationReason},
    share::{Held, Shares, shares},
};
use crate::{
    Error, Orchestrator, Result, TrustManifest, UnusableReason,
    claims::{claim_failures, has_session},
    devices::unusable_devices,
    machine::Ending,
    rooms::{RoomEncryption, RoomRecord},
    trust_manifest::refuse_drift,
};

/// What is asked of the engine, in one unit.
struct Looking {
    room: OwnedRoomId,
    users: BTreeSet<OwnedUserId>,
    unknown: BTreeSet<OwnedUserId>,
    own: (OwnedUserId, OwnedDeviceId),
    policy: Policy,
    manifest: Option<std::sync::Arc<TrustManifest>>,
    visibility: HistoryVisibility,
    now_ms: u64,
}

impl Orchestrator {
    /// Who can read the room's next message, and why not. What is new is asked for first, as with a send; messages are left
    /// where they are.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// let readership = device.readership(room).await?;
    /// // Before something that must not go to a device that nobody knows.
    /// let strangers = readership.users.iter().flat_map(|user| &user.devices).filter(|device| {
    ///     device.outlook.can_read() && device.trust == mx_olm_orchestrator::ReaderTrust::Unsigned
    /// });
    /// println!("{} devices would read it that nobody has signed", strangers.count());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`readership_as_known`](Self::readership_as_known).
    pub async fn readership(&self, room: &RoomId) -> Result<Readership> {
        self.catch_up().await?;
        self.readership_as_known(room).await
    }

    /// The same, as syncs have left it: who came since is not seen. Members and devices that are not known are asked for.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// // For a list of many rooms, after one sync for all of them.
    /// let readership = device.readership_as_known(room).await?;
    /// let silent = readership.users.iter().filter(|reader| !reader.can_read()).count();
    /// println!("{room}: {silent} of {} cannot read", readership.users.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotInRoom`], [`Error::MembersIncomplete`]; of the request; of the store. What a send would refuse is no
    /// error, but in the answer.
    pub async fn readership_as_known(&self, room: &RoomId) -> Result<Readership> {
        let encrypted = self.is_encrypted(room).await?;
        let policy = self.policy(room, None).await?;
        let members = self.complete_members(room).await?;
        if !members.joined(&self.user_id().to_owned()) {
            return Err(Error::NotInRoom { room: room.to_owned() });
        }
        let visibility = self.history_visibility(room).await?;
        let users = members.readers(Some(&visibility));
        let mut refused = Vec::new();
        for check in [
            self.refuse_lost_device().await,
            self.refuse_in_conflict().await,
            self.refuse_after_rollback().await,
            self.refuse_tombstoned(room).await,
            policy.check(room, self.user_id(), &users),
        ] {
            refused.extend(check.err().as_ref().map(Refusal::of));
        }
        let mut failed = BTreeSet::new();
        let unknown = match self.query_devices(&users, &mut failed).await {
            // Our own device is told of above; what is known of the others is shown all the same.
            Err(_) if !refused.is_empty() => users.clone(),
            asked => asked?,
        };
        if policy.recipients.is_strict() && !unknown.is_empty() {
            refused.push(Refusal::of(&Error::RecipientsUnknown {
                room: room.to_owned(),
                users: unknown.clone(),
                servers: failed,
            }));
        }
        let looking = Looking {
            room: room.to_owned(),
            users,
            unknown,
            own: (self.user_id().to_owned(), self.device_id().to_owned()),
            policy,
            manifest: self.manifest().await?,
            visibility,
            now_ms: self.now_ms(),
        };
        let mut found = self
            .machine()
            .unit(move |machine, unit| Box::pin(async move { Ok(Ending::Commit(looking.look(machine, unit).await?)) }))
            .await?;
        found.encrypted = encrypted;
        found.refused.splice(0..0, refused);
        if !members.disputed().is_empty() {
            let warning = super::Warning::MembershipDisagrees {
                users: members.disputed().clone(),
            };
            found.warnings.push(Refusal {
                code: "membership_disagrees",
                advice: warning.describe(),
            });
        }
        Ok(found)
    }
}

impl Looking {
    async fn look(self, machine: &OlmMachine, unit: &Unit) -> Result<Readership> {
        let record = RoomRecord::load(unit, &self.room).await?;
        let mut held = Held::new();
        for user in &self.users {
            held.insert(user.clone(), machine.get_user_devices(user, None).await?);
        }
        let before = RoomKey::load(machine, &self.room).await?;
        let renewal = self.renewal(unit, &record, before.as_ref(), &held).await?;
        let shared = match (&before, renewal) {
            (Some(key), None) => shares(&key.pickled),
            _ => Shares::new(),
        };
        let mut users = Vec::new();
        for (user, devices) in &held {
            users.push(self.reader(machine, unit, user, devices, &shared).await?);
        }
        users.sort_by_key(|reader| !reader.own);
        let mut refused = Vec::new();
        refused.extend(
            refuse_drift(machine, &self.manifest, &self.users)
                .await
                .err()
                .as_ref()
                .map(Refusal::of),
        );
        let mut warnings = Vec::new();
        self.replaced(&users, &mut refused, &mut warnings);
        if let Some(change) = &record.tampered {
            warnings.push(Refusal {
                code: "encryption_tampered",
                advice: format!("{}, which is not followed", change.describe()),
            });
        }
        refused.extend(self.nobody(&users));
        let encryption = encryption_of(&record);
        Ok(Readership {
            room_id: self.room,
            encrypted: record.encryption.is_some(),
            recipients: self.policy.recipients,
            refused,
            warnings,
            key: before.map(|key| status_of(&key, &record, &encryption)),
            renewal,
            users,
        })
    }

    fn replaced(&self, users: &[Reader], refused: &mut Vec<Refusal>, warnings: &mut Vec<Refusal>) {
        let replaced: BTreeSet<OwnedUserId> = users
            .iter()
            .filter(|reader| reader.identity == ReaderIdentity::Replaced)
            .map(|reader| reader.user_id.clone())
            .collect();
        if replaced.is_empty() {
            return;
        }
        let refusal = Refusal::of(&Error::IdentityChanged { users: replaced });
        if self.policy.recipients.is_strict() {
            refused.push(refusal);
        } else {
            warnings.push(refusal);
        }
    }

    /// The key would reach nobody.
    fn nobody(&self, users: &[Reader]) -> Option<Refusal> {
        let others: Vec<&Reader> = users.iter().filter(|reader| !reader.own).collect();
        let to_reach: Vec<&Reader> = if others.is_empty() {
            users.iter().filter(|reader| reader.devices.len() > 1).collect()
        } else {
            others.into_iter().filter(|reader| !reader.unknown).collect()
        };
        let reached = |reader: &&Reader| {
            let mut devices = reader.devices.iter();
            devices.any(|device| device.outlook != Outlook::ThisDevice && device.outlook.can_read())
        };
        (!to_reach.is_empty() && !to_reach.iter().any(reached)).then(|| Refusal {
            code: "no_usable_recipients",
            advice: "none of those who may read has a device that can be given the key: see the devices".to_owned(),
        })
    }

    async fn renewal(
        &self,
        unit: &Unit,
        record: &RoomRecord,
        before: Option<&RoomKey>,
        held: &Held,
    ) -> Result<Option<RotationReason>> {
        let encryption = encryption_of(record);
        let now = Now {
            encryption: &encryption,
            visibility: &self.visibility,
            readers: &self.users,
            held,
            now_ms: self.now_ms,
        };
        let must = rotation::must_renew(unit, &self.room, record, before, &now).await?;
        Ok(must.or_else(|| rotation::foreseen(record, before, &now, self.policy.recipients)))
    }

    async fn reader(
        &self,
        machine: &OlmMachine,
        unit: &Unit,
        user: &OwnedUserId,
        devices: &matrix_sdk_crypto::UserDevices,
        shared: &Shares,
    ) -> Result<Reader> {
        let unusable = unusable_devices(unit, user).await?;
        let claims = claim_failures(unit, user).await?;
        let mut named: BTreeSet<OwnedDeviceId> = devices.keys().map(ToOwned::to_owned).collect();
        named.extend(unusable.keys().cloned());
        let mut found = Vec::new();
        for device_id in named {
            let held = devices.get(&device_id);
            let key = (user.clone(), device_id);
            let outlook = match (unusable.get(&key.1), &held) {
                _ if key == self.own => Outlook::ThisDevice,
                (Some(reason), _) => Outlook::Unusable { reason: reason.clone() },
                (None, None) => Outlook::Unusable {
                    reason: UnusableReason::Refused,
                },
                (None, Some(held)) => {
                    let has_key = matches!(shared.get(&key), Some(ShareInfo::Shared(_)));
                    self.outlook(machine, held, has_key, claims.get(&key.1)).await?
                }
            };
            let known = held.as_ref().filter(|_| !matches!(outlook, Outlook::Unusable { .. }));
            found.push(ReaderDevice {
                name: held
                    .as_ref()
                    .and_then(|held| held.display_name().map(ToOwned::to_owned)),
                ed25519: known.and_then(|held| held.ed25519_key()).map(|key| key.to_base64()),
                trust: known.map_or(ReaderTrust::Unusable, trust_of),
                outlook,
                device_id: key.1,
            });
        }
        let own = *user == self.own.0;
        Ok(Reader {
            own,
            allowed: self
                .policy
                .check(&self.room, &self.own.0, &BTreeSet::from([user.clone()]))
                .is_ok(),
            unknown: self.unknown.contains(user),
            identity: identity_of(machine, user).await?,
            devices: found,
            user_id: user.clone(),
        })
    }

    async fn outlook(
        &self,
        machine: &OlmMachine,
        device: &Device,
        has_key: bool,
        failed: Option<&UnusableReason>,
    ) -> Result<Outlook> {
        Ok(if device.is_blacklisted() {
            Outlook::Withheld {
                because: "m.blacklisted",
            }
        } else if self.policy.recipients == Recipients::OnlyTrusted && !device.is_verified() {
            Outlook::Withheld {
                because: "m.unverified",
            }
        } else if has_key {
            Outlook::HasKey
        } else if has_session(machine, device).await? {
            Outlook::GetsKey
        } else {
            failed.map_or(Outlook::NeedsSession, |reason| Outlook::NoSession {
                reason: reason.clone(),
            })
        })
    }
}

/// As the room says; where it says nothing, as the specification has it.
fn encryption_of(record: &RoomRecord) -> RoomEncryption {
    let said = record.encryption.clone();
    said.unwrap_or_else(|| RoomEncryption::from_content(&serde_json::Value::Null))
}

pub(crate) fn trust_of(device: &Device) -> ReaderTrust {
    if device.is_blacklisted() {
        ReaderTrust::Blocked
    } else if device.is_cross_signing_trusted() {
        ReaderTrust::Verified
    } else if device.is_locally_trusted() {
        ReaderTrust::Trusted
    } else if device.is_cross_signed_by_owner() {
        ReaderTrust::Signed
    } else {
        ReaderTrust::Unsigned
    }
}

pub(crate) async fn identity_of(machine: &OlmMachine, user: &UserId) -> Result<ReaderIdentity> {
    Ok(match machine.get_identity(user, None).await? {
        None => ReaderIdentity::None,
        Some(identity) if identity.has_verification_violation() => ReaderIdentity::Replaced,
        Some(identity) if identity.is_verified() => ReaderIdentity::Verified,
        Some(_) => ReaderIdentity::Unverified,
    })
}

fn status_of(key: &RoomKey, record: &RoomRecord, encryption: &RoomEncryption) -> RoomKeyStatus {
    let since = record.key.as_ref().filter(|known| known.session_id == key.id);
    RoomKeyStatus {
        session_id: key.id.clone(),
        since_ms: since.map(|known| known.since_ms),
        period_ms: u64::try_from(encryption.rotation_period().as_millis()).unwrap_or(u64::MAX),
        messages: key.pickled.message_count,
        most_messages: encryption.rotation_messages(),
    }
}
