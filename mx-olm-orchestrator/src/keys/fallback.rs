//! The fallback key: there from the first upload, renewed once it was used, and its predecessor forgotten an hour later.
//!
//! # Why
//! The engine makes one only after a sync has shown that the homeserver knows fallback keys, renews it after seven days
//! whether it was used or not, and never forgets the one before (reference: engine, gap B15). A fallback key is one
//! secret for many sessions: the longer it lives, the more it opens. The engine has no call for any of this, so the
//! account is taken through its pickle, in one unit of work, and the machine is built anew from the store.

use matrix_sdk_crypto::{Account, OlmMachine, store::types::PendingChanges, vodozemac};
use mx_crypto_store::{RecordId, Unit};
use ruma::{MilliSecondsSinceUnixEpoch, OneTimeKeyAlgorithm};
use serde::{Deserialize, Serialize};

use super::SETTINGS;
use crate::{Error, Orchestrator, Result, machine::Ending};

/// A message that was encrypted with a fallback key may be under way this long, in milliseconds. The specification:
/// "The old key should be kept for a while", an hour (section "One-time and fallback keys").
const KEPT_MS: u64 = 60 * 60_000;

/// What is remembered of the fallback key that others can claim.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Published {
    /// When it was published, in milliseconds since the Unix epoch.
    at_ms: u64,
    /// Its predecessor's secret is gone.
    forgotten: bool,
}

fn id() -> RecordId {
    RecordId::named(SETTINGS, &[], "fallback-key")
}

/// A new fallback key is on the homeserver.
pub(super) fn published(unit: &Unit, now_ms: u64) -> Result<()> {
    let published = Published {
        at_ms: now_ms,
        forgotten: false,
    };
    Ok(unit.put(&id(), &published)?)
}

impl Orchestrator {
    /// Note what a sync says of fallback keys. `None`: nothing.
    pub(crate) fn note_fallback_keys(&self, unused: Option<&[OneTimeKeyAlgorithm]>) {
        let used = unused.is_some_and(|unused| !unused.contains(&OneTimeKeyAlgorithm::SignedCurve25519));
        self.keeping()
            .fallback_used
            .store(used, std::sync::atomic::Ordering::Relaxed);
    }

    /// A device has a fallback key before anything of it is published.
    pub(super) async fn first_fallback_key(&self) -> Result<()> {
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let done = rework(machine, |account| {
                        let none = account.never_had_one;
                        if none {
                            account.renew();
                        }
                        none
                    })
                    .await?;
                    Ok(if done {
                        Ending::CommitAndRebuild(())
                    } else {
                        Ending::Undo(())
                    })
                })
            })
            .await
    }

    /// Renew a fallback key that was used, and forget the one before: at most once an hour, so that messages under way
    /// can still be read.
    pub(super) async fn tend_fallback_key(&self) -> Result<()> {
        let published: Published = self.store().record(&id()).await?.unwrap_or_default();
        let used = self.keeping().fallback_used.load(std::sync::atomic::Ordering::Relaxed);
        if self.now_ms().abs_diff(published.at_ms) < KEPT_MS || (published.forgotten && !used) {
            return Ok(());
        }
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let done = rework(machine, |account| {
                        let mut changed = false;
                        if !published.forgotten {
                            changed |= account.olm.forget_fallback_key();
                        }
                        if used && !account.never_had_one && account.olm.fallback_key().is_empty() {
                            account.renew();
                            changed = true;
                        }
                        changed
                    })
                    .await?;
                    if published.forgotten && !done {
                        return Ok(Ending::Undo(()));
                    }
                    let forgotten = Published {
                        forgotten: true,
                        ..published
                    };
                    unit.put(&id(), &forgotten)?;
                    Ok(if done {
                        Ending::CommitAndRebuild(())
                    } else {
                        Ending::Commit(())
                    })
                })
            })
            .await
    }
}

/// The account, open.
struct Opened {
    olm: vodozemac::olm::Account,
    never_had_one: bool,
    renewed: bool,
}

impl Opened {
    fn renew(&mut self) {
        self.olm.generate_fallback_key();
        self.renewed = true;
    }
}

/// Change the account as the store has it. The machine's own copy is out of date afterwards: it has to be built anew.
async fn rework(machine: &OlmMachine, change: impl FnOnce(&mut Opened) -> bool) -> Result<bool> {
    let Some(account) = machine.store().load_account().await? else {
        return Ok(false);
    };
    let mut pickle = account.pickle();
    let mut opened = Opened {
        olm: vodozemac::olm::Account::from_pickle(pickle.pickle),
        never_had_one: pickle.fallback_key_creation_timestamp.is_none(),
        renewed: false,
    };
    let changed = change(&mut opened);
    if changed {
        pickle.pickle = opened.olm.pickle();
        if opened.renewed {
            // The engine compares it with the time of the system.
            pickle.fallback_key_creation_timestamp = Some(MilliSecondsSinceUnixEpoch::now());
        }
        let account = Account::from_pickle(pickle).map_err(|error| Error::engine(&error))?;
        let changes = PendingChanges { account: Some(account) };
        machine.store().save_pending_changes(changes).await?;
    }
    Ok(changed)
}
