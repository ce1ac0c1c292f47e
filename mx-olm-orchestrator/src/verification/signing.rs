//! The signatures that a verification is worth: on the homeserver, or noted to be brought there.
//!
//! # Why
//! The engine holds the upload in memory. A process that ends between a verification and its upload would leave a user
//! unverified who was told to be; so what is to be signed is noted in the unit of work that ends the verification.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{OlmMachine, UserIdentity};
use mx_crypto_store::{Family, RecordId, Unit};
use mx_transport::Call;
use ruma::{OwnedDeviceId, OwnedUserId, UserId, api::client::keys::upload_signatures};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

use crate::{Orchestrator, Result, machine::Ending};

const TO_SIGN: Family = Family::new("to-sign");

/// It is given up after this many syncs.
const MOST_ATTEMPTS: u32 = 20;

/// As many are read at once.
const PAGE: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ToSign {
    user: OwnedUserId,
    /// Of our own user.
    device: Option<OwnedDeviceId>,
    /// The key that was verified: another one is not signed.
    key: String,
    attempts: u32,
}

impl ToSign {
    fn id(&self) -> RecordId {
        let device = self.device.as_ref().map_or("", |device| device.as_str());
        RecordId::named(TO_SIGN, &[], &format!("{} {device}", self.user))
    }
}

pub(super) async fn note_user(unit: &Unit, user: &UserId, master: Option<String>) -> Result<()> {
    let Some(key) = master else { return Ok(()) };
    note(unit, user, None, key)
}

pub(super) async fn note_device(unit: &Unit, user: &UserId, device: &OwnedDeviceId, key: &str) -> Result<()> {
    note(unit, user, Some(device.clone()), key.to_owned())
}

fn note(unit: &Unit, user: &UserId, device: Option<OwnedDeviceId>, key: String) -> Result<()> {
    let to_sign = ToSign {
        user: user.to_owned(),
        device,
        key,
        attempts: 0,
    };
    Ok(unit.put(&to_sign.id(), &to_sign)?)
}

impl Orchestrator {
    /// Bring the signatures of what was verified to the homeserver, and look whether they are there.
    pub(super) async fn sign_verified(&self) -> Result<()> {
        if !self.verification().unsigned.load(Ordering::SeqCst) {
            return Ok(());
        }
        let records = self.store().scan(TO_SIGN, &[], None, PAGE).await?;
        let mut left = false;
        for record in records {
            let to_sign: ToSign = record.decode()?;
            left |= self.sign(to_sign).await?;
        }
        self.verification().unsigned.store(left, Ordering::SeqCst);
        Ok(())
    }

    /// Returns whether it is still to do.
    async fn sign(&self, mut to_sign: ToSign) -> Result<bool> {
        let users = BTreeSet::from([to_sign.user.clone()]);
        self.ask_again(&users, &mut BTreeSet::new()).await?;
        let Some(request) = self.signature(&to_sign).await? else {
            self.forget_signature(&to_sign).await?;
            return Ok(false);
        };
        to_sign.attempts += 1;
        if to_sign.attempts > MOST_ATTEMPTS {
            tracing::warn!(user = %to_sign.user, "a signature does not arrive at the homeserver, and is given up: verify again");
            self.forget_signature(&to_sign).await?;
            return Ok(false);
        }
        let counted = to_sign.clone();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.put(&counted.id(), &counted)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        self.homeserver().send_with(request, Call::repeatable()).await?;
        self.ask_again(&users, &mut BTreeSet::new()).await?;
        if self.signature(&to_sign).await?.is_none() {
            self.forget_signature(&to_sign).await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn forget_signature(&self, to_sign: &ToSign) -> Result<()> {
        let id = to_sign.id();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.delete(&id)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// The signature that is missing. `None`: it is there, or it cannot or must not be made.
    async fn signature(&self, to_sign: &ToSign) -> Result<Option<upload_signatures::v3::Request>> {
        let to_sign = to_sign.clone();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let request = match &to_sign.device {
                        Some(device) => of_device(machine, &to_sign, device).await?,
                        None => of_user(machine, &to_sign).await?,
                    };
                    Ok(Ending::Commit(request))
                })
            })
            .await
    }
}

async fn of_user(machine: &OlmMachine, to_sign: &ToSign) -> Result<Option<upload_signatures::v3::Request>> {
    let Some(UserIdentity::Other(other)) = machine.get_identity(&to_sign.user, None).await? else {
        return Ok(None);
    };
    let key = other.master_key().get_first_key().map(|key| key.to_base64());
    if other.is_verified() || key.as_ref() != Some(&to_sign.key) {
        return Ok(None);
    }
    Ok(other.verify().await.ok())
}

async fn of_device(
    machine: &OlmMachine,
    to_sign: &ToSign,
    device: &OwnedDeviceId,
) -> Result<Option<upload_signatures::v3::Request>> {
    let Some(held) = machine.get_device(&to_sign.user, device, None).await? else {
        return Ok(None);
    };
    let key = held.ed25519_key().map(|key| key.to_base64());
    if held.is_cross_signed_by_owner() || key.as_ref() != Some(&to_sign.key) {
        return Ok(None);
    }
    Ok(held.verify().await.ok())
}
