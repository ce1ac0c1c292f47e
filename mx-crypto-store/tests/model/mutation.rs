//! Every method of the engine's trait that changes something, as a value.

use matrix_sdk_crypto::store::{
    CryptoStore,
    types::{BackupDecryptionKey, Changes, DehydratedDeviceKey, PendingChanges, SecretsInboxItem},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::pool::{self, pool};

/// What one field of `Changes` gets. The numbers are places in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    PrivateIdentity(usize),
    BackupVersion(usize),
    BackupKey(u8),
    DehydratedKey(u8),
    Session(usize),
    MessageHash(usize),
    Inbound(usize),
    Outbound(usize),
    KeyRequest(usize),
    IdentityNew(usize),
    IdentityChanged(usize),
    DeviceNew(usize),
    DeviceChanged(usize),
    DeviceDeleted(usize),
    Withheld(usize),
    RoomSettings { room: usize, value: usize },
    Secret(usize),
    NextBatch(u8),
    Bundle(usize),
    Downloaded(usize),
    PendingBundle { room: usize, value: Option<usize> },
}

/// A call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    Save(Vec<Piece>),
    Account(Option<usize>),
    /// The account of another device, which is refused.
    ForeignAccount,
    SaveInbound {
        sessions: Vec<usize>,
        version: Option<usize>,
    },
    MarkBackedUp {
        version: usize,
        sessions: Vec<usize>,
    },
    ResetBackup,
    Track(Vec<(usize, bool)>),
    SetCustom(usize, u8),
    RemoveCustom(usize),
    DeleteRequest(usize),
    DeleteSecrets(usize),
    DeleteDehydratedKey,
    /// The clock is left out of the game: a lease is over at once, or never.
    Lease {
        forever: bool,
        key: usize,
        holder: usize,
    },
}

/// What a call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Lease(Option<u64>),
    Position(u64),
}

pub(crate) const VERSIONS: [&str; 2] = ["backup 1", "backup 2"];
pub(crate) const CUSTOM: [&str; 2] = ["custom", "another"];
pub(crate) const LEASES: [&str; 2] = ["lease", "another"];
pub(crate) const HOLDERS: [&str; 2] = ["holder", "another"];

impl Piece {
    pub(crate) fn is_private_identity(&self) -> bool {
        matches!(self, Self::PrivateIdentity(_))
    }

    fn put(self, changes: &mut Changes) {
        match self {
            Self::PrivateIdentity(index) => changes.private_identity = Some(pool().private_identity(index)),
            Self::BackupVersion(index) => changes.backup_version = Some(VERSIONS[index].to_owned()),
            Self::BackupKey(byte) => changes.backup_decryption_key = Some(backup_key(byte)),
            Self::DehydratedKey(byte) => {
                changes.dehydrated_device_pickle_key = Some(DehydratedDeviceKey::from_bytes(&[byte; 32]));
            }
            Self::Session(index) => changes.sessions.push(pool().session(index)),
            Self::MessageHash(index) => changes.message_hashes.push(pool::hash(index)),
            Self::Inbound(index) => changes.inbound_group_sessions.push(pool().inbound(index)),
            Self::Outbound(index) => changes.outbound_group_sessions.push(pool().outbound(index)),
            Self::KeyRequest(index) => changes.key_requests.push(pool::request(index)),
            Self::IdentityNew(index) => changes.identities.new.push(pool().identity(index)),
            Self::IdentityChanged(index) => changes.identities.changed.push(pool().identity(index)),
            Self::DeviceNew(index) => changes.devices.new.push(pool().device(index)),
            Self::DeviceChanged(index) => changes.devices.changed.push(pool().device(index)),
            Self::DeviceDeleted(index) => changes.devices.deleted.push(pool().device(index)),
            rest => rest.put_of_rooms(changes),
        }
    }

    fn put_of_rooms(self, changes: &mut Changes) {
        match self {
            Self::Withheld(index) => {
                let (room, session, entry) = pool::withheld(index);
                changes
                    .withheld_session_info
                    .entry(room)
                    .or_default()
                    .insert(session, entry);
            }
            Self::RoomSettings { room, value } => {
                changes
                    .room_settings
                    .insert(pool::room(room).to_owned(), pool::settings(value));
            }
            Self::Secret(index) => {
                let (secret_name, secret) = pool::secret(index);
                changes.secrets.push(SecretsInboxItem {
                    secret_name,
                    secret: secret.into(),
                });
            }
            Self::NextBatch(value) => changes.next_batch_token = Some(format!("token {value}")),
            Self::Bundle(index) => changes.received_room_key_bundles.push(pool::bundle(index)),
            Self::Downloaded(room) => {
                changes
                    .room_key_backups_fully_downloaded
                    .insert(pool::room(room).to_owned());
            }
            Self::PendingBundle { room, value } => {
                let details = value.map(|value| pool::pending(room, value));
                changes
                    .rooms_pending_key_bundle
                    .insert(pool::room(room).to_owned(), details);
            }
            _ => {}
        }
    }
}

fn backup_key(byte: u8) -> BackupDecryptionKey {
    serde_json::from_value(serde_json::to_value([byte; 32]).unwrap()).unwrap()
}

/// All pieces in one call.
pub(crate) fn changes(pieces: &[Piece]) -> Changes {
    let mut changes = Changes::default();
    for piece in pieces {
        piece.put(&mut changes);
    }
    changes
}

impl Mutation {
    /// Make the call.
    pub(crate) async fn apply<S>(&self, store: &S) -> Result<Answer, S::Error>
    where
        S: CryptoStore,
        S::Error: Send,
    {
        match self {
            Self::Save(pieces) => store.save_changes(changes(pieces)).await?,
            Self::Account(index) => {
                let account = index.map(|index| pool().account(index));
                store.save_pending_changes(PendingChanges { account }).await?;
            }
            Self::ForeignAccount => {
                let account = Some(pool().foreign_account());
                store.save_pending_changes(PendingChanges { account }).await?;
            }
            Self::SaveInbound { sessions, version } => {
                let sessions = sessions.iter().map(|&index| pool().inbound(index)).collect();
                let version = version.map(|version| VERSIONS[version]);
                store.save_inbound_group_sessions(sessions, version).await?;
            }
            Self::MarkBackedUp { version, sessions } => {
                let ids = &pool().inbound_ids;
                let sessions: Vec<_> = sessions.iter().map(|&index| (&*ids[index].0, &*ids[index].1)).collect();
                store
                    .mark_inbound_group_sessions_as_backed_up(VERSIONS[*version], &sessions)
                    .await?;
            }
            Self::ResetBackup => store.reset_backup_state().await?,
            Self::Track(users) => {
                let all = pool::users();
                let users: Vec<_> = users.iter().map(|&(user, dirty)| (&*all[user], dirty)).collect();
                store.save_tracked_users(&users).await?;
            }
            Self::SetCustom(key, value) => store.set_custom_value(CUSTOM[*key], vec![*value; 3]).await?,
            Self::RemoveCustom(key) => store.remove_custom_value(CUSTOM[*key]).await?,
            Self::DeleteRequest(id) => store.delete_outgoing_secret_requests(&pool::request_id(*id)).await?,
            Self::DeleteSecrets(name) => store.delete_secrets_from_inbox(&pool::secret_name(*name)).await?,
            Self::DeleteDehydratedKey => store.delete_dehydrated_device_pickle_key().await?,
            Self::Lease { forever, key, holder } => {
                let duration_ms = if *forever { u32::MAX } else { 0 };
                let taken = store.try_take_leased_lock(duration_ms, LEASES[*key], HOLDERS[*holder]);
                return Ok(Answer::Lease(taken.await?));
            }
        }
        Ok(Answer::Done)
    }
}

fn index(length: usize) -> impl Strategy<Value = usize> + Clone {
    0..length
}

fn inbound() -> impl Strategy<Value = usize> {
    index(pool().kept().inbound.len())
}

fn piece() -> impl Strategy<Value = Piece> {
    let kept = pool().kept();
    prop_oneof![
        1 => index(kept.private_identities.len()).prop_map(Piece::PrivateIdentity),
        1 => index(VERSIONS.len()).prop_map(Piece::BackupVersion),
        1 => (1..3_u8).prop_map(Piece::BackupKey),
        1 => (1..3_u8).prop_map(Piece::DehydratedKey),
        3 => index(kept.sessions.len()).prop_map(Piece::Session),
        1 => index(pool::HASHES).prop_map(Piece::MessageHash),
        4 => inbound().prop_map(Piece::Inbound),
        3 => index(kept.outbound.len()).prop_map(Piece::Outbound),
        2 => index(pool::REQUESTS).prop_map(Piece::KeyRequest),
        1 => index(kept.identities.len()).prop_map(Piece::IdentityNew),
        1 => index(kept.identities.len()).prop_map(Piece::IdentityChanged),
        2 => index(kept.devices.len()).prop_map(Piece::DeviceNew),
        1 => index(kept.devices.len()).prop_map(Piece::DeviceChanged),
        2 => index(kept.devices.len()).prop_map(Piece::DeviceDeleted),
        1 => index(pool::WITHHELD).prop_map(Piece::Withheld),
        1 => (index(pool::ROOMS), index(2)).prop_map(|(room, value)| Piece::RoomSettings { room, value }),
        2 => index(pool::SECRETS).prop_map(Piece::Secret),
        1 => (0..3_u8).prop_map(Piece::NextBatch),
        1 => index(pool::BUNDLES).prop_map(Piece::Bundle),
        1 => index(pool::ROOMS).prop_map(Piece::Downloaded),
        2 => (index(pool::ROOMS), prop::option::of(index(2)))
            .prop_map(|(room, value)| Piece::PendingBundle { room, value }),
    ]
}

/// Any of them.
pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    let kept = pool().kept();
    let ids = pool().inbound_ids.len();
    let users = pool::users().len();
    prop_oneof![
        12 => vec(piece(), 1..5).prop_map(Mutation::Save),
        3 => prop::option::weighted(0.9, index(kept.accounts.len())).prop_map(Mutation::Account),
        1 => Just(Mutation::ForeignAccount),
        3 => (vec(inbound(), 1..4), prop::option::of(index(VERSIONS.len())))
            .prop_map(|(sessions, version)| Mutation::SaveInbound { sessions, version }),
        3 => (index(VERSIONS.len()), vec(index(ids), 1..4))
            .prop_map(|(version, sessions)| Mutation::MarkBackedUp { version, sessions }),
        1 => Just(Mutation::ResetBackup),
        2 => vec((index(users), any::<bool>()), 1..4).prop_map(Mutation::Track),
        2 => (index(CUSTOM.len()), 0..3_u8).prop_map(|(key, value)| Mutation::SetCustom(key, value)),
        1 => index(CUSTOM.len()).prop_map(Mutation::RemoveCustom),
        2 => index(3).prop_map(Mutation::DeleteRequest),
        1 => select(vec![0_usize, 1]).prop_map(Mutation::DeleteSecrets),
        1 => Just(Mutation::DeleteDehydratedKey),
        2 => (any::<bool>(), index(LEASES.len()), index(HOLDERS.len()))
            .prop_map(|(forever, key, holder)| Mutation::Lease { forever, key, holder }),
    ]
}
