//! Taking the history that who invited us offers: when, of which devices, and what of it.

use std::{collections::BTreeSet, sync::Arc};

use matrix_sdk_crypto::{
    MediaEncryptionInfo, OlmMachine,
    store::types::StoredRoomKeyBundleData,
    types::{events::room_key_withheld::RoomKeyWithheldContent, room_history::RoomKeyBundle},
};
use mx_crypto_store::{PickleStore, Unit};
use mx_transport::{RequestError, TransportErrorKind};
use ruma::{OwnedRoomId, UserId};

use super::{
    bundle::{self, Looked, Received},
    came,
    wanted::{self, Wanted},
};
use crate::{
    Error, Event, HistoryReceived, HistoryRefused, HistoryRefusedReason, Orchestrator, Result, TrustManifest,
    backup::is_active,
    key_export::aside,
    machine::Ending,
    receive::{inbox, waiting},
    trust_manifest::refuse_drift,
};

/// Keys that are taken in one unit of work.
const CHUNK: usize = 500;

/// What became of some keys.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    taken: usize,
    unusable: usize,
}

/// Why nothing was taken.
enum Not {
    Refused(HistoryRefusedReason),
    /// It is asked for again.
    Failed(HistoryRefusedReason),
}

impl Orchestrator {
    /// Look whether what is wanted has come.
    pub(super) async fn take_histories(&self) -> Result<()> {
        let mut looked_at = 0;
        for wanted in wanted::all(self.store()).await? {
            let now_ms = self.now_ms();
            if wanted.is_over(now_ms) {
                self.end_history(wanted, None).await?;
                continue;
            }
            if looked_at == wanted::AT_ONCE || !wanted.is_due(now_ms) {
                continue;
            }
            if let Some(offered) = self.offered(&wanted).await? {
                looked_at += 1;
                Box::pin(self.take_history(wanted, offered)).await?;
            }
        }
        Ok(())
    }

    async fn offered(&self, wanted: &Wanted) -> Result<Option<StoredRoomKeyBundleData>> {
        let (room, inviter) = (wanted.room.clone(), wanted.inviter.clone());
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let store = machine.store();
                    let offered = store.get_received_room_key_bundle_data(&room, &inviter).await?;
                    Ok(Ending::Commit(offered))
                })
            })
            .await
    }

    async fn take_history(&self, wanted: Wanted, offered: StoredRoomKeyBundleData) -> Result<()> {
        match self.fetch_history(&wanted, &offered).await? {
            Ok(looked) => self.keep_history(wanted, offered, looked).await,
            Err(Not::Refused(reason)) => self.refuse_history(wanted, reason).await,
            Err(Not::Failed(reason)) => self.bundle_failed(wanted, reason).await,
        }
    }

    /// The keys of a bundle, when who offers it may.
    async fn fetch_history(&self, wanted: &Wanted, offered: &StoredRoomKeyBundleData) -> Result<Result<Looked, Not>> {
        let asked = BTreeSet::from([wanted.inviter.clone()]);
        match self.query_devices(&asked, &mut BTreeSet::new()).await {
            Ok(unknown) if unknown.is_empty() => {}
            Err(error @ Error::Store(_)) => return Err(error),
            // Nothing is fetched for somebody whom nobody vouches for.
            _ => return Ok(Err(Not::Failed(HistoryRefusedReason::Untrusted))),
        }
        let (from, manifest) = (offered.clone(), self.manifest().await?);
        let trusted = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move { Ok(Ending::Commit(may_give(machine, &from, &manifest).await?)) })
            })
            .await?;
        if !trusted {
            return Ok(Err(Not::Refused(HistoryRefusedReason::Untrusted)));
        }
        let mut received = Received::default();
        let file = offered.bundle_data.file.clone();
        match self.homeserver().download(&file.url, &mut received).await {
            Ok(()) => {}
            Err(RequestError::Transport(error)) if error.kind() == TransportErrorKind::BodyTooLarge => {
                return Ok(Err(Not::Refused(HistoryRefusedReason::TooLarge)));
            }
            Err(error) => {
                tracing::warn!(code = error.code(), "the history that was offered could not be fetched");
                return Ok(Err(Not::Failed(HistoryRefusedReason::Unavailable)));
            }
        }
        let room = wanted.room.clone();
        let looked = aside(move || {
            let plaintext = bundle::open(&received.0, &MediaEncryptionInfo::from(file))?;
            bundle::read(&plaintext, &room)
        });
        Ok(looked.await?.map_err(|reason| match reason {
            HistoryRefusedReason::Corrupt => Not::Failed(reason),
            reason => Not::Refused(reason),
        }))
    }

    async fn keep_history(&self, wanted: Wanted, offered: StoredRoomKeyBundleData, mut looked: Looked) -> Result<()> {
        let offered = Arc::new(offered);
        let mut all = Took {
            taken: 0,
            unusable: looked.unusable,
        };
        while let Some(keys) = looked.next(CHUNK) {
            let (offered, store) = (Arc::clone(&offered), self.store().clone());
            let took = self
                .machine()
                .unit(move |machine, unit| {
                    Box::pin(async move {
                        let work = Work {
                            machine,
                            unit,
                            store: &store,
                        };
                        Ok(Ending::Commit(Box::pin(work.take(&offered, keys)).await?))
                    })
                })
                .await?;
            all.taken += took.taken;
            all.unusable += took.unusable;
        }
        self.backup_pace().is_due();
        let withheld = looked.withheld;
        let event = Event::HistoryReceived(HistoryReceived {
            room_id: wanted.room.clone(),
            from: wanted.inviter.clone(),
            room_keys: all.taken,
            unusable: all.unusable,
            withheld: withheld.len(),
        });
        self.note_withheld(&offered, withheld).await?;
        // All of it in the order in which it came, whatever the order of the keys.
        self.retry_waiting().await?;
        self.end_history(wanted, Some(event)).await
    }

    /// That keys are withheld is known from now on. A key that is here is not.
    async fn note_withheld(
        &self,
        offered: &Arc<StoredRoomKeyBundleData>,
        withheld: Vec<RoomKeyWithheldContent>,
    ) -> Result<()> {
        if withheld.is_empty() {
            return Ok(());
        }
        let offered = Arc::clone(offered);
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let bundle = RoomKeyBundle {
                        room_keys: Vec::new(),
                        withheld,
                    };
                    let received = machine.store().receive_room_key_bundle(&offered, bundle, |_, _| {});
                    Box::pin(received).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// This bundle is not taken; another one of who invited us may be.
    async fn refuse_history(&self, mut wanted: Wanted, reason: HistoryRefusedReason) -> Result<()> {
        tracing::warn!(room = %wanted.room, reason = reason.code(), "a history that was offered is not taken");
        let is_over = wanted.refused();
        let store = self.store().clone();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    came::forget(unit, &store, &wanted.room, &wanted.inviter).await?;
                    // There is an end to offers, too.
                    if is_over {
                        wanted::forget(unit, &wanted.room).await?;
                    } else if wanted::load(unit, &wanted.room).await?.is_some() {
                        wanted.save(unit)?;
                    }
                    let event = Event::HistoryRefused(HistoryRefused {
                        room_id: wanted.room,
                        from: wanted.inviter,
                        reason,
                    });
                    inbox::append(unit, &[event]).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    async fn bundle_failed(&self, mut wanted: Wanted, reason: HistoryRefusedReason) -> Result<()> {
        if wanted.failed(self.now_ms()) {
            let event = Event::HistoryRefused(HistoryRefused {
                room_id: wanted.room.clone(),
                from: wanted.inviter.clone(),
                reason,
            });
            return self.end_history(wanted, Some(event)).await;
        }
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    // We may have left meanwhile.
                    if wanted::load(unit, &wanted.room).await?.is_some() {
                        wanted.save(unit)?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Nothing is wanted for the room any more.
    async fn end_history(&self, wanted: Wanted, event: Option<Event>) -> Result<()> {
        let store = self.store().clone();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    wanted::forget(unit, &wanted.room).await?;
                    came::forget(unit, &store, &wanted.room, &wanted.inviter).await?;
                    inbox::append(unit, &event.into_iter().collect::<Vec<_>>()).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// Whether keys are taken of this device: its owner's identity has signed it, and nobody here thinks ill of either.
async fn may_give(
    machine: &OlmMachine,
    offered: &StoredRoomKeyBundleData,
    manifest: &Option<Arc<TrustManifest>>,
) -> Result<bool> {
    let user: &UserId = &offered.sender_user;
    let devices = machine.get_user_devices(user, None).await?;
    let device = devices
        .devices()
        .find(|device| device.curve25519_key() == Some(offered.sender_key));
    let is_signed = device.is_some_and(|device| device.is_cross_signed_by_owner() && !device.is_blacklisted());
    let identity = machine.get_identity(user, None).await?;
    let is_replaced = identity.is_none_or(|identity| identity.has_verification_violation());
    if !is_signed || is_replaced {
        return Ok(false);
    }
    match refuse_drift(machine, manifest, &BTreeSet::from([user.to_owned()])).await {
        Ok(()) => Ok(true),
        Err(Error::Manifest(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The work on some keys of a bundle.
struct Work<'a> {
    machine: &'a OlmMachine,
    unit: &'a Unit,
    store: &'a PickleStore,
}

impl Work<'_> {
    async fn take(&self, offered: &StoredRoomKeyBundleData, keys: RoomKeyBundle) -> Result<Took> {
        let room: &OwnedRoomId = &offered.bundle_data.room_id;
        let sessions: Vec<String> = keys.room_keys.iter().map(|key| key.session_id.clone()).collect();
        let mut before = Vec::with_capacity(sessions.len());
        for session in &sessions {
            before.push(self.reaches(room, session).await?);
        }
        let received = self.machine.store().receive_room_key_bundle(offered, keys, |_, _| {});
        Box::pin(received).await?;
        let mut took = Took::default();
        let mut news = Vec::new();
        for (session, before) in sessions.into_iter().zip(before) {
            let now = self.reaches(room, &session).await?;
            if now == before {
                continue;
            }
            // It is on the word of somebody: a key that does not open what it is for must not be in the way of the real one.
            if before.is_none() && !waiting::opens(self.machine, self.unit, room, &session).await? {
                self.store.forget_room_keys(&[(room.clone(), session)]).await?;
                took.unusable += 1;
                continue;
            }
            took.taken += 1;
            news.push((room.clone(), session));
        }
        if !news.is_empty() && is_active(self.machine, self.unit).await? {
            self.store.needs_backup(&news).await?;
        }
        Ok(took)
    }

    /// From which message on there is a key of this session.
    async fn reaches(&self, room: &OwnedRoomId, session: &str) -> Result<Option<u32>> {
        let held = self.machine.store().get_inbound_group_session(room, session).await?;
        Ok(held.map(|held| held.first_known_index()))
    }
}
