//! Who is in a room: complete, or not known.
//!
//! # Why
//! With lazily loaded members a sync never shows all of a room, so that a list pieced together from syncs alone may
//! leave somebody out. The list is asked for once, kept up to date from then on, and forgotten at every gap.

mod complete;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use tokio::sync::Mutex;

pub(crate) use self::complete::{Standing, standing};

/// A change of a room's members that a sync showed.
#[derive(Clone, Debug)]
pub(crate) enum MemberChange {
    /// Events were left out, or one cannot be read: the list is not complete any more.
    Forget,
    /// We are not in the room any more.
    Left,
    /// A member's standing.
    Now {
        user: OwnedUserId,
        membership: MembershipState,
    },
}

/// The members of one room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    standing: BTreeMap<OwnedUserId, MembershipState>,
    disputed: BTreeSet<OwnedUserId>,
    /// How many changes syncs had shown.
    as_of: u64,
}

impl Members {
    /// Whether this is a change.
    pub(crate) fn set(&mut self, user: OwnedUserId, membership: MembershipState) -> bool {
        let was_disputed = self.disputed.remove(&user);
        was_disputed | (self.standing.insert(user, membership.clone()) != Some(membership))
    }

    /// The homeserver's list has no word of somebody who joined: no proof of leaving, so that they are members.
    fn add_missing(&mut self, joined: impl IntoIterator<Item = OwnedUserId>) {
        for user in joined {
            if !self.standing.contains_key(&user) {
                self.standing.insert(user.clone(), MembershipState::Join);
                self.disputed.insert(user);
            }
        }
    }

    /// How many changes syncs had shown when this was the list: with [`MemberCache::changes`], whether it still is.
    pub(crate) const fn as_of(&self) -> u64 {
        self.as_of
    }

    /// Members whom the homeserver's list left out.
    pub(crate) const fn disputed(&self) -> &BTreeSet<OwnedUserId> {
        &self.disputed
    }

    pub(crate) fn joined(&self, user: &OwnedUserId) -> bool {
        self.standing.get(user) == Some(&MembershipState::Join)
    }

    /// Who may read what is sent now: who joined, and who is invited where invited people may read what was said
    /// before they join.
    pub(crate) fn readers(&self, visibility: Option<&HistoryVisibility>) -> BTreeSet<OwnedUserId> {
        let invited_too = !matches!(visibility, Some(HistoryVisibility::Joined));
        self.standing
            .iter()
            .filter(|(_, membership)| match membership {
                MembershipState::Join => true,
                MembershipState::Invite => invited_too,
                _ => false,
            })
            .map(|(user, _)| user.clone())
            .collect()
    }
}

/// What is known of one room's members.
#[derive(Debug, Default)]
struct Known {
    /// `None`: it has to be asked for.
    complete: Option<Members>,
    /// Whom syncs showed, and whether they had joined when they were shown last.
    seen: BTreeMap<OwnedUserId, bool>,
    /// How many changes syncs showed.
    changes: u64,
}

/// The lists that are complete, and what syncs showed of the others.
#[derive(Debug, Default)]
pub(crate) struct MemberCache(Mutex<HashMap<OwnedRoomId, Known>>);

impl MemberCache {
    pub(crate) async fn get(&self, room: &RoomId) -> Option<Members> {
        let rooms = self.0.lock().await;
        let known = rooms.get(room)?;
        let mut members = known.complete.clone()?;
        members.as_of = known.changes;
        Some(members)
    }

    /// How many changes of who is in the room syncs showed so far.
    pub(crate) async fn changes(&self, room: &RoomId) -> u64 {
        self.0.lock().await.get(room).map_or(0, |known| known.changes)
    }

    /// Whom syncs showed, and whether they had joined when they were shown last.
    async fn seen(&self, room: &RoomId) -> BTreeMap<OwnedUserId, bool> {
        let rooms = self.0.lock().await;
        rooms.get(room).map(|known| known.seen.clone()).unwrap_or_default()
    }

    /// Keep a list that was asked for when syncs had shown `changes`. Returns whether they have shown no more since: one
    /// that is older than a sync would bring back who has left.
    async fn put(&self, room: OwnedRoomId, members: Members, changes: u64) -> bool {
        let mut rooms = self.0.lock().await;
        let known = rooms.entry(room).or_default();
        if known.changes != changes {
            return false;
        }
        known.complete = Some(members);
        true
    }

    /// Follow what a sync showed. A room whose list is not known stays unknown.
    pub(crate) async fn follow(&self, changes: Vec<(OwnedRoomId, MemberChange)>) {
        let mut rooms = self.0.lock().await;
        for (room, change) in changes {
            let known = rooms.entry(room).or_default();
            // Another name or picture of a member is no change of who may read.
            let changed = match change {
                MemberChange::Forget => {
                    known.complete = None;
                    true
                }
                MemberChange::Left => {
                    known.complete = None;
                    known.seen.clear();
                    true
                }
                MemberChange::Now { user, membership } => {
                    known.seen.insert(user.clone(), membership == MembershipState::Join);
                    match &mut known.complete {
                        Some(members) => members.set(user, membership),
                        None => true,
                    }
                }
            };
            known.changes += u64::from(changed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        let mut members = Members::default();
        members.set("@in:s".try_into().unwrap(), MembershipState::Join);
        members.set("@asked:s".try_into().unwrap(), MembershipState::Invite);
        members.set("@gone:s".try_into().unwrap(), MembershipState::Leave);
        members.set("@out:s".try_into().unwrap(), MembershipState::Ban);
        members
    }

    fn names(users: &BTreeSet<OwnedUserId>) -> Vec<&str> {
        users.iter().map(|user| user.as_str()).collect()
    }

    #[test]
    fn invited_people_read_unless_history_starts_at_joining() {
        let shared = members().readers(None);
        assert_eq!(
            names(&shared),
            ["@asked:s", "@in:s"],
            "shared is the specification's default"
        );
        assert_eq!(members().readers(Some(&HistoryVisibility::Invited)), shared);
        let joined = members().readers(Some(&HistoryVisibility::Joined));
        assert_eq!(names(&joined), ["@in:s"]);
    }

    #[test]
    fn who_joined_and_is_left_out_is_a_member_and_who_left_is_not() {
        let mut members = members();
        let seen = ["@in:s", "@gone:s", "@left-out:s"].map(|user| OwnedUserId::try_from(user).unwrap());
        members.add_missing(seen);
        assert_eq!(names(members.disputed()), ["@left-out:s"]);
        let joined = members.readers(Some(&HistoryVisibility::Joined));
        assert_eq!(names(&joined), ["@in:s", "@left-out:s"]);
        // A sync's word ends the dispute.
        members.set("@left-out:s".try_into().unwrap(), MembershipState::Leave);
        assert!(members.disputed().is_empty());
        assert_eq!(names(&members.readers(Some(&HistoryVisibility::Joined))), ["@in:s"]);
    }

    fn now(room: &OwnedRoomId, user: &str, membership: MembershipState) -> (OwnedRoomId, MemberChange) {
        let user = user.try_into().unwrap();
        (room.clone(), MemberChange::Now { user, membership })
    }

    #[tokio::test]
    async fn a_gap_forgets_and_a_change_follows() {
        let cache = MemberCache::default();
        let room: OwnedRoomId = "!r:s".try_into().unwrap();
        cache.follow(vec![now(&room, "@in:s", MembershipState::Join)]).await;
        assert!(
            cache.get(&room).await.is_none(),
            "a list pieced together from syncs is not complete"
        );
        assert!(cache.put(room.clone(), members(), 1).await);
        cache.follow(vec![now(&room, "@in:s", MembershipState::Leave)]).await;
        assert_eq!(cache.get(&room).await.unwrap().readers(None).len(), 1);
        cache.follow(vec![(room.clone(), MemberChange::Forget)]).await;
        assert!(cache.get(&room).await.is_none());
    }

    #[tokio::test]
    async fn a_list_that_a_sync_has_overtaken_is_not_kept() {
        let cache = MemberCache::default();
        let room: OwnedRoomId = "!r:s".try_into().unwrap();
        let asked_at = cache.changes(&room).await;
        cache.follow(vec![now(&room, "@in:s", MembershipState::Leave)]).await;
        assert!(!cache.put(room.clone(), members(), asked_at).await);
        assert!(cache.get(&room).await.is_none());
        let asked_at = cache.changes(&room).await;
        assert!(cache.put(room.clone(), members(), asked_at).await);
    }

    #[tokio::test]
    async fn who_was_seen_is_remembered_over_a_gap_and_not_over_our_leaving() {
        let cache = MemberCache::default();
        let room: OwnedRoomId = "!r:s".try_into().unwrap();
        cache
            .follow(vec![
                now(&room, "@in:s", MembershipState::Join),
                now(&room, "@gone:s", MembershipState::Join),
                now(&room, "@gone:s", MembershipState::Leave),
                (room.clone(), MemberChange::Forget),
            ])
            .await;
        let seen: Vec<(String, bool)> = cache
            .seen(&room)
            .await
            .into_iter()
            .map(|(user, joined)| (user.to_string(), joined))
            .collect();
        assert_eq!(seen, [("@gone:s".to_owned(), false), ("@in:s".to_owned(), true)]);
        cache.follow(vec![(room.clone(), MemberChange::Left)]).await;
        assert!(cache.seen(&room).await.is_empty());
    }
}
