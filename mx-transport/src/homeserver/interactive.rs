//! Requests that the homeserver answers with questions: sent, and led to their end.

use bytes::Bytes;
use http::StatusCode;
use ruma::api::{
    OutgoingRequest,
    client::uiaa::{AuthData, AuthType, UiaaInfo, UiaaResponse},
};

use super::{
    Authenticate, Call, Homeserver, PathInput, accepted, caught, decode, endpoint, in_this_way, renew::Renewals,
    until::Until,
};
use crate::{Answers, Asked, Challenge, Endpoint, InteractiveError, Refusal, RequestError, interactive::MAX_ROUNDS};

impl Homeserver {
    /// Send a request that the homeserver may answer with questions, once. It holds the answer to the questions before, if
    /// there were any.
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn ask<R>(&self, request: R) -> Result<Asked<R::IncomingResponse>, RequestError>
    where
        R: OutgoingRequest<EndpointError = UiaaResponse> + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        let versions = self.versions().await?;
        let endpoint = endpoint::<R>(&versions)?;
        if R::Authentication::REQUIRED {
            self.renew_early(Until::default()).await;
        }
        let mut http = in_this_way(self.head(request, &versions)?, Call::default());
        http.extensions_mut().insert(Endpoint(endpoint));
        let mut renewals = Renewals::default();
        loop {
            let answer = caught(self.0.transport.send(http.clone())).await?;
            let questions = questions(&answer);
            let answer = match (accepted(Ok(answer), endpoint), questions) {
                // A token that is not valid any more is no question.
                (Err(RequestError::Api { .. }), Some(questions)) => {
                    return Ok(Asked::Challenged(Box::new(Challenge::new(questions, self.base_url()))));
                }
                (answer, _) => answer,
            };
            if let Some(answer) = self.judge(answer, &mut http, &mut renewals, Until::default()).await? {
                return Ok(Asked::Done(decode::<R>(answer, endpoint)?));
            }
        }
    }

    /// Send a request that the homeserver may answer with questions, and have them answered until it is done. `request`
    /// makes it, with an answer or without one.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), mx_transport::InteractiveError> {
    /// use mx_transport::Unattended;
    /// use ruma::api::client::{device::delete_device::v3::Request, uiaa::{MatrixUserIdentifier, UserIdentifier}};
    ///
    /// let me = UserIdentifier::Matrix(MatrixUserIdentifier::new("bot".to_owned()));
    /// let delete = |auth| {
    ///     let mut request = Request::new("OLDDEVICE".into());
    ///     request.auth = auth;
    ///     request
    /// };
    /// homeserver.authenticate(delete, &Unattended::new().password(me, "hunter2")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InteractiveError`]. Nothing was done then, unless the answer to the last request was lost.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn authenticate<R>(
        &self,
        request: impl Fn(Option<AuthData>) -> R + Send,
        answers: &dyn Answers,
    ) -> Result<R::IncomingResponse, InteractiveError>
    where
        R: OutgoingRequest<EndpointError = UiaaResponse> + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        let mut before: Option<(AuthType, Challenge)> = None;
        let mut answer: Option<AuthData> = None;
        for _ in 0..=MAX_ROUNDS {
            let asked = match self.ask(request(answer)).await {
                Err(error) => return Err(after_an_answer(error, before.map(|(stage, _)| stage))),
                Ok(Asked::Done(done)) => return Ok(done),
                Ok(Asked::Challenged(asked)) => asked.following(before.as_ref()),
            };
            let given = answers.answer(&asked).await?;
            // An acknowledgement of what was done in a browser does not say which stage it was.
            let stage = given
                .auth_type()
                .or_else(|| asked.next_stages().first().copied().cloned());
            before = stage.map(|stage| (stage, asked));
            answer = Some(given);
        }
        Err(InteractiveError::TooManyRounds)
    }
}

/// Some homeservers refuse an answer without asking again.
fn after_an_answer(error: RequestError, stage: Option<AuthType>) -> InteractiveError {
    match (error, stage) {
        (
            RequestError::Api {
                errcode: Some(errcode),
                message,
                ..
            },
            Some(stage),
        ) if errcode == "M_FORBIDDEN" => InteractiveError::refused(Refusal {
            stage,
            errcode,
            message,
        }),
        (error, _) => error.into(),
    }
}

/// The questions in an answer, if there are any.
fn questions(answer: &http::Response<Bytes>) -> Option<UiaaInfo> {
    if answer.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    serde_json::from_slice(answer.body()).ok()
}

#[cfg(test)]
mod tests;
