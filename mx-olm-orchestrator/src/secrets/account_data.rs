//! The user's account data on the homeserver, one event type at a time.

use mx_transport::{Call, RequestError};
use ruma::{
    api::client::config::{get_global_account_data, set_global_account_data},
    events::AnyGlobalAccountDataEventContent,
    serde::Raw,
};
use serde::{Serialize, de::DeserializeOwned};

use super::SecretStorageError;
use crate::{Error, Orchestrator, Result};

impl Orchestrator {
    /// What is kept under this type. `None`: nothing, or an empty object, which is how things are deleted there.
    pub(crate) async fn account_data<T: DeserializeOwned>(&self, event_type: &str) -> Result<Option<T>> {
        let request = get_global_account_data::v3::Request::new(self.user_id().to_owned(), event_type.into());
        let raw = match self.homeserver().send(request).await {
            Ok(answer) => answer.account_data,
            Err(RequestError::Api { status, .. }) if status.as_u16() == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if raw.json().get().trim() == "{}" {
            return Ok(None);
        }
        let content = serde_json::from_str(raw.json().get()).map_err(|_| SecretStorageError::Rejected {
            reason: "a part of it is malformed",
        })?;
        Ok(Some(content))
    }

    /// Keep this under this type. The same again changes nothing, so that it may be repeated.
    pub(crate) async fn put_account_data(&self, event_type: &str, content: &(impl Serialize + Sync)) -> Result<()> {
        let content = serde_json::value::to_raw_value(content).map_err(|error| Error::engine(&error))?;
        let content: Raw<AnyGlobalAccountDataEventContent> = Raw::from_json(content);
        let user = self.user_id().to_owned();
        let request = set_global_account_data::v3::Request::new_raw(user, event_type.into(), content);
        self.homeserver().send_with(request, Call::repeatable()).await?;
        Ok(())
    }
}
