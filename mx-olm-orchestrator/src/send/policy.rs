//! How careful a send is, and for whom it may be: the call's word, else the room's, else the client's.
//!
//! # Why
//! A homeserver decides who is in a room and which devices they have. By default that is reported with every send; a list
//! of allowed users and [`Recipients::OnlyTrusted`] are what turns a stranger away.

use std::collections::BTreeSet;

use matrix_sdk_crypto::CollectStrategy;
use ruma::{OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use super::recipients::Readers;
use crate::{Error, Orchestrator, Result, machine::Ending, rooms::RoomRecord};

/// How careful a send is.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{Recipients, RoomPolicy};
///
/// // An alert has to go out, also where somebody's server does not answer; this room alone, and from now on.
/// let policy = RoomPolicy { recipients: Some(Recipients::BestEffort), ..RoomPolicy::default() };
/// device.set_room_policy(room, policy).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recipients {
    /// Refuse while anybody's devices are unknown, or the identity of a verified user was replaced.
    #[default]
    Strict,
    /// Send to those who are known; the receipt names the others.
    BestEffort,
    /// As strict, and the key goes to trusted devices only: those that were trusted by their fingerprint, and those that
    /// are signed by an identity that we verified. The others are told `m.unverified`.
    OnlyTrusted,
}

impl Recipients {
    pub(super) const fn is_strict(self) -> bool {
        !matches!(self, Self::BestEffort)
    }

    /// Which devices the engine gives the key to. Neither of the two fails or panics where a user has no identity.
    pub(crate) const fn strategy(self) -> CollectStrategy {
        match self {
            Self::Strict | Self::BestEffort => CollectStrategy::AllDevices,
            Self::OnlyTrusted => CollectStrategy::OnlyTrustedDevices,
        }
    }
}

/// What a call says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Care {
    /// `None`: as the room's policy says, else the client's.
    pub(super) recipients: Option<Recipients>,
    /// Send although the room was replaced by another one.
    pub(super) into_tombstoned: bool,
}

/// For whom messages of one room may be.
///
/// ```
/// use mx_olm_orchestrator::{Recipients, RoomPolicy};
///
/// let friends = [ruma::owned_user_id!("@friend:example.org")];
/// let policy = RoomPolicy { recipients: Some(Recipients::OnlyTrusted), allowed: Some(friends.into()) };
/// # assert_ne!(policy, RoomPolicy::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomPolicy {
    /// How careful sends are. `None`: as the client's [`Options::recipients`](crate::Options::recipients) says.
    #[serde(default)]
    pub recipients: Option<Recipients>,
    /// Who may read. `None`: every member. Where the client has a list too, both have to name a member. We ourselves
    /// need not be named.
    #[serde(default)]
    pub allowed: Option<BTreeSet<OwnedUserId>>,
}

impl RoomPolicy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What holds for one send.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) recipients: Recipients,
    lists: Vec<BTreeSet<OwnedUserId>>,
}

impl Policy {
    /// # Errors
    /// [`Error::RecipientNotAllowed`], with everybody whom a list does not name.
    pub(crate) fn check(&self, room: &RoomId, own: &UserId, users: &BTreeSet<OwnedUserId>) -> Result<()> {
        let strangers: BTreeSet<OwnedUserId> = users
            .iter()
            .filter(|user| *user != own && self.lists.iter().any(|list| !list.contains(*user)))
            .cloned()
            .collect();
        if strangers.is_empty() {
            return Ok(());
        }
        Err(Error::RecipientNotAllowed {
            room: room.to_owned(),
            users: strangers,
        })
    }

    /// # Errors
    /// [`Error::RecipientsUnknown`], unless the caller asked for best effort.
    pub(super) fn accept(&self, room: &RoomId, readers: Readers) -> Result<Readers> {
        if self.recipients.is_strict() && !readers.unknown.is_empty() {
            return Err(Error::RecipientsUnknown {
                room: room.to_owned(),
                users: readers.unknown,
                servers: readers.failed,
            });
        }
        Ok(readers)
    }
}

impl Orchestrator {
    /// For whom messages of the room may be, as [`set_room_policy`](Self::set_room_policy) left it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// use mx_olm_orchestrator::{Recipients, RoomPolicy};
    ///
    /// let room = ruma::room_id!("!alerts:example.org");
    /// assert_eq!(device.room_policy(room).await?.recipients, None, "as the options say");
    /// device.set_room_policy(room, RoomPolicy { recipients: Some(Recipients::OnlyTrusted), allowed: None }).await?;
    /// assert_eq!(device.room_policy(room).await?.recipients, Some(Recipients::OnlyTrusted));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn room_policy(&self, room: &RoomId) -> Result<RoomPolicy> {
        Ok(RoomRecord::committed(self.store(), room).await?.policy)
    }

    /// Say for whom messages of the room may be, from the next send on and after every restart. Where that leaves out a
    /// device that has the room's key, the next send makes a new one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// use mx_olm_orchestrator::RoomPolicy;
    ///
    /// let (room, boss) = (ruma::room_id!("!alerts:example.org"), ruma::owned_user_id!("@boss:example.org"));
    /// // Whoever else comes into the room, nothing is sent to it from then on: a send says who that is.
    /// device.set_room_policy(room, RoomPolicy { recipients: None, allowed: Some([boss].into()) }).await?;
    /// assert_eq!(device.room_policy(room).await?.allowed.map(|users| users.len()), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store: nothing is changed then.
    ///
    /// # Cancel safety
    /// Safe: the policy is kept as a whole or not at all.
    pub async fn set_room_policy(&self, room: &RoomId, policy: RoomPolicy) -> Result<()> {
        let room = room.to_owned();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    let mut record = RoomRecord::load(unit, &room).await?;
                    record.policy = policy;
                    record.save(unit, &room)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// What holds for one send.
    pub(crate) async fn policy(&self, room: &RoomId, of_the_call: Option<Recipients>) -> Result<Policy> {
        let of_room = self.room_policy(room).await?;
        let options = self.options();
        Ok(Policy {
            recipients: of_the_call.or(of_room.recipients).unwrap_or(options.recipients),
            lists: options
                .allowed_recipients
                .iter()
                .cloned()
                .chain(of_room.allowed)
                .collect(),
        })
    }
}

/// Left out of a room's record where nobody set one.
pub(crate) fn is_default(policy: &RoomPolicy) -> bool {
    policy.is_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> BTreeSet<OwnedUserId> {
        names.iter().map(|name| (*name).try_into().unwrap()).collect()
    }

    #[test]
    fn each_list_has_to_name_a_member_and_we_need_no_list() {
        let room = ruma::room_id!("!r:s");
        let own = ruma::user_id!("@own:s");
        let mut policy = Policy {
            recipients: Recipients::Strict,
            lists: Vec::new(),
        };
        let members = users(&["@own:s", "@a:s", "@b:s", "@c:s"]);
        policy.check(room, own, &members).unwrap();
        policy.lists.push(users(&["@a:s", "@b:s"]));
        policy.lists.push(users(&["@b:s", "@c:s"]));
        match policy.check(room, own, &members).unwrap_err() {
            Error::RecipientNotAllowed { users: named, .. } => assert_eq!(named, users(&["@a:s", "@c:s"])),
            other => unreachable!("{other:?}"),
        }
        policy.check(room, own, &users(&["@own:s", "@b:s"])).unwrap();
        policy.lists.push(BTreeSet::new());
        assert_eq!(
            policy.check(room, own, &users(&["@b:s"])).unwrap_err().code(),
            "recipient_not_allowed"
        );
        policy.check(room, own, &users(&["@own:s"])).unwrap();
    }

    #[test]
    fn the_stored_form_reads_back() {
        let policy = RoomPolicy {
            recipients: Some(Recipients::OnlyTrusted),
            allowed: Some(users(&["@a:s"])),
        };
        let json = serde_json::to_value(&policy).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"recipients": "only_trusted", "allowed": ["@a:s"]})
        );
        assert_eq!(serde_json::from_value::<RoomPolicy>(json).unwrap(), policy);
    }
}
