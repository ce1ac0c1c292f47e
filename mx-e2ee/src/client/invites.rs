//! Who may bring us into a room.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, stream};
use mx_olm_orchestrator::{Delivery, Event, Invite};
use mx_transport::Call;
use ruma::{OwnedServerName, OwnedUserId, RoomId, api::client::membership::join_room_by_id};

use crate::{Client, Error, Result};

/// How long rooms may take to let us in. Those of other homeservers are slow, and receiving waits meanwhile.
const MOST: Duration = Duration::from_secs(30);
/// So many rooms are asked at once.
const AT_ONCE: usize = 4;

/// Whose invitations are accepted while receiving. Every invitation is an [`Event`] too.
///
/// ```
/// use mx_e2ee::Invites;
///
/// assert_eq!(Invites::of(&["everybody"])?, Invites::Everybody);
/// assert!(matches!(Invites::of(&["@boss:example.org"])?, Invites::From(_)));
/// assert!(matches!(Invites::of(&["example.org"])?, Invites::FromServers(_)));
/// # Ok::<_, mx_e2ee::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invites {
    /// Nobody's: the app joins.
    #[default]
    Nobody,
    /// Those of these users.
    From(BTreeSet<OwnedUserId>),
    /// Those of users of these homeservers.
    FromServers(BTreeSet<OwnedServerName>),
    /// Everybody's: anybody can bring us into any room.
    Everybody,
}

impl Invites {
    /// From how an operator writes it: `everybody`, or users (`@…:server`) or servers, and not both.
    ///
    /// # Errors
    /// [`Error::InvalidId`].
    pub fn of(words: &[impl AsRef<str>]) -> Result<Self> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let invalid = |word: &str| Error::InvalidId {
            given: word.to_owned(),
            wanted: "whose invitations are accepted: everybody, users (@name:server), or servers",
        };
        match words.as_slice() {
            [] => Ok(Self::Nobody),
            ["everybody"] => Ok(Self::Everybody),
            [first, ..] if first.starts_with('@') => {
                let users = words.iter().map(|word| (*word).try_into().map_err(|_| invalid(word)));
                Ok(Self::From(users.collect::<Result<_>>()?))
            }
            _ => {
                let server = |word: &&str| match *word {
                    "everybody" => Err(invalid(word)),
                    word => word.try_into().map_err(|_| invalid(word)),
                };
                Ok(Self::FromServers(words.iter().map(server).collect::<Result<_>>()?))
            }
        }
    }

    /// Whether we join.
    ///
    /// ```
    /// use mx_e2ee::{Invite, Invites, ruma::{owned_room_id, owned_user_id}};
    ///
    /// let invite = Invite {
    ///     room_id: owned_room_id!("!ops:example.org"),
    ///     inviter: Some(owned_user_id!("@boss:example.org")),
    ///     name: None,
    ///     joined: false,
    /// };
    /// assert!(Invites::of(&["example.org"])?.accept(&invite));
    /// assert!(!Invites::default().accept(&invite));
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    #[must_use]
    pub fn accept(&self, invite: &Invite) -> bool {
        match (self, &invite.inviter) {
            (Self::Nobody, _) => false,
            (Self::Everybody, _) => true,
            (Self::From(users), Some(inviter)) => users.contains(inviter),
            (Self::FromServers(servers), Some(inviter)) => servers.contains(inviter.server_name()),
            (Self::From(_) | Self::FromServers(_), None) => false,
        }
    }
}

impl Client {
    /// Join where the policy says so, and say so in the invitations: for those who read the inbox of the
    /// [orchestrator](Self::orchestrator) themselves, since [`receive`](Self::receive) and [`events`](Self::events) do it.
    /// Rooms that let nobody in keep nothing else from being received for longer than half a minute, all together.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let device = client.orchestrator();
    /// let mut deliveries = device.inbox(None, 100).await?;
    /// client.answer_invites(&mut deliveries).await;
    /// device.acknowledge(&deliveries).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Safe: whoever has joined joins again without harm.
    pub async fn answer_invites(&self, deliveries: &mut [Delivery]) {
        let wanted = deliveries.iter_mut().filter_map(|delivery| match &mut delivery.event {
            Event::Invite(invite) if self.0.invites.accept(invite) => Some(invite),
            _ => None,
        });
        let joining = stream::iter(wanted).for_each_concurrent(AT_ONCE, |invite| async move {
            invite.joined = self.join_invited(&invite.room_id).await;
        });
        if tokio::time::timeout(MOST, joining).await.is_err() {
            tracing::warn!("rooms took too long to let us in: these invitations are left to the app");
        }
    }

    async fn join_invited(&self, room: &RoomId) -> bool {
        let request = join_room_by_id::v3::Request::new(room.to_owned());
        // Whoever is in a room is let in again.
        let joined = self
            .homeserver()
            .send_with(request, Call::repeatable().within(MOST))
            .await;
        if let Err(error) = &joined {
            let code = error.code();
            tracing::warn!(%room, code, "an invitation could not be accepted: it is left to the app");
        }
        joined.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_server_name, owned_user_id};

    use super::*;

    #[test]
    fn who_may_invite_is_read_as_it_is_written() {
        assert_eq!(Invites::of(&[] as &[&str]).unwrap(), Invites::Nobody);
        assert_eq!(Invites::of(&["everybody"]).unwrap(), Invites::Everybody);
        let users = [owned_user_id!("@a:x"), owned_user_id!("@b:y")];
        assert_eq!(Invites::of(&["@a:x", "@b:y"]).unwrap(), Invites::From(users.into()));
        assert_eq!(
            Invites::of(&["x"]).unwrap(),
            Invites::FromServers([owned_server_name!("x")].into())
        );
        for wrong in [
            &["@a"][..],
            &["@a:x", "x"],
            &["x", "@a:x"],
            &["x", "everybody"],
            &["everybody", "x"],
            &[""],
        ] {
            assert!(Invites::of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_who_may_brings_us_into_a_room() {
        let invite = |inviter: Option<OwnedUserId>| Invite {
            room_id: owned_room_id!("!r:x"),
            inviter,
            name: None,
            joined: false,
        };
        let bob = || Some(owned_user_id!("@bob:x"));
        let eve = || Some(owned_user_id!("@bob:x.evil"));
        let from = Invites::From([owned_user_id!("@bob:x")].into());
        let servers = Invites::FromServers([owned_server_name!("x")].into());
        for policy in [&from, &servers] {
            assert!(policy.accept(&invite(bob())));
            assert!(!policy.accept(&invite(eve())));
            assert!(!policy.accept(&invite(None)), "nobody is not somebody");
        }
        assert!(!Invites::default().accept(&invite(bob())));
        assert!(Invites::Everybody.accept(&invite(None)));
    }
}
