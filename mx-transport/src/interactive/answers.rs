//! Who answers: a trait, and one who has a password and nobody before it.

use std::fmt;

use async_trait::async_trait;
use ruma::api::client::uiaa::{AuthData, AuthType, Dummy, RegistrationToken, UserIdentifier};
use zeroize::Zeroizing;

use super::{Challenge, InteractiveError};

/// Who answers what a homeserver asks.
///
/// ```
/// use async_trait::async_trait;
/// use mx_transport::{Answers, Challenge, InteractiveError};
/// use ruma::api::client::uiaa::AuthData;
///
/// #[derive(Debug)]
/// struct InBrowser;
///
/// #[async_trait]
/// impl Answers for InBrowser {
///     async fn answer(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError> {
///         for stage in challenge.next_stages() {
///             if let (Some(page), Some(done)) = (challenge.page(stage), challenge.done_elsewhere(stage)) {
///                 println!("open {page}, and press return when it is done");
///                 return Ok(done);
///             }
///         }
///         Err(InteractiveError::unanswerable(challenge))
///     }
/// }
/// ```
///
/// # Contract
/// - An answer is to one of [`next_stages`](Challenge::next_stages).
/// - It may take as long as people take. Homeservers forget a dialogue after some minutes, and begin anew.
/// - Debug output holds no secret.
#[async_trait]
pub trait Answers: fmt::Debug + Send + Sync {
    /// Answer one stage.
    ///
    /// # Errors
    /// [`InteractiveError`], which ends the dialogue: [`InteractiveError::unanswerable`] where no stage can be answered,
    /// [`InteractiveError::refused`] where there is nothing better to say than what was refused.
    ///
    /// # Cancel safety
    /// That of the implementation. A dialogue that is dropped is forgotten by the homeserver.
    async fn answer(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError>;
}

/// Answers without anybody: by password, by a token for registrations, and what needs no answer. Each of them is given
/// once: what was refused ends the dialogue.
///
/// ```
/// use mx_transport::Unattended;
/// use ruma::api::client::uiaa::{MatrixUserIdentifier, UserIdentifier};
///
/// let me = UserIdentifier::Matrix(MatrixUserIdentifier::new("mybot".to_owned()));
/// let answers = Unattended::new().password(me, "hunter2").accept_terms();
/// assert!(!format!("{answers:?}").contains("hunter2"));
/// ```
#[derive(Clone, Default)]
pub struct Unattended {
    password: Option<(UserIdentifier, Zeroizing<String>)>,
    registration_token: Option<Zeroizing<String>>,
    accepts_terms: bool,
}

impl Unattended {
    /// One who can answer nothing but `m.login.dummy`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answer `m.login.password`.
    #[must_use]
    pub fn password(mut self, user: UserIdentifier, password: impl Into<String>) -> Self {
        self.password = Some((user, Zeroizing::new(password.into())));
        self
    }

    /// Answer `m.login.registration_token`.
    ///
    /// ```
    /// use mx_transport::Unattended;
    ///
    /// // The operator gave it to whoever may make an account; it is given once, and hidden in debug output.
    /// let answers = Unattended::new().registration_token("let-me-in").accept_terms();
    /// assert!(!format!("{answers:?}").contains("let-me-in"));
    /// ```
    #[must_use]
    pub fn registration_token(mut self, token: impl Into<String>) -> Self {
        self.registration_token = Some(Zeroizing::new(token.into()));
        self
    }

    /// Accept the terms of the homeserver, which somebody has read.
    #[must_use]
    pub const fn accept_terms(mut self) -> Self {
        self.accepts_terms = true;
        self
    }

    fn can_answer(&self, stage: &AuthType) -> bool {
        match stage {
            AuthType::Dummy => true,
            AuthType::Password => self.password.is_some(),
            AuthType::RegistrationToken => self.registration_token.is_some(),
            AuthType::Terms => self.accepts_terms,
            _ => false,
        }
    }

    fn answer_to(&self, stage: &AuthType, challenge: &Challenge) -> Option<AuthData> {
        let session = challenge.session().map(str::to_owned);
        match stage {
            AuthType::Dummy => {
                let mut dummy = Dummy::new();
                dummy.session = session;
                Some(AuthData::Dummy(dummy))
            }
            AuthType::Password => {
                let (user, password) = self.password.as_ref()?;
                Some(challenge.password(user.clone(), password))
            }
            AuthType::RegistrationToken => {
                let mut token = RegistrationToken::new(self.registration_token.as_ref()?.to_string());
                token.session = session;
                Some(AuthData::RegistrationToken(token))
            }
            AuthType::Terms if self.accepts_terms => challenge.answer(stage, serde_json::Map::new()),
            _ => None,
        }
    }
}

#[async_trait]
impl Answers for Unattended {
    async fn answer(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError> {
        if let Some(refusal) = challenge.refusal() {
            return Err(InteractiveError::refused(refusal));
        }
        let open = challenge.open_flows();
        // A flow of which every stage can be answered, so that none is begun in vain.
        let flow = open
            .iter()
            .find(|stages| stages.iter().all(|stage| self.can_answer(stage)));
        let stage = flow.and_then(|stages| stages.first());
        let answer = stage.and_then(|stage| self.answer_to(stage, challenge));
        answer.ok_or_else(|| InteractiveError::unanswerable(challenge))
    }
}

impl fmt::Debug for Unattended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unattended")
            .field("password", &self.password.as_ref().map(|_| "<hidden>"))
            .field(
                "registration_token",
                &self.registration_token.as_ref().map(|_| "<hidden>"),
            )
            .field("accepts_terms", &self.accepts_terms)
            .finish()
    }
}
