//! Finding a room by what people call it.

use futures_util::{StreamExt, TryStreamExt, stream};
use ruma::{OwnedRoomAliasId, OwnedRoomId, api::client::alias::get_alias};

use crate::{Client, Error, Result};

/// So many rooms are asked for their name at once.
const AT_ONCE: usize = 8;

impl Client {
    /// The id of a room that we are in, or know: from its id (`!…`), its alias (`#…:server`), or its name.
    ///
    /// A name is looked for in the rooms that we are in, with one request a room, and has to be theirs to the letter.
    /// Anybody with permission can name a room anything: for what must not go astray, take the id.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Error;
    ///
    /// match client.resolve("Operations").await {
    ///     Ok(id) => drop(client.room(&id).send_text("all is well").await?),
    ///     Err(Error::RoomNameAmbiguous { rooms, .. }) => println!("which one of {rooms:?}?"),
    ///     Err(Error::NoSuchRoom { .. }) => drop(client.join("#operations:example.org").await?),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidId`], [`Error::NoSuchRoom`], [`Error::RoomNameAmbiguous`]; of the request.
    pub async fn resolve(&self, room: &str) -> Result<OwnedRoomId> {
        let invalid = || Error::InvalidId {
            given: room.to_owned(),
            wanted: "a room id (!…), an alias (#…:server), or the name of a room that we are in",
        };
        if room.starts_with('#') {
            let alias = OwnedRoomAliasId::try_from(room).map_err(|_| invalid())?;
            let answer = self.homeserver().send(get_alias::v3::Request::new(alias)).await?;
            return Ok(answer.room_id);
        }
        if room.starts_with('!') {
            return OwnedRoomId::try_from(room).map_err(|_| invalid());
        }
        // Ids of something else are nobody's name for a room.
        if room.is_empty() || room.starts_with(['@', '$']) {
            return Err(invalid());
        }
        let mut found = self.named(room).await?;
        found.sort();
        match found.as_slice() {
            [] => Err(Error::NoSuchRoom { name: room.to_owned() }),
            [one] => Ok(one.clone()),
            _ => Err(Error::RoomNameAmbiguous {
                name: room.to_owned(),
                rooms: found,
            }),
        }
    }

    async fn named(&self, name: &str) -> Result<Vec<OwnedRoomId>> {
        let rooms = self.rooms().await?;
        let asked = rooms.into_iter().map(|room| async move {
            let is_it = room.name().await?.as_deref() == Some(name);
            Ok::<_, Error>(is_it.then(|| room.id().to_owned()))
        });
        stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }
}
