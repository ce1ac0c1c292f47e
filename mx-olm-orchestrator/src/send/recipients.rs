//! Whom a message is for: complete members, known devices, open sessions. Unknown is never taken for empty.

use std::collections::BTreeSet;

use matrix_sdk_crypto::OlmMachine;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, RoomId, UserId, events::room::history_visibility::HistoryVisibility,
};

use super::policy::Policy;
use crate::{
    Error, Orchestrator, Result, devices::servers, keys::Upkeep, machine::Ending, members::MemberCache, outgoing,
    rooms::RoomRecord,
};

/// Whom a message is for.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pub(crate) users: BTreeSet<OwnedUserId>,
    /// Whose devices are unknown: only ever with best effort.
    pub(crate) unknown: BTreeSet<OwnedUserId>,
    /// Servers that our homeserver could not reach, where it named them.
    pub(crate) failed: BTreeSet<OwnedServerName>,
    /// Members whom the homeserver's list leaves out.
    pub(crate) disputed: BTreeSet<OwnedUserId>,
    pub(crate) visibility: HistoryVisibility,
    /// Devices that no session could be opened with, now.
    pub(crate) sessionless: Vec<(OwnedUserId, OwnedDeviceId)>,
    /// How many changes of the room's members syncs had shown.
    as_of: u64,
}

impl Readers {
    /// Whom a key must reach, or it reaches nobody: everybody else; ourselves where there is nobody else.
    pub(crate) fn must_reach(&self, own: &UserId) -> BTreeSet<OwnedUserId> {
        let others: BTreeSet<OwnedUserId> = self.users.iter().filter(|user| *user != own).cloned().collect();
        if others.is_empty() {
            return BTreeSet::from([own.to_owned()]);
        }
        others.difference(&self.unknown).cloned().collect()
    }

    /// Whether a sync has shown since that others may read, or that a reader's devices changed: to be asked in the unit that
    /// gives them the key, when no sync can come in between any more.
    pub(super) async fn are_overtaken(
        &self,
        machine: &OlmMachine,
        record: &RoomRecord,
        members: &MemberCache,
        room: &RoomId,
    ) -> Result<bool> {
        if members.changes(room).await != self.as_of
            || record
                .history_visibility
                .as_ref()
                .is_some_and(|now| *now != self.visibility)
        {
            return Ok(true);
        }
        let is_reader = |user: &OwnedUserId| self.users.contains(user) && !self.unknown.contains(user);
        let tracked = machine.store().load_tracked_users().await?;
        Ok(tracked
            .iter()
            .any(|tracked| tracked.dirty && is_reader(&tracked.user_id)))
    }
}

impl Orchestrator {
    /// Everybody who may read in the room, with their devices known and a session with each device, as far as there is
    /// a one-time key for it.
    pub(crate) async fn readers(&self, room: &RoomId, policy: &Policy) -> Result<Readers> {
        self.refuse_lost_device().await?;
        self.refuse_in_conflict().await?;
        self.refuse_after_rollback().await?;
        let members = self.complete_members(room).await?;
        if !members.joined(&self.user_id().to_owned()) {
            return Err(Error::NotInRoom { room: room.to_owned() });
        }
        let visibility = self.history_visibility(room).await?;
        let users = members.readers(Some(&visibility));
        policy.check(room, self.user_id(), &users)?;
        let mut failed = BTreeSet::new();
        let mut unknown = self.query_devices(&users, &mut failed).await?;
        // Claiming for users who are unknown would wait for an answer that does not come.
        let known: BTreeSet<OwnedUserId> = users.difference(&unknown).cloned().collect();
        let unanswered = self.claim_sessions(room, &known, policy.recipients).await?;
        unknown.extend(unanswered.users);
        failed.extend(unanswered.servers);
        let readers = Readers {
            users,
            unknown,
            failed,
            disputed: members.disputed().clone(),
            visibility,
            sessionless: unanswered.sessionless,
            as_of: members.as_of(),
        };
        policy.accept(room, readers)
    }

    /// Make the devices of `users` known. Returns whose are not: their server did not answer, or left them out.
    pub(crate) async fn query_devices(
        &self,
        users: &BTreeSet<OwnedUserId>,
        failed: &mut BTreeSet<OwnedServerName>,
    ) -> Result<BTreeSet<OwnedUserId>> {
        let tracked = users.clone();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    Box::pin(machine.update_tracked_users(tracked.iter().map(AsRef::as_ref))).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        if self.outdated(users).await?.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.upkeep(Upkeep::Queries).await?;
        let outdated = self.outdated(users).await?;
        if outdated.is_empty() || !self.ask_again(&outdated, failed).await? {
            return Ok(outdated);
        }
        // The engine takes an answer that it did not ask for, and does not count it: it asks itself now.
        self.upkeep(Upkeep::Queries).await?;
        self.outdated(users).await
    }

    /// The engine leaves servers alone that failed lately: ask ourselves, so that a refusal is never out of date. Returns
    /// whether anybody was answered for.
    pub(crate) async fn ask_again(
        &self,
        outdated: &BTreeSet<OwnedUserId>,
        failed: &mut BTreeSet<OwnedServerName>,
    ) -> Result<bool> {
        let _single_flight = self.upkeep_lock().await;
        let asked = outdated.clone();
        let (id, request) = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    Ok(Ending::Commit(
                        machine.query_keys_for_users(asked.iter().map(AsRef::as_ref)),
                    ))
                })
            })
            .await?;
        let answer = outgoing::query(self.homeserver(), &request).await?;
        let down = servers(&answer.failures);
        let own_failed = down.contains(self.user_id().server_name());
        failed.extend(down);
        let answered = !own_failed && outdated.iter().any(|user| answer.device_keys.contains_key(user));
        self.take_query(&id, outdated.clone(), answer).await?;
        Ok(answered)
    }

    /// Those of `users` whose devices the engine knows to be out of date.
    async fn outdated(&self, users: &BTreeSet<OwnedUserId>) -> Result<BTreeSet<OwnedUserId>> {
        let users = users.clone();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let tracked = machine.store().load_tracked_users().await?;
                    let known: BTreeSet<OwnedUserId> = tracked
                        .into_iter()
                        .filter(|tracked| !tracked.dirty)
                        .map(|tracked| tracked.user_id)
                        .collect();
                    Ok(Ending::Commit(users.difference(&known).cloned().collect()))
                })
            })
            .await
    }
}
