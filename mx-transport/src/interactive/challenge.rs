//! What the homeserver asks, and what each stage can be answered.

use std::fmt;

use ruma::api::client::uiaa::{AuthData, AuthFlow, AuthType, OAuth, OAuthParams, Password, UiaaInfo, UserIdentifier};
use serde::de::DeserializeOwned;
use url::Url;

use crate::homeserver::visible;

/// What became of a request that may be answered with questions.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
/// use mx_transport::Asked;
/// use ruma::api::client::device::delete_device::v3::Request;
///
/// match homeserver.ask(Request::new("OLDDEVICE".into())).await? {
///     Asked::Done(_) => println!("it is gone"),
///     Asked::Challenged(challenge) => println!("one of these is wanted first: {:?}", challenge.next_stages()),
///     _ => println!("something else is wanted"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Asked<T> {
    /// It was done.
    Done(T),
    /// The homeserver wants to know first who asks. Nothing was done.
    Challenged(Box<Challenge>),
}

/// An answer was refused.
///
/// ```
/// use mx_transport::{Challenge, Refusal};
///
/// /// What to tell a person whose answer was not taken.
/// fn why(challenge: &Challenge) -> Option<String> {
///     let Refusal { stage, errcode, message, .. } = challenge.refusal()?;
///     Some(match errcode.as_str() {
///         "" => format!("{stage} was not taken: the same is asked again"),
///         code => format!("{stage} was not taken ({code}): {message}"),
///     })
/// }
/// # let _ = why;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The stage that was answered.
    pub stage: AuthType,
    /// The Matrix error code. Empty: the homeserver gives none, and asks the same again.
    pub errcode: String,
    /// What the homeserver says: visible characters, never to be trusted.
    pub message: String,
}

/// What the homeserver asks. Its session, with which others could go on, is hidden in debug output.
///
/// ```
/// use mx_transport::Challenge;
///
/// fn show(challenge: &Challenge) {
///     if let Some(refusal) = challenge.refusal() {
///         println!("{} was refused: {}", refusal.stage, refusal.message);
///     }
///     for stage in challenge.next_stages() {
///         println!("{stage}, in a browser at {:?}", challenge.page(stage).map(|page| page.to_string()));
///     }
/// }
/// # let _ = show;
/// ```
#[derive(Clone)]
pub struct Challenge {
    info: UiaaInfo,
    base_url: String,
    /// The stage that the request with this answer was for.
    answered: Option<AuthType>,
}

impl Challenge {
    pub(crate) fn new(info: UiaaInfo, base_url: &str) -> Self {
        Self {
            info,
            base_url: base_url.to_owned(),
            answered: None,
        }
    }

    /// What was asked after `stage` was answered. A homeserver that names its session once means it in all that follows.
    pub(crate) fn following(mut self, before: Option<&(AuthType, Self)>) -> Self {
        if let Some((stage, before)) = before {
            self.answered = Some(stage.clone());
            self.info.session = self.info.session.or_else(|| before.info.session.clone());
        }
        self
    }

    /// The name of the dialogue, which every answer carries. `None`: the homeserver keeps none.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.info.session.as_deref()
    }

    /// Each of these lists of stages, done in its order, is enough.
    #[must_use]
    pub fn flows(&self) -> &[AuthFlow] {
        &self.info.flows
    }

    /// The stages that are done.
    #[must_use]
    pub fn completed(&self) -> &[AuthType] {
        &self.info.completed
    }

    /// What is left of each flow that can still be completed, the shortest first.
    ///
    /// ```
    /// use mx_transport::Challenge;
    ///
    /// fn progress(challenge: &Challenge) -> String {
    ///     match challenge.open_flows().first() {
    ///         // The shortest way to the end.
    ///         Some(left) => format!("{} done, {} to go", challenge.completed().len(), left.len()),
    ///         None => format!("none of {} ways is left", challenge.flows().len()),
    ///     }
    /// }
    /// # let _ = progress;
    /// ```
    #[must_use]
    pub fn open_flows(&self) -> Vec<&[AuthType]> {
        let done = |stage: &AuthType| self.info.completed.contains(stage);
        let mut open: Vec<&[AuthType]> = self
            .info
            .flows
            .iter()
            .filter_map(|flow| {
                let first = flow.stages.iter().position(|stage| !done(stage));
                flow.stages.get(first.unwrap_or(flow.stages.len())..)
            })
            .collect();
        open.sort_by_key(|stages| stages.len());
        open
    }

    /// The stages of which one is to be answered next: one of each open flow.
    #[must_use]
    pub fn next_stages(&self) -> Vec<&AuthType> {
        let mut next: Vec<&AuthType> = Vec::new();
        for stage in self.open_flows().into_iter().filter_map(<[AuthType]>::first) {
            if !next.contains(&stage) {
                next.push(stage);
            }
        }
        next
    }

    /// What the homeserver has to say about a stage, such as the terms that are to be accepted. `None`: nothing, or nothing
    /// of this form.
    ///
    /// ```
    /// use mx_transport::Challenge;
    /// use ruma::api::client::uiaa::AuthType;
    /// use serde_json::Value;
    ///
    /// /// The terms that a person has to accept: names and pages, in the form that the specification has.
    /// fn terms(challenge: &Challenge) -> Option<Value> {
    ///     challenge.params::<Value>(&AuthType::Terms)?.get("policies").cloned()
    /// }
    /// # let _ = terms;
    /// ```
    #[must_use]
    pub fn params<T: DeserializeOwned>(&self, stage: &AuthType) -> Option<T> {
        self.info
            .params::<serde_json::Value>(stage)
            .ok()
            .flatten()
            .and_then(|params| serde_json::from_value(params).ok())
    }

    /// Why the answer before this one was not taken. `None`: it was, or there was none.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let stage = self
            .answered
            .as_ref()
            .filter(|stage| !self.info.completed.contains(stage))?;
        let error = self.info.auth_error.as_ref();
        Some(Refusal {
            stage: stage.clone(),
            errcode: error
                .map(|error| visible(error.kind.errcode().as_str()))
                .unwrap_or_default(),
            message: error.map(|error| visible(&error.message)).unwrap_or_default(),
        })
    }

    /// Where a person does this stage in a browser: the page of the account management for `m.oauth`, else the homeserver's
    /// page for stages that a client does not know, such as single sign-on or a captcha. When it was done there,
    /// [`done_elsewhere`](Self::done_elsewhere) is the answer. `None`: there is no such page, or it is not of the web.
    #[must_use]
    pub fn page(&self, stage: &AuthType) -> Option<Url> {
        if *stage == AuthType::OAuth {
            let params: OAuthParams = self.params(stage)?;
            let url = Url::parse(&params.url).ok()?;
            return matches!(url.scheme(), "https" | "http").then_some(url);
        }
        let mut url = Url::parse(&self.base_url).ok()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend([
            "_matrix",
            "client",
            "v3",
            "auth",
            stage.as_str(),
            "fallback",
            "web",
        ]);
        url.query_pairs_mut().append_pair("session", self.session()?);
        Some(url)
    }

    /// The answer to a stage that was done on its [`page`](Self::page). `None`: without a session nobody knows where.
    ///
    /// ```
    /// use mx_transport::Challenge;
    /// use ruma::api::client::uiaa::{AuthData, AuthType};
    ///
    /// /// Whether a person can do it in a browser: the page, and what to answer when they come back.
    /// fn in_browser(challenge: &Challenge) -> Option<(String, AuthData)> {
    ///     let stage = AuthType::Sso;
    ///     Some((challenge.page(&stage)?.to_string(), challenge.done_elsewhere(&stage)?))
    /// }
    /// # let _ = in_browser;
    /// ```
    #[must_use]
    pub fn done_elsewhere(&self, stage: &AuthType) -> Option<AuthData> {
        if *stage == AuthType::OAuth {
            let mut done = OAuth::new();
            done.session = self.info.session.clone();
            return Some(AuthData::OAuth(done));
        }
        Some(AuthData::fallback_acknowledgement(self.info.session.clone()?))
    }

    /// The answer to `m.login.password`.
    #[must_use]
    pub fn password(&self, user: UserIdentifier, password: &str) -> AuthData {
        let mut answer = Password::new(user, password.to_owned());
        answer.session = self.info.session.clone();
        AuthData::Password(answer)
    }

    /// The answer to any stage, with what it wants beside its type and the session. `None`: it is not of the form that this
    /// stage has.
    #[must_use]
    pub fn answer(&self, stage: &AuthType, data: serde_json::Map<String, serde_json::Value>) -> Option<AuthData> {
        AuthData::new(stage.as_str(), self.info.session.clone(), data).ok()
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("flows", &self.info.flows)
            .field("completed", &self.info.completed)
            .field("refusal", &self.refusal())
            .finish_non_exhaustive()
    }
}
