//! Whoever sits at the terminal, when the homeserver asks who is there.

use std::{
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use indicatif::ProgressBar;
use mx_e2ee::{
    ruma::{
        OwnedUserId,
        api::client::uiaa::{AuthData, AuthType, MatrixUserIdentifier, UserIdentifier},
    },
    transport::{Answers, Challenge, InteractiveError, Unattended},
};

use super::secret::prompt;
use crate::output::{Output, clean};

/// A password may be mistyped so many times.
const ATTEMPTS: usize = 3;

/// A person: types the password, and does in a browser what only a browser can.
#[derive(Debug)]
pub(super) struct Person {
    user: OwnedUserId,
    output: Output,
    progress: ProgressBar,
    refused: AtomicUsize,
}

impl Person {
    /// `None`: there is no terminal, and so nobody.
    pub(super) fn at_the_terminal(user: OwnedUserId, output: Output, progress: &ProgressBar) -> Option<Self> {
        io::stdin().is_terminal().then(|| Self {
            user,
            output,
            progress: progress.clone(),
            refused: AtomicUsize::new(0),
        })
    }

    fn tell(&self, line: &str) {
        self.progress.suspend(|| self.output.note(line));
    }

    async fn password(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError> {
        let question = format!("password of {}: ", self.user);
        let password = prompt(question, self.progress.clone())
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::Interrupted => InteractiveError::GivenUp {
                    why: "it was interrupted".to_owned(),
                },
                _ => InteractiveError::unanswerable(challenge),
            })?;
        let user = MatrixUserIdentifier::new(self.user.to_string());
        Ok(challenge.password(UserIdentifier::Matrix(user), &password))
    }

    async fn browser(&self, challenge: &Challenge, stage: &AuthType) -> Result<AuthData, InteractiveError> {
        let unanswerable = || InteractiveError::unanswerable(challenge);
        let page = challenge.page(stage).ok_or_else(unanswerable)?;
        self.tell(&clean(&format!(
            "the homeserver wants this to be done in a browser: {page}"
        )));
        self.tell("press Enter when it is done");
        let waited = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await;
        match waited {
            Ok(Ok(read)) if read > 0 => challenge.done_elsewhere(stage).ok_or_else(unanswerable),
            _ => Err(unanswerable()),
        }
    }
}

#[async_trait]
impl Answers for Person {
    async fn answer(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError> {
        if let Some(refusal) = challenge.refusal() {
            if self.refused.fetch_add(1, Ordering::Relaxed) + 1 >= ATTEMPTS {
                return Err(InteractiveError::refused(refusal));
            }
            self.tell("that was not accepted");
        }
        let next = challenge.next_stages();
        if next.contains(&&AuthType::Dummy) {
            return Unattended::new().answer(challenge).await;
        }
        if next.contains(&&AuthType::Password) {
            return self.password(challenge).await;
        }
        match next.first() {
            Some(stage) => self.browser(challenge, stage).await,
            None => Err(InteractiveError::unanswerable(challenge)),
        }
    }
}
