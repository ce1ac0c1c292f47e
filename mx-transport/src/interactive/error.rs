//! What can go wrong in a dialogue, as the caller's next step.

use ruma::api::client::uiaa::AuthType;

use super::{Challenge, Refusal};
use crate::{RequestError, homeserver::visible};

/// A request that asks for authentication was not done.
///
/// ```no_run
/// # fn example(ended: Result<(), mx_transport::InteractiveError>) -> Result<(), mx_transport::InteractiveError> {
/// use mx_transport::InteractiveError;
///
/// match ended {
///     Err(InteractiveError::WrongPassword { refusal }) => println!("another password, please: {}", refusal.message),
///     Err(InteractiveError::Unanswerable { stages }) => println!("a person has to do one of {stages:?} in a browser"),
///     Err(InteractiveError::Request(error)) => println!("try again later [{}]", error.code()),
///     other => other?,
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InteractiveError {
    /// The request itself failed.
    #[error(transparent)]
    Request(#[from] RequestError),

    /// The password was refused.
    #[error("the homeserver does not accept this user name and password{}", told(refusal))]
    WrongPassword {
        /// What the homeserver says.
        refusal: Refusal,
    },

    /// The answer to another stage was refused.
    #[error("the homeserver does not accept the answer to {}{}", visible(refusal.stage.as_str()), told(refusal))]
    Refused {
        /// What the homeserver says.
        refusal: Refusal,
    },

    /// Nobody here can answer what the homeserver asks.
    #[error(
        "the homeserver wants to know more than can be answered here: do one of {} in a browser or bring what it needs",
        listed(stages)
    )]
    Unanswerable {
        /// The stages of which one would have to be answered.
        stages: Vec<AuthType>,
    },

    /// Whoever answers has given up.
    #[error("the authentication was not done: {why}")]
    GivenUp {
        /// Why.
        why: String,
    },

    /// The homeserver never had enough.
    #[error("the homeserver asked again and again: its authentication cannot be completed")]
    TooManyRounds,
}

impl InteractiveError {
    /// None of what this challenge asks can be answered.
    ///
    /// ```
    /// use mx_transport::{Challenge, InteractiveError};
    ///
    /// /// What whoever answers says in the end: what was refused, or what nobody here can do.
    /// fn give_up(challenge: &Challenge) -> InteractiveError {
    ///     match challenge.refusal() {
    ///         Some(refusal) => InteractiveError::refused(refusal),
    ///         None => InteractiveError::unanswerable(challenge),
    ///     }
    /// }
    /// # let _ = give_up;
    /// ```
    #[must_use]
    pub fn unanswerable(challenge: &Challenge) -> Self {
        Self::Unanswerable {
            stages: challenge.next_stages().into_iter().cloned().collect(),
        }
    }

    /// An answer was refused.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        if refusal.stage == AuthType::Password && refusal.errcode == "M_FORBIDDEN" {
            Self::WrongPassword { refusal }
        } else {
            Self::Refused { refusal }
        }
    }

    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
            Self::WrongPassword { .. } => "wrong_password",
            Self::Refused { .. } => "authentication_refused",
            Self::Unanswerable { .. } => "authentication_unanswerable",
            Self::GivenUp { .. } => "authentication_given_up",
            Self::TooManyRounds => "authentication_endless",
        }
    }
}

fn told(refusal: &Refusal) -> String {
    let message: String = refusal.message.chars().take(300).collect();
    match message.as_str() {
        "" => String::new(),
        message => format!(": it says {message:?}"),
    }
}

fn listed(stages: &[AuthType]) -> String {
    if stages.is_empty() {
        return "its stages, of which it names none,".to_owned();
    }
    let names: Vec<String> = stages.iter().map(|stage| visible(stage.as_str())).collect();
    names.join(", ")
}
