//! Where an answer comes from, and what it goes on from: the one interface of both kinds of sync.

use std::time::Duration;

use matrix_sdk_crypto::store::CryptoStore;
use mx_transport::{Call, RequestError};
use ruma::{api::client::sync::sync_events, presence::PresenceState};

use super::{
    Scope,
    backlog::Backlog,
    filters::{self, Messages},
    sliding::Positions,
};
use crate::{Error, Orchestrator, Result, sync_response::SyncResponse};

/// How long an exchange may take beyond the time that the homeserver was asked to wait.
pub(super) const SYNC_GRACE: Duration = Duration::from_secs(30);

/// What a device asks to learn what is new.
///
/// ```
/// use mx_olm_orchestrator::{Options, SyncSource};
///
/// let mut options = Options::default();
/// assert_eq!(options.sync_source, SyncSource::Sync, "what every homeserver has");
/// options.sync_source = SyncSource::SlidingWhereOffered;
/// # drop(options);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncSource {
    /// `/sync`, which every homeserver has.
    #[default]
    Sync,
    /// Simplified sliding sync (MSC4186) where the homeserver offers it, and else `/sync`. The homeserver remembers what it
    /// has given, so that its answers are smaller in an account of many rooms. A store may go from one to the other at any
    /// restart: nothing is lost or told twice. A send asks for messages, too, which wait in the inbox: a program that only
    /// sends is better off with `/sync`.
    SlidingWhereOffered,
}

/// An answer that was read, and what it is.
pub(super) struct Asked {
    pub(super) sync: SyncResponse,
    pub(super) scope: Scope,
    /// The token of `/sync` that it goes on from, where it does.
    pub(super) since: Option<String>,
    /// A token of `/sync` before which nothing is new.
    pub(super) floor: Option<String>,
    /// The device has synced never before.
    pub(super) first_sync: bool,
    /// There is nothing in it that was not in the one before.
    pub(super) nothing_new: bool,
}

impl Orchestrator {
    pub(super) async fn ask_for_news(&self, timeout: Duration, messages: Messages) -> Result<Asked> {
        if self.slides().await? {
            match self.ask_sliding(timeout).await {
                Err(Error::Request(error)) if is_not_offered(&error) => {
                    tracing::warn!("the homeserver does not know sliding sync any more: it is asked the other way");
                }
                asked => return asked,
            }
        }
        self.ask_since(timeout, messages).await
    }

    /// What is new since the token of the store.
    async fn ask_since(&self, timeout: Duration, messages: Messages) -> Result<Asked> {
        let (scope, since) = self.where_to_go_on(messages).await?;
        // Until now it slid: what that took since the token is known, and is left out of what is shown once more.
        let slid = Positions::committed(self.store()).await?.is_some();
        let first_sync = since.is_none() && !slid;
        let mut request = sync_events::v3::Request::new();
        let first_timeline = first_sync.then(|| self.options().first_timeline);
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
        let mut sync = SyncResponse::parse(answer.body())?;
        if slid {
            sync.joined.iter_mut().for_each(|(_, joined)| joined.initial = true);
            sync.left.iter_mut().for_each(|(_, left)| left.initial = true);
        }
        if slid && since.is_none() {
            // Not a word on what changed.
            sync.device_lists = None;
        }
        let nothing_new = sync.has_nothing() || since.as_ref() == Some(&sync.next_batch);
        Ok(Asked {
            sync,
            scope,
            first_sync,
            floor: since.clone(),
            since,
            nothing_new,
        })
    }

    async fn where_to_go_on(&self, messages: Messages) -> Result<(Scope, Option<String>)> {
        let token = self.store().next_batch_token().await?;
        if Positions::committed(self.store()).await?.is_some() {
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

/// There is no such endpoint (any more).
fn is_not_offered(error: &RequestError) -> bool {
    match error {
        RequestError::Api { status, errcode, .. } => {
            errcode.as_deref() == Some("M_UNRECOGNIZED") || matches!(status.as_u16(), 404 | 405)
        }
        _ => false,
    }
}
