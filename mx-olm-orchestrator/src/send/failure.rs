//! Telling those who wait in a lane how it ended, all of them where the reason is one for all.

use mx_transport::{RequestError, TransportError};

use super::{
    SendReceipt,
    lane::{Done, Lane},
};
use crate::{Error, Result};

/// What could not be encrypted is told so: all of it where the reason is one for all, which each would wait for again, else
/// the first. Returns the error when there is nobody to tell.
pub(super) fn fail(lane: &Lane, error: Error) -> Option<Error> {
    let mut failed = lane.fail_taken(for_another(&error).is_some()).into_iter();
    let first = failed.next();
    for done in failed {
        if let Some(error) = for_another(&error) {
            tell(done, Err(error));
        }
    }
    match first {
        Some(done) => {
            tell(done, Err(error));
            None
        }
        None => Some(error),
    }
}

/// The same error for another who waited, where it is no other's.
fn for_another(error: &Error) -> Option<Error> {
    Some(match error {
        Error::Request(source) => Error::Request(again(source)),
        Error::ClaimFailed { source } => Error::ClaimFailed { source: again(source) },
        Error::RecipientsUnknown { room, users, servers } => Error::RecipientsUnknown {
            room: room.clone(),
            users: users.clone(),
            servers: servers.clone(),
        },
        Error::MembersIncomplete { room, reason, source } => Error::MembersIncomplete {
            room: room.clone(),
            reason,
            source: source.as_ref().map(again),
        },
        Error::KeyShareIncomplete {
            room,
            delivered,
            outstanding,
            source,
        } => Error::KeyShareIncomplete {
            room: room.clone(),
            delivered: *delivered,
            outstanding: *outstanding,
            source: Box::new(again(source)),
        },
        _ => return None,
    })
}

/// Whoever does not wait any more does not want to know.
pub(super) fn tell(done: Done, ended: Result<SendReceipt>) {
    let _gone = done.send(ended);
}

/// The same error, for another who waited.
pub(super) fn again(error: &RequestError) -> RequestError {
    match error {
        RequestError::Transport(error) => error.without_source().into(),
        RequestError::Api {
            endpoint,
            status,
            errcode,
            message,
            retry_after,
        } => RequestError::Api {
            endpoint,
            status: *status,
            errcode: errcode.clone(),
            message: message.clone(),
            retry_after: *retry_after,
        },
        RequestError::LoggedOut { soft } => RequestError::LoggedOut { soft: *soft },
        RequestError::NoAccessToken => RequestError::NoAccessToken,
        RequestError::Decode { endpoint, .. } => RequestError::Decode {
            endpoint,
            source: "it is not what the endpoint answers".into(),
        },
        _ => TransportError::new(mx_transport::TransportErrorKind::Interrupted).into(),
    }
}
