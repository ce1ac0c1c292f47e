//! Whose devices changed, when a sync did not say it in a way that can be read.

use mx_transport::Call;
use ruma::api::client::{keys::get_key_changes, sync::sync_events::DeviceLists};

use crate::Orchestrator;

impl Orchestrator {
    /// Ask whose devices changed between two sync tokens. `None`: the homeserver does not say, so that anybody's may
    /// have.
    pub(crate) async fn device_changes(&self, from: &str, to: &str) -> Option<DeviceLists> {
        let request = get_key_changes::v3::Request::new(from.to_owned(), to.to_owned());
        match self.homeserver().send_with(request, Call::repeatable()).await {
            Ok(answer) => {
                let mut lists = DeviceLists::new();
                lists.changed = answer.changed;
                lists.left = answer.left;
                Some(lists)
            }
            Err(error) => {
                tracing::warn!(
                    code = error.code(),
                    "it is not known whose devices changed: all of them are asked for again"
                );
                None
            }
        }
    }
}
