//! Where an answer comes from, and what it goes on from: the one interface of both kinds of sync.

use std::time::Duration;

use matrix_sdk_crypto::store::CryptoStore;
use mx_transport::Call;
use ruma::{api::client::sync::sync_events, presence::PresenceState};

use super::{
    Scope,
    backlog::Backlog,
    filters::{self, Messages},
    sliding::Positions,
};
use crate::{Orchestrator, Result, sync_response::SyncResponse};

/// How long an exchange may take beyond the time that the homeserver was asked to wait.
pub(super) const SYNC_GRACE: Duration = Duration::from_secs(30);

/// What a device asks to learn what is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncSource {
    /// `/sync`, which every homeserver has.
    #[default]
    Sync,
    /// Simplified sliding sync (MSC4186) where the homeserver offers it, and else `/sync`. The homeserver remembers what it
    /// has given, so that its answers are smaller in an account of many rooms. A store may go from one to the other at any
    /// restart: nothing is lost or told twice.
    SlidingWhereOffered,
}

/// An answer that was read, and what it is.
pub(super) struct Asked {
    pub(super) sync: SyncResponse,
    pub(super) scope: Scope,
    /// The token of `/sync` that it goes on from, where it does.
    pub(super) since: Option<String>,
    /// The device has synced never before.
    pub(super) first_sync: bool,
    /// There is nothing in it that was not in the one before.
    pub(super) nothing_new: bool,
}

impl Orchestrator {
    pub(super) async fn ask_for_news(&self, timeout: Duration, messages: Messages) -> Result<Asked> {
        if self.slides().await? {
            self.ask_sliding(timeout).await
        } else {
            self.ask_since(timeout, messages).await
        }
    }

    /// What is new since the token of the store.
    async fn ask_since(&self, timeout: Duration, messages: Messages) -> Result<Asked> {
        let (scope, since) = self.where_to_go_on(messages).await?;
        let mut request = sync_events::v3::Request::new();
        let first_timeline = since.is_none().then(|| self.options().first_timeline);
        let mut filter = filters::of_sync(scope.messages(), first_timeline);
        if let (Scope::Again { .. }, Some(token)) = (&scope, self.store().next_batch_token().await?) {
            filters::reword(&mut filter, &token);
        }
        request.filter = Some(sync_events::v3::Filter::FilterDefinition(filter));
        request.since.clone_from(&since);
        request.timeout = Some(timeout);
        request.set_presence = PresenceState::Offline;
        let call = Call::repeatable().within(timeout.saturating_add(SYNC_GRACE));
        let answer = self.homeserver().exchange(request, call).await;
        let answer = self.noticing_its_end(answer).await?;
        let sync = SyncResponse::parse(answer.body())?;
        let nothing_new = sync.has_nothing() || since.as_ref() == Some(&sync.next_batch);
        Ok(Asked {
            sync,
            scope,
            first_sync: since.is_none(),
            since,
            nothing_new,
        })
    }

    async fn where_to_go_on(&self, messages: Messages) -> Result<(Scope, Option<String>)> {
        let token = self.store().next_batch_token().await?;
        if Positions::committed(self.store()).await?.is_some() {
            // Until now it slid: what that took since the token is known.
            let taken = Backlog::default();
            return Ok((Scope::Again { taken }, token));
        }
        Ok(match (messages, token) {
            // Rooms are known from the first sync on.
            (_, None) => (Scope::Everything, None),
            (Messages::Left, Some(token)) => (Scope::WithoutMessages { since: token.clone() }, Some(token)),
            (Messages::Wanted, Some(token)) => match Backlog::committed(self.store()).await? {
                Some(taken) => {
                    let from = taken.from.clone();
                    (Scope::Again { taken }, Some(from))
                }
                None => (Scope::Everything, Some(token)),
            },
        })
    }
}
