//! Who is in a room: invited, with what was said before or without, and looked at.

use mx_olm_orchestrator::HistoryShared;
use mx_transport::RequestError;
use ruma::{
    OwnedUserId, UserId,
    api::client::membership::{get_member_events, invite_user, leave_room},
};
use serde::Serialize;
use serde_json::Value;

use super::Room;
use crate::{Error, Result};

/// Somebody in a room.
///
/// ```no_run
/// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
/// for member in room.members().await? {
///     // The id says who it is; the name is what they like to be called.
///     println!("{} ({}) {}", member.user_id, member.display_name.unwrap_or_default(), member.membership);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_id: OwnedUserId,
    /// `join`, `invite`, `leave`, `ban` or `knock`.
    pub membership: String,
    /// What they call themselves in this room. Anybody can be called anything.
    pub display_name: Option<String>,
}

impl Room {
    /// Invite somebody. They can read what is said from now on; for what was said before, see
    /// [`invite_with_history`](Self::invite_with_history).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// let room = client.create_room(Some("Operations"), &[]).await?;
    /// room.invite(user_id!("@boss:example.org")).await?;
    /// for member in room.members().await? {
    ///     println!("{}: {}", member.user_id, member.membership);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn invite(&self, user: &UserId) -> Result<()> {
        let recipient =
            invite_user::v3::InvitationRecipient::UserId(invite_user::v3::InviteUserId::new(user.to_owned()));
        self.client
            .homeserver()
            .send(invite_user::v3::Request::new(self.id.clone(), recipient))
            .await?;
        Ok(())
    }

    /// Invite somebody, and give them the room keys of what was said before, as far as the room let newcomers read then.
    /// What is given cannot be taken back, and reaches every device that the user's identity has signed. Whether it may be
    /// given is looked at before the invitation.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// match room.invite_with_history(user_id!("@new:example.org")).await {
    ///     Ok(shared) => println!("{} devices have {} room keys", shared.devices, shared.room_keys),
    ///     // Nobody was invited: the room's settings say that newcomers do not read what was said before.
    ///     Err(error) if error.code() == "history_not_for_newcomers" => room.invite(user_id!("@new:example.org")).await?,
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`share_history`](Self::share_history). Where it is of the request that invites, or of what is looked at before it,
    /// nobody was invited and nothing is given. After that the user is invited, and where another attempt may help, the next
    /// syncs make it; the last one is told as [`Event::HistoryNotShared`](crate::Event::HistoryNotShared).
    ///
    /// # Cancel safety
    /// Safe: a history that was noted is given by the next syncs, if the user was invited.
    pub async fn invite_with_history(&self, user: &UserId) -> Result<HistoryShared> {
        let device = self.client.orchestrator();
        device.may_share_history(&self.id, user).await?;
        device.intend_history(&self.id, user).await?;
        if let Err(error) = self.invite(user).await {
            // Whether a request that got lost has invited somebody, the next syncs see.
            if matches!(
                error,
                Error::Orchestrator(mx_olm_orchestrator::Error::Request(RequestError::Api { .. }))
            ) {
                device.forget_history(&self.id, user).await?;
            }
            return Err(error);
        }
        self.share_history(user).await
    }

    /// Give somebody who is in the room, or invited to it, the room keys of what was said before. As
    /// [`Orchestrator::share_history`](mx_olm_orchestrator::Orchestrator::share_history).
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// // Somebody whom another member has invited.
    /// let shared = room.share_history(user_id!("@new:example.org")).await?;
    /// println!("{} room keys given, {} kept back from before newcomers might read", shared.room_keys, shared.withheld);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `history_not_cross_signed`, `history_not_for_newcomers`, `history_not_invited`, `history_no_devices`,
    /// `history_too_large`, `recipient_not_allowed`, `recipients_unknown`, `identity_changed`; of the request, and the next
    /// syncs try again; of the store.
    pub async fn share_history(&self, user: &UserId) -> Result<HistoryShared> {
        Ok(self.client.orchestrator().share_history(&self.id, user).await?)
    }

    /// Leave the room.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // Out of every room where nobody else is left.
    /// for room in client.rooms().await? {
    ///     if room.members().await?.len() < 2 {
    ///         room.leave().await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn leave(&self) -> Result<()> {
        self.client
            .homeserver()
            .send(leave_room::v3::Request::new(self.id.clone()))
            .await?;
        Ok(())
    }

    /// Everybody who joined or is invited.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// let members = room.members().await?;
    /// let invited = members.iter().filter(|member| member.membership == "invite").count();
    /// println!("{} are here, and {invited} are invited: these can read, too, as a rule", members.len() - invited);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn members(&self) -> Result<Vec<Member>> {
        #[derive(serde::Deserialize)]
        struct Raw {
            state_key: OwnedUserId,
            content: Value,
        }
        let answer = self
            .client
            .homeserver()
            .send(get_member_events::v3::Request::new(self.id.clone()))
            .await?;
        let members = answer
            .chunk
            .into_iter()
            .filter_map(|raw| raw.deserialize_as_unchecked::<Raw>().ok());
        let text = |content: &Value, field: &str| content.get(field).and_then(Value::as_str).map(str::to_owned);
        Ok(members
            .map(|raw| Member {
                user_id: raw.state_key,
                membership: text(&raw.content, "membership").unwrap_or_default(),
                display_name: text(&raw.content, "displayname"),
            })
            .filter(|member| matches!(member.membership.as_str(), "join" | "invite"))
            .collect())
    }
}
