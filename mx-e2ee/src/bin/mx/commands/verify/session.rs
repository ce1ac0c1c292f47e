//! One run of `mx verify`: who is asked what at each step, and how it ends.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use mx_e2ee::{
    Client, Verification, VerificationId, VerificationOutcome, VerificationPolicy, VerificationShown,
    VerificationState, qr_from_picture, qr_to_png, qr_to_text,
    ruma::{DeviceId, UserId},
    write_private_file,
};
use serde_json::json;

use super::{
    NotVerified,
    photo::{Found, Photo},
    show,
    steps::{Answer, Step, Steps},
};
use crate::{cli::verify::How, output::Output};

/// What the other side has asked when it let go of ours is here after this long.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// Something that a person is asked.
struct Question {
    of: VerificationId,
    yes: Step,
    no: Step,
}

/// Following verifications, from the one that was asked for or all that come, to their ends.
pub(super) struct Session<'a> {
    client: &'a Client,
    output: Output,
    how: &'a How,
    /// A person, or a program, says who is answered.
    is_asked: bool,
    steps: Steps,
    question: Option<Question>,
    /// Somebody asked, and nobody here can say whether to answer.
    is_left: bool,
    photo: Option<Photo>,
    /// What decides where nobody is asked.
    confirms: VerificationPolicy,
}

impl<'a> Session<'a> {
    /// `is_asked`: a person, or a program, says who is answered.
    pub(super) fn new(client: &'a Client, output: Output, how: &'a How, is_asked: bool) -> Self {
        Self {
            client,
            output,
            how,
            is_asked,
            steps: Steps::new(output),
            question: None,
            is_left: false,
            photo: how.scan.as_deref().map(Photo::new),
            confirms: VerificationPolicy::default(),
        }
    }

    /// Whoever asks to verify somebody who asks the same of us means yes. Where keys are expected, the policy answers.
    pub(super) async fn accept(&self, asked: &Verification, policy: &VerificationPolicy) {
        let waits = asked
            .shown()
            .is_some_and(|shown| !shown.by_us && shown.state == VerificationState::Requested);
        if waits
            && !policy.decides(&asked.id().user_id)
            && let Err(error) = asked.accept().await
        {
            self.output.note(&format!("mx: {error} [{}]", error.code()));
        }
    }

    pub(super) async fn follow(
        &mut self,
        policy: VerificationPolicy,
        one: Option<&VerificationId>,
        once: bool,
    ) -> Result<()> {
        self.confirms = policy.clone();
        let mut one = one.cloned();
        let mut news = std::pin::pin!(self.client.answer_verifications(policy));
        loop {
            tokio::select! {
                biased;
                shown = news.next() => {
                    let shown = match shown {
                        Some(Ok(shown)) => shown,
                        Some(Err(error)) => {
                            self.output.note(&format!("mx: {error} [{}]", error.code()));
                            continue;
                        }
                        None => return Err(NotVerified("nothing more is told".to_owned()).into()),
                    };
                    if one.as_ref().is_some_and(|one| *one != shown.id) {
                        continue;
                    }
                    show::show(&shown, self.output)?;
                    if let VerificationState::Ended(outcome) = &shown.state {
                        self.question = None;
                        self.photo.iter_mut().for_each(Photo::done);
                        if one.is_some()
                            && let Some(instead) = self.instead(&shown, outcome).await
                        {
                            one = Some(instead);
                            continue;
                        }
                        if once {
                            return ended(outcome);
                        }
                        continue;
                    }
                    let decided = self.confirms.decides(&shown.id.user_id);
                    if let Err(error) = self.go_on(&shown, decided).await {
                        self.output.note(&format!("mx: {error:#}"));
                    }
                }
                (of, found) = next_of(&mut self.photo) => {
                    if let Err(error) = self.look_at(of, found).await {
                        self.output.note(&format!("mx: {error:#}; waiting for another picture"));
                    }
                }
                answer = self.steps.next() => {
                    if let Err(error) = self.answered(answer).await {
                        self.output.note(&format!("mx: {error:#}"));
                    }
                }
            }
            if once && self.is_left {
                return Err(NotVerified("nobody was there to answer".to_owned()).into());
            }
        }
    }

    /// The other side has asked at the same time, and its request goes on: what we want, too.
    async fn instead(&self, ended: &VerificationShown, outcome: &VerificationOutcome) -> Option<VerificationId> {
        if !ended.by_us || !matches!(outcome, VerificationOutcome::Cancelled { code, .. } if code == "m.accepted") {
            return None;
        }
        let other = theirs(self.client, &ended.id.user_id, ended.device_id.as_deref()).await?;
        self.accept(&other, &self.confirms).await;
        Some(other.id().clone())
    }

    /// What the command line says about this state, or a question.
    async fn go_on(&mut self, shown: &VerificationShown, decided: bool) -> Result<()> {
        let verification = self.client.verification(shown.id.clone());
        match &shown.state {
            VerificationState::Requested if !shown.by_us && self.is_asked => {
                self.ask(shown, "answer it?", Step::Accept, Step::Cancel).await?;
            }
            VerificationState::Ready { they_scan: true, .. } if self.how.qr => self.show_code(&verification).await?,
            VerificationState::Ready { they_show: true, .. } if self.how.scan.is_some() => {
                if let Some(photo) = &mut self.photo {
                    photo.want(shown.id.clone());
                    self.output.note(&format!(
                        "let the other side show its code, and put a picture of it into {}",
                        photo.path().display()
                    ));
                }
            }
            VerificationState::Ready { sas: true, .. } if self.how.qr || self.how.scan.is_some() => {
                self.output.note("the other side cannot do that: emoji instead");
                verification.start().await?;
            }
            VerificationState::Compare { .. } | VerificationState::QrScanned
                if !decided && self.output.is_json() && self.steps.have_ended() =>
            {
                self.undecided().await?;
            }
            VerificationState::Compare { .. } if !decided => {
                let question = "do both sides show the same?";
                self.ask(shown, question, Step::Confirm, Step::Mismatch).await?;
            }
            VerificationState::QrScanned if !decided => {
                let question = "does the other side say that it has scanned this code?";
                self.ask(shown, question, Step::Confirm, Step::Cancel).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn ask(&mut self, shown: &VerificationShown, question: &str, yes: Step, no: Step) -> Result<()> {
        if self.output.is_json() {
            return Ok(());
        }
        self.output.note(&format!("{question} [yes/no]"));
        let of = shown.id.clone();
        self.question = Some(Question { of, yes, no });
        if self.steps.have_ended() {
            return self.unanswered().await;
        }
        Ok(())
    }

    async fn answered(&mut self, answer: Answer) -> Result<()> {
        match answer {
            Answer::Yes | Answer::No => {
                let Some(Question { of, yes, no }) = self.question.take() else {
                    return Ok(());
                };
                let step = if matches!(answer, Answer::Yes) { yes } else { no };
                self.take(&self.client.verification(of), step).await
            }
            Answer::Step(id, step) => {
                let live = self.client.verifications();
                let mut meant = live.iter().filter(|one| id.as_ref().is_none_or(|id| one.id() == id));
                match (meant.next(), meant.next()) {
                    (Some(one), None) => self.take(one, step).await,
                    (None, _) => anyhow::bail!("no such verification is under way"),
                    (Some(_), Some(_)) => anyhow::bail!("name the verification: several are under way"),
                }
            }
            Answer::Unclear(why) => anyhow::bail!(why),
            Answer::Ended => self.unanswered().await,
        }
    }

    /// Nobody answers what was asked, ever. One that nobody here takes part in may be for another device of ours.
    async fn unanswered(&mut self) -> Result<()> {
        if self.output.is_json() {
            return self.undecided().await;
        }
        match self.question.take() {
            None => Ok(()),
            Some(Question { yes: Step::Accept, .. }) => {
                self.output
                    .note("nobody is there to answer: it is left to another device");
                self.is_left = true;
                Ok(())
            }
            Some(Question { of, .. }) => {
                self.output.note("nobody is there to answer: it is cancelled");
                self.take(&self.client.verification(of), Step::Cancel).await
            }
        }
    }

    /// No program says any more whether both sides show the same.
    async fn undecided(&self) -> Result<()> {
        for verification in self.client.verifications() {
            let state = verification.state();
            let waits = matches!(
                state,
                Some(VerificationState::Compare { .. } | VerificationState::QrScanned)
            );
            if waits && !self.confirms.decides(&verification.id().user_id) {
                self.output.note("no program is there to answer: it is cancelled");
                verification.cancel().await?;
            }
        }
        Ok(())
    }

    async fn take(&self, verification: &Verification, step: Step) -> Result<()> {
        match step {
            Step::Accept => verification.accept().await?,
            Step::Start => verification.start().await?,
            Step::Confirm => verification.confirm().await?,
            Step::Mismatch => verification.mismatch().await?,
            Step::Cancel => verification.cancel().await?,
            Step::ShowQr => self.show_code(verification).await?,
            Step::Scan(path) => self.scan(verification, &path).await?,
        }
        Ok(())
    }

    async fn show_code(&self, verification: &Verification) -> Result<()> {
        let code = verification.show_qr().await?;
        let id = verification.id();
        let modules: Vec<String> = (0..code.width())
            .map(|y| {
                (0..code.width())
                    .map(|x| if code.is_dark(x, y) { '1' } else { '0' })
                    .collect()
            })
            .collect();
        let json = json!({"user_id": id.user_id, "flow_id": id.flow_id, "qr_modules": modules});
        self.output.show(&json, &qr_to_text(&code))?;
        if let Some(path) = &self.how.qr_png {
            // For its owner only: who has the code can answer in the other side's place.
            write_private_file(path, &qr_to_png(&code)?, false)?;
            self.output.note(&format!("the code is in {}", path.display()));
        }
        Ok(())
    }

    /// A picture has come: its code is scanned, and it is not waited for any more.
    async fn look_at(&mut self, of: VerificationId, found: Found) -> Result<()> {
        let picture = found.map_err(|why| anyhow::anyhow!("the picture cannot be read: {why}"))?;
        self.client.verification(of).scan(&qr_from_picture(&picture)?).await?;
        self.photo.iter_mut().for_each(Photo::done);
        Ok(())
    }

    async fn scan(&self, verification: &Verification, path: &Path) -> Result<()> {
        let picture = std::fs::read(path).with_context(|| format!("the picture {path:?} cannot be read"))?;
        verification.scan(&qr_from_picture(&picture)?).await?;
        Ok(())
    }
}

/// What the other side asks of us, which may be on its way here still.
pub(super) async fn theirs(client: &Client, user: &UserId, device: Option<&DeviceId>) -> Option<Verification> {
    let is_it = |shown: &VerificationShown| {
        let is_of_the_same = device.is_none() || shown.device_id.as_deref() == device;
        shown.id.user_id == *user && is_of_the_same && !shown.by_us && shown.state == VerificationState::Requested
    };
    let mut all = client.orchestrator().verifications();
    let found = all.wait_for(|all| all.values().any(is_it));
    let found = tokio::time::timeout(ON_ITS_WAY, found).await.ok()?.ok()?;
    let id = found.values().find(|shown| is_it(shown))?.id.clone();
    drop(found);
    Some(client.verification(id))
}

async fn next_of(photo: &mut Option<Photo>) -> (VerificationId, Found) {
    match photo {
        Some(photo) => photo.next().await,
        None => std::future::pending().await,
    }
}

fn ended(outcome: &VerificationOutcome) -> Result<()> {
    match outcome {
        VerificationOutcome::Done { .. } => Ok(()),
        VerificationOutcome::Cancelled { code, reason, .. } => Err(NotVerified(format!("{reason} ({code})")).into()),
        _ => Err(NotVerified("it ended".to_owned()).into()),
    }
}
