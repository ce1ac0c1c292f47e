//! Who is in a room: complete, or not known.
//!
//! # Why
//! With lazily loaded members a sync never shows all of a room, so that a list pieced together from syncs alone may
//! leave somebody out. The list is asked for once, kept up to date from then on, and forgotten at every gap.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use tokio::sync::Mutex;

/// A change of a room's members that a sync showed.
#[derive(Clone, Debug)]
pub(crate) enum MemberChange {
    /// Events were left out, or we are not in the room any more.
    Forget,
    /// A member's standing.
    Now {
        user: OwnedUserId,
        membership: MembershipState,
    },
}

/// The members of one room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members(BTreeMap<OwnedUserId, MembershipState>);

impl Members {
    /// Whether this is a change.
    pub(crate) fn set(&mut self, user: OwnedUserId, membership: MembershipState) -> bool {
        self.0.insert(user, membership.clone()) != Some(membership)
    }

    pub(crate) fn joined(&self, user: &OwnedUserId) -> bool {
        self.0.get(user) == Some(&MembershipState::Join)
    }

    /// Who may read what is sent now: who joined, and who is invited where invited people may read what was said
    /// before they join.
    pub(crate) fn readers(&self, visibility: Option<&HistoryVisibility>) -> BTreeSet<OwnedUserId> {
        let invited_too = !matches!(visibility, Some(HistoryVisibility::Joined));
        self.0
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

/// The lists that are complete.
#[derive(Debug, Default)]
pub(crate) struct MemberCache(Mutex<HashMap<OwnedRoomId, Members>>, Mutex<HashMap<OwnedRoomId, u64>>);

impl MemberCache {
    pub(crate) async fn get(&self, room: &RoomId) -> Option<Members> {
        self.0.lock().await.get(room).cloned()
    }

    pub(crate) async fn put(&self, room: OwnedRoomId, members: Members) {
        self.changed(&room).await;
        self.0.lock().await.insert(room, members);
    }

    /// How often what is known of a room's members changed.
    pub(crate) async fn changes(&self, room: &RoomId) -> u64 {
        self.1.lock().await.get(room).copied().unwrap_or_default()
    }

    async fn changed(&self, room: &RoomId) {
        *self.1.lock().await.entry(room.to_owned()).or_default() += 1;
    }

    /// Follow what a sync showed. A room whose list is not known stays unknown.
    pub(crate) async fn follow(&self, changes: Vec<(OwnedRoomId, MemberChange)>) {
        let mut rooms = self.0.lock().await;
        for (room, change) in changes {
            match change {
                MemberChange::Forget => {
                    self.changed(&room).await;
                    rooms.remove(&room);
                }
                MemberChange::Now { user, membership } => {
                    if let Some(members) = rooms.get_mut(&room)
                        && members.set(user, membership)
                    {
                        self.changed(&room).await;
                    }
                }
            }
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

    #[test]
    fn invited_people_read_unless_history_starts_at_joining() {
        let names = |visibility| {
            members()
                .readers(visibility)
                .into_iter()
                .map(|user| user.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(None),
            ["@asked:s", "@in:s"],
            "shared is the specification's default"
        );
        assert_eq!(names(Some(&HistoryVisibility::Invited)), ["@asked:s", "@in:s"]);
        assert_eq!(names(Some(&HistoryVisibility::Joined)), ["@in:s"]);
    }

    #[tokio::test]
    async fn a_gap_forgets_and_a_change_follows() {
        let cache = MemberCache::default();
        let room: OwnedRoomId = "!r:s".try_into().unwrap();
        let now = |user: &str, membership| {
            (
                room.clone(),
                MemberChange::Now {
                    user: user.try_into().unwrap(),
                    membership,
                },
            )
        };
        cache.follow(vec![now("@in:s", MembershipState::Join)]).await;
        assert!(
            cache.get(&room).await.is_none(),
            "a list pieced together from syncs is not complete"
        );
        cache.put(room.clone(), members()).await;
        cache.follow(vec![now("@in:s", MembershipState::Leave)]).await;
        assert_eq!(cache.get(&room).await.unwrap().readers(None).len(), 1);
        cache.follow(vec![(room.clone(), MemberChange::Forget)]).await;
        assert!(cache.get(&room).await.is_none());
    }
}
