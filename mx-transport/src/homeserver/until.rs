//! The end of a call: what is done before, beside and after its request has to fit in too.

use std::{future::Future, time::Duration};

use http::Extensions;
use tokio::time::{Instant, timeout_at};

use super::Call;
use crate::{Deadline, Phase, RequestError, TransportError, TransportErrorKind as Kind};

/// When a call has to be done. By default: whenever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Until(Option<Instant>);

impl Until {
    pub(super) fn of(call: Call) -> Self {
        call.deadline.map_or_else(Self::default, Self::in_at_most)
    }

    pub(crate) fn in_at_most(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }

    /// This, or that much from now, whichever comes first.
    pub(super) fn and_at_most(self, time: Duration) -> Self {
        Self::in_at_most(self.left().map_or(time, |left| left.min(time)))
    }

    /// The first half of what is left.
    pub(super) fn half(self) -> Self {
        self.left().map_or(self, |left| Self::in_at_most(left / 2))
    }

    pub(super) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Wait for our turn.
    pub(super) async fn wait<T>(self, turn: impl Future<Output = T> + Send) -> Result<T, RequestError> {
        let Some(end) = self.0 else { return Ok(turn.await) };
        let too_late = |_| TransportError::new(Kind::Timeout(Phase::Queue));
        Ok(timeout_at(end, turn).await.map_err(too_late)?)
    }

    /// Tell the transport what is left.
    pub(super) fn tell(self, extensions: &mut Extensions) {
        if let Some(left) = self.left() {
            extensions.insert(Deadline(left));
        }
    }
}
