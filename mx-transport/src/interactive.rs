//! User-interactive authentication: a request that the homeserver answers with questions, as a typed dialogue.
//!
//! From the client-server API, "User-Interactive Authentication API". A homeserver answers such a request with 401 and
//! one or more flows of stages; the same request is sent again with the answer to one stage, until a flow is complete.
//! [`Homeserver::ask`](crate::Homeserver::ask) sends it once and says what came back;
//! [`Homeserver::authenticate`](crate::Homeserver::authenticate) leads the dialogue to its end, with somebody who
//! [`Answers`]: [`Unattended`], which has a password, or whatever an app writes for the people before it.
//!
//! # Why nothing loops
//! A dialogue has at most [`MAX_ROUNDS`] rounds, whatever the homeserver asks. An answer that was refused is shown to
//! whoever gave it, and [`Unattended`] never gives it again: homeservers lock accounts.

mod answers;
mod challenge;
mod error;

pub use self::{
    answers::{Answers, Unattended},
    challenge::{Asked, Challenge, Refusal},
    error::InteractiveError,
};

/// A dialogue is given up after this many answers: more than any flow has stages, with a few mistakes of people.
pub(crate) const MAX_ROUNDS: usize = 12;
