//! Giving the history of a room to somebody: whether that may be, what goes, and to which devices.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{
    OlmMachine,
    store::types::Changes,
    types::{events::room_key_bundle::RoomKeyBundleContent, requests::ToDeviceRequest, room_history::RoomKeyBundle},
};
use mx_transport::{Call, RequestError};
use ruma::{
    OwnedUserId, RoomId, UserId,
    api::client::state::get_state_event_for_key,
    events::{
        StateEventType,
        room::{EncryptedFile, history_visibility::HistoryVisibility},
    },
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    HistoryError,
    bundle::{self, MAX_BYTES},
    due::{Due, Parcel},
};
use crate::{
    Error, Orchestrator, Result, backup::is_active, key_export::aside, machine::Ending, trust_manifest::refuse_drift,
};

/// What somebody was given of a room's history.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// let shared = device.share_history(room, ruma::user_id!("@friend:example.org")).await?;
/// println!("{} keys for {} devices, {} withheld", shared.room_keys, shared.devices, shared.withheld);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HistoryShared {
    /// How many room keys.
    pub room_keys: usize,
    /// How many keys of the room were not given, since they are of a time when newcomers were not to read.
    pub withheld: usize,
    /// How many devices were told.
    pub devices: usize,
}

impl Orchestrator {
    /// Whether the history of this room may be given to this user, as far as can be said before the user is invited. Nothing
    /// is given.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// let user = ruma::user_id!("@new:example.org");
    /// if let Err(error) = device.may_share_history(room, user).await {
    ///     println!("an invitation would give {user} no history [{}]: {error}", error.code());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`HistoryError`]; [`Error::RecipientNotAllowed`], [`Error::RoomNotEncrypted`]; of the request; of the store.
    pub async fn may_share_history(&self, room: &RoomId, user: &UserId) -> Result<()> {
        Box::pin(self.catch_up()).await?;
        self.refuse_to_share(room, user).await
    }

    /// Give this user, who is in the room or invited to it, the room keys of the past: those of times when the room let
    /// newcomers read. Keys that the backup has are fetched first. All devices that the user's identity has signed are told
    /// where the keys are; other clients take them within a day after the user joined.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// match device.share_history(room, ruma::user_id!("@new:example.org")).await {
    ///     Ok(shared) => println!("{} room keys, for {} devices", shared.room_keys, shared.devices),
    ///     // Whoever is not invited is given nothing.
    ///     Err(error) if error.code() == "history_not_invited" => println!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`HistoryError`], and as for a send: [`Error::RecipientNotAllowed`], [`Error::RecipientsUnknown`],
    /// [`Error::IdentityChanged`], [`ManifestError`](crate::ManifestError). Nothing is given then. Of the request, and the
    /// next syncs try again; of the store.
    ///
    /// # Cancel safety
    /// Safe: what was noted is done by the next syncs, and delivered once.
    pub async fn share_history(&self, room: &RoomId, user: &UserId) -> Result<HistoryShared> {
        let _alone = self.keeping().history.lock().await;
        self.keeping().inviting.end(room, user);
        self.may_share_history(room, user).await?;
        self.note_history(room, user).await?;
        Box::pin(self.give(room, user)).await
    }

    async fn refuse_to_share(&self, room: &RoomId, user: &UserId) -> Result<()> {
        self.refuse_lost_device().await?;
        self.refuse_in_conflict().await?;
        self.refuse_after_rollback().await?;
        self.room_encryption(room).await?;
        let policy = self.policy(room, None).await?;
        policy.check(room, self.user_id(), &BTreeSet::from([user.to_owned()]))?;
        let visibility = self.history_visibility(room).await?;
        if !matches!(visibility, HistoryVisibility::Shared | HistoryVisibility::WorldReadable) {
            return Err(HistoryError::NotForNewcomers { room: room.to_owned() }.into());
        }
        let is_signed = self
            .machine()
            .unit(|machine, _| {
                Box::pin(async move {
                    let own = machine.get_device(machine.user_id(), machine.device_id(), None).await?;
                    Ok(Ending::Commit(own.is_some_and(|own| own.is_cross_signed_by_owner())))
                })
            })
            .await?;
        if !is_signed {
            return Err(HistoryError::NotCrossSigned.into());
        }
        Ok(())
    }

    /// What the user is to be given is encrypted and noted, where it is not yet, and delivered.
    pub(super) async fn give(&self, room: &RoomId, user: &UserId) -> Result<HistoryShared> {
        let given = match self.parcel(room, user).await {
            Ok(Some(parcel)) => self.deliver_history(room, user, parcel).await,
            Ok(None) => Ok(HistoryShared::default()),
            Err(error) => Err(error),
        };
        let is_final = match &given {
            Ok(_) => true,
            Err(error) => is_final(error),
        };
        if is_final {
            self.forget_history(room, user).await?;
        }
        given
    }

    /// `None`: there is nothing to give.
    async fn parcel(&self, room: &RoomId, user: &UserId) -> Result<Option<Parcel>> {
        let (of, with) = (room.to_owned(), user.to_owned());
        let due = self
            .machine()
            .unit(move |_, unit| Box::pin(async move { Ok(Ending::Commit(Due::load(unit, &of, &with).await?)) }))
            .await?;
        // Also of what was encrypted before: who was invited then may have been turned away since.
        self.refuse_to_share(room, user).await?;
        self.refuse_uninvited(room, user).await?;
        if let Some(parcel) = due.and_then(|due| due.parcel) {
            return Ok(Some(self.looked_at_again(user, parcel).await?));
        }
        self.complete_from_backup(room).await?;
        let of = room.to_owned();
        let bundle = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move { Ok(Ending::Commit(machine.store().build_room_key_bundle(&of).await?)) })
            })
            .await?;
        if bundle.is_empty() {
            return Ok(None);
        }
        let shared = HistoryShared {
            room_keys: bundle.room_keys.len(),
            withheld: bundle.withheld.len(),
            devices: 0,
        };
        self.open_sessions_with(room, user).await?;
        let file = self.upload_bundle(bundle).await?;
        let parcel = self.encrypted_word(room, user, file, shared).await?;
        Ok(Some(parcel))
    }

    /// Of what was encrypted earlier, what the user's devices may have still.
    async fn looked_at_again(&self, user: &UserId, parcel: Parcel) -> Result<Parcel> {
        let (user, manifest) = (user.to_owned(), self.manifest().await?);
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    refuse_drift(machine, &manifest, &BTreeSet::from([user.clone()])).await?;
                    refuse_replaced(machine, &user).await?;
                    let parcel = allowed(machine, &user, parcel.requests, parcel.shared).await?;
                    Ok(Ending::Commit(parcel))
                })
            })
            .await
    }

    /// A homeserver that shows nobody as invited is given nothing, and one that shows somebody is not asked for whom: that
    /// our own user has said.
    async fn refuse_uninvited(&self, room: &RoomId, user: &UserId) -> Result<()> {
        #[derive(Deserialize)]
        struct Member {
            membership: String,
        }
        let kind = StateEventType::RoomMember;
        let request = get_state_event_for_key::v3::Request::new(room.to_owned(), kind, user.to_string());
        let membership = match self.homeserver().exchange(request, Call::repeatable()).await {
            Ok(answer) => serde_json::from_slice::<Member>(answer.body()).ok(),
            Err(RequestError::Api { status, .. }) if status.as_u16() == 404 => None,
            Err(error) => return Err(error.into()),
        };
        match membership {
            Some(member) if matches!(member.membership.as_str(), "join" | "invite") => Ok(()),
            _ => Err(HistoryError::NotInvited {
                room: room.to_owned(),
                user: user.to_owned(),
            }
            .into()),
        }
    }

    /// Keys of the room that only the backup has are fetched, once.
    async fn complete_from_backup(&self, room: &RoomId) -> Result<()> {
        let of = room.to_owned();
        let missing = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let active = is_active(machine, unit).await?;
                    Ok(Ending::Commit(
                        active && !machine.store().has_downloaded_all_room_keys(&of).await?,
                    ))
                })
            })
            .await?;
        if !missing {
            return Ok(());
        }
        match Box::pin(self.restore_backup(Some(room))).await {
            Ok(_) => {}
            // There is none any more, or none of ours: what is here is all that there is.
            Err(Error::Backup(_)) => return Ok(()),
            Err(Error::Request(RequestError::Api { status, .. })) if status.as_u16() == 404 => {}
            Err(error) => return Err(error),
        }
        let of = room.to_owned();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let changes = Changes {
                        room_key_backups_fully_downloaded: [of].into(),
                        ..Changes::default()
                    };
                    machine.store().save_changes(changes).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// The user's devices are known, and there are sessions with them.
    async fn open_sessions_with(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let users = BTreeSet::from([user.to_owned()]);
        let policy = self.policy(room, None).await?;
        let mut servers = BTreeSet::new();
        let unknown = self.query_devices(&users, &mut servers).await?;
        if !unknown.is_empty() {
            let room = room.to_owned();
            return Err(Error::RecipientsUnknown {
                room,
                users: unknown,
                servers,
            });
        }
        let claimed = self.claim_sessions(room, &users, policy.recipients).await;
        claimed.map(drop)
    }

    async fn upload_bundle(&self, bundle: RoomKeyBundle) -> Result<EncryptedFile> {
        let sealed = aside(move || {
            let json = serde_json::to_vec(&bundle).map_err(|error| Error::engine(&error))?;
            let json = Zeroizing::new(json);
            if json.len() as u64 > MAX_BYTES {
                return Err(HistoryError::TooLarge { max: MAX_BYTES }.into());
            }
            bundle::seal(&json).map_err(|error| Error::engine(&error))
        });
        let (file, info) = sealed.await??;
        let uri = self.homeserver().upload(file).await?;
        Ok(EncryptedFile::new(uri, info.encryption_info, info.hashes))
    }

    /// Tell the user's devices where the bundle is: encrypted and on the disk, and not delivered yet.
    async fn encrypted_word(
        &self,
        room: &RoomId,
        user: &UserId,
        file: EncryptedFile,
        shared: HistoryShared,
    ) -> Result<Parcel> {
        let strategy = self.policy(room, None).await?.recipients.strategy();
        let (room, user, manifest) = (room.to_owned(), user.to_owned(), self.manifest().await?);
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    refuse_drift(machine, &manifest, &BTreeSet::from([user.clone()])).await?;
                    refuse_replaced(machine, &user).await?;
                    let content = RoomKeyBundleContent {
                        room_id: room.clone(),
                        file,
                    };
                    let requests = Box::pin(machine.share_room_key_bundle_data(&user, &strategy, content)).await?;
                    let parcel = allowed(machine, &user, requests, shared).await?;
                    // Whoever took it back meanwhile has the last word.
                    let Some(mut due) = Due::load(unit, &room, &user).await? else {
                        return Err(HistoryError::NotInvited { room, user }.into());
                    };
                    due.parcel = Some(parcel.clone());
                    due.save(unit)?;
                    Ok(Ending::Commit(parcel))
                })
            })
            .await
    }
}

/// Trying again would change nothing.
pub(super) const fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::History(_)
            | Error::RecipientNotAllowed { .. }
            | Error::RoomNotEncrypted { .. }
            | Error::NotInRoom { .. }
            | Error::IdentityChanged { .. }
            | Error::Manifest(_)
    )
}

async fn refuse_replaced(machine: &OlmMachine, user: &OwnedUserId) -> Result<()> {
    let identity = machine.get_identity(user, None).await?;
    if identity.is_some_and(|identity| identity.has_verification_violation()) {
        return Err(Error::IdentityChanged {
            users: BTreeSet::from([user.clone()]),
        });
    }
    Ok(())
}

/// What devices of the user may be told of these requests.
async fn allowed(
    machine: &OlmMachine,
    user: &UserId,
    requests: Vec<ToDeviceRequest>,
    mut shared: HistoryShared,
) -> Result<Parcel> {
    let requests = without_blocked(machine, requests).await?;
    shared.devices = requests.iter().map(ToDeviceRequest::message_count).sum();
    if shared.devices == 0 {
        let user = user.to_owned();
        return Err(HistoryError::NoDevices { user }.into());
    }
    Ok(Parcel { requests, shared })
}

/// Devices that our own user has blocked are told nothing, whoever signed them.
async fn without_blocked(machine: &OlmMachine, requests: Vec<ToDeviceRequest>) -> Result<Vec<ToDeviceRequest>> {
    let mut kept = Vec::new();
    for mut request in requests {
        for (user, messages) in &mut request.messages {
            let blocked: BTreeSet<String> = machine
                .get_user_devices(user, None)
                .await?
                .devices()
                .filter(|device| device.is_blacklisted())
                .map(|device| device.device_id().to_string())
                .collect();
            messages.retain(|device, _| !blocked.contains(&device.to_string()));
        }
        if request.message_count() > 0 {
            kept.push(request);
        }
    }
    Ok(kept)
}
