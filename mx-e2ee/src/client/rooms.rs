//! The rooms that we are in, make, and join.

use ruma::{
    OwnedRoomOrAliasId, OwnedUserId,
    api::client::{
        membership::{join_room_by_id_or_alias, joined_rooms},
        room::create_room,
    },
    events::{InitialStateEvent, room::encryption::RoomEncryptionEventContent},
};

use super::Client;
use crate::{Error, Result, Room};

impl Client {
    /// The rooms that we are in.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// for room in client.rooms().await? {
    ///     let name = room.name().await?.unwrap_or_default();
    ///     println!("{} {name}: encrypted {}", room.id(), room.is_encrypted().await?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn rooms(&self) -> Result<Vec<Room>> {
        let answer = self.homeserver().send(joined_rooms::v3::Request::new()).await?;
        Ok(answer
            .joined_rooms
            .into_iter()
            .map(|room| Room::new(self.clone(), room))
            .collect())
    }

    /// Make a private, encrypted room and invite people.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::owned_user_id;
    ///
    /// let room = client.create_room(Some("Alerts"), &[owned_user_id!("@oncall:example.org")]).await?;
    /// // Who is invited can read what is said before they join.
    /// let sent = room.send_text("this is where alerts come").await?;
    /// println!("{} devices can read it", sent.readable_by());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn create_room(&self, name: Option<&str>, invite: &[OwnedUserId]) -> Result<Room> {
        let encryption =
            InitialStateEvent::with_empty_state_key(RoomEncryptionEventContent::with_recommended_defaults());
        self.create(name, invite, vec![encryption.to_raw_any()]).await
    }

    /// Make a private room whose events are not encrypted. Marking it as encrypted later cannot be undone.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let room = client.create_plaintext_room(Some("Status page"), &[]).await?;
    /// // What encrypts refuses to speak here, so that nothing goes out in the clear by accident.
    /// let refused = room.send_text("all is well").await;
    /// assert!(refused.is_err_and(|error| error.code() == "room_not_encrypted"));
    /// let content = serde_json::json!({"msgtype": "m.notice", "body": "all is well"});
    /// room.send_plaintext("m.room.message", content).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn create_plaintext_room(&self, name: Option<&str>, invite: &[OwnedUserId]) -> Result<Room> {
        self.create(name, invite, Vec::new()).await
    }

    async fn create(
        &self,
        name: Option<&str>,
        invite: &[OwnedUserId],
        initial_state: Vec<ruma::serde::Raw<ruma::events::AnyInitialStateEvent>>,
    ) -> Result<Room> {
        let mut request = create_room::v3::Request::new();
        request.name = name.map(str::to_owned);
        request.invite = invite.to_vec();
        request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
        request.initial_state = initial_state;
        let answer = self.homeserver().send(request).await?;
        Ok(self.room(&answer.room_id))
    }

    /// Join a room by its id (`!…`) or alias (`#…`), as after an invitation.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Event;
    /// use std::time::Duration;
    ///
    /// for event in client.receive(Duration::from_secs(30)).await? {
    ///     if let Event::Invite(invite) = event
    ///         && !invite.joined
    ///         && invite.inviter.as_deref().is_some_and(|inviter| inviter == "@boss:example.org")
    ///     {
    ///         client.join(invite.room_id.as_str()).await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidId`]; of the request.
    pub async fn join(&self, room: &str) -> Result<Room> {
        let room = OwnedRoomOrAliasId::try_from(room).map_err(|_| Error::InvalidId {
            given: room.to_owned(),
            wanted: "a room id (!…) or an alias (#…:server)",
        })?;
        let answer = self
            .homeserver()
            .send(join_room_by_id_or_alias::v3::Request::new(room))
            .await?;
        Ok(self.room(&answer.room_id))
    }
}
