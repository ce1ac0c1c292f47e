//! Which room is for two people alone.

use ruma::{
    OwnedRoomId, UserId,
    api::client::{config::get_global_account_data, membership::joined_members, membership::joined_rooms},
    events::GlobalAccountDataEventType,
};
use serde_json::Value;

use mx_olm_orchestrator::VerificationError;

use crate::{Client, Error, Result};

/// More rooms are not looked at.
const MOST_ROOMS: usize = 50;

impl Client {
    /// The room that is for this user and us alone: the one that is marked as such, else any with two members.
    pub(super) async fn room_with(&self, user: &UserId) -> Result<OwnedRoomId> {
        let mut joined = self
            .homeserver()
            .send(joined_rooms::v3::Request::new())
            .await?
            .joined_rooms;
        let direct = self.direct_rooms(user).await?;
        joined.sort_by_key(|room| !direct.contains(room.as_str()));
        for room in joined.into_iter().take(MOST_ROOMS) {
            let members = self
                .homeserver()
                .send(joined_members::v3::Request::new(room.clone()))
                .await?
                .joined;
            if members.len() == 2 && members.contains_key(user) {
                return Ok(room);
            }
        }
        let no_way = VerificationError::NoWay { user: user.to_owned() };
        Err(mx_olm_orchestrator::Error::from(no_way).into())
    }

    /// The rooms that are marked as direct chats with this user, on any of our devices.
    async fn direct_rooms(&self, user: &UserId) -> Result<std::collections::BTreeSet<String>> {
        let request =
            get_global_account_data::v3::Request::new(self.user_id().to_owned(), GlobalAccountDataEventType::Direct);
        let answer = match self.homeserver().send(request).await.map_err(Error::from) {
            Ok(answer) => answer,
            // Nothing is marked.
            Err(error) if matches!(error.code(), "not_found" | "unsupported_by_homeserver") => {
                return Ok(Default::default());
            }
            Err(error) => return Err(error),
        };
        let marked: Value = serde_json::from_str(answer.account_data.json().get()).unwrap_or_default();
        let rooms = marked
            .get(user.as_str())
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        Ok(rooms.filter_map(Value::as_str).map(str::to_owned).collect())
    }
}
