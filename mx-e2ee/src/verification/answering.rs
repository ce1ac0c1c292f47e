//! Answering by a policy, when nobody is there.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use mx_olm_orchestrator::{VerificationId, VerificationShown, VerificationState};
use tokio::sync::watch;

use super::{Decision, VerificationPolicy};
use crate::{Client, Result};

/// A decision that is made, or an answer that is given.
type Deed = BoxFuture<'static, Result<()>>;

struct Answering {
    client: Client,
    policy: Arc<VerificationPolicy>,
    receiver: watch::Receiver<BTreeMap<VerificationId, VerificationShown>>,
    seen: BTreeMap<VerificationId, VerificationState>,
    news: VecDeque<VerificationShown>,
    deeds: FuturesUnordered<Deed>,
}

impl Client {
    /// Answer verifications by a policy, for as long as the stream is polled. Its items are all verifications, ours and those
    /// of others, with every change: a program that decides itself finds there what to compare. A step that failed is an
    /// item too.
    ///
    /// It moves on while the client receives: poll it beside [`receive`](Self::receive) or [`events`](Self::events).
    ///
    /// ```no_run
    /// # use mx_e2ee::{Client, VerificationPolicy};
    /// # async fn example(client: Client, policy: VerificationPolicy) {
    /// use futures_util::StreamExt;
    ///
    /// let mut news = std::pin::pin!(client.answer_verifications(policy));
    /// let mut events = std::pin::pin!(client.events());
    /// loop {
    ///     tokio::select! {
    ///         Some(event) = events.next() => println!("{event:?}"),
    ///         Some(one) = news.next() => match one {
    ///             Ok(one) => println!("{}: {:?}", one.id, one.state),
    ///             Err(error) => println!("{error}"),
    ///         },
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Safe: what is dropped is decided by nobody, and ends by itself.
    pub fn answer_verifications(
        &self,
        policy: VerificationPolicy,
    ) -> impl Stream<Item = Result<VerificationShown>> + Send + use<> {
        let answering = Answering {
            client: self.clone(),
            policy: Arc::new(policy),
            receiver: self.orchestrator().verifications(),
            seen: BTreeMap::new(),
            news: VecDeque::new(),
            deeds: FuturesUnordered::new(),
        };
        stream::unfold(answering, |mut answering| async move {
            let item = answering.next().await?;
            Some((item, answering))
        })
    }
}

impl Answering {
    async fn next(&mut self) -> Option<Result<VerificationShown>> {
        self.look();
        loop {
            if let Some(news) = self.news.pop_front() {
                return Some(Ok(news));
            }
            tokio::select! {
                Some(done) = self.deeds.next(), if !self.deeds.is_empty() => {
                    if let Err(error) = done {
                        return Some(Err(error));
                    }
                }
                changed = self.receiver.changed() => changed.ok()?,
            }
            self.look();
        }
    }

    /// What has changed, and what is to be done about it.
    fn look(&mut self) {
        let now: Vec<VerificationShown> = self.receiver.borrow_and_update().values().cloned().collect();
        self.seen.retain(|id, _| now.iter().any(|shown| shown.id == *id));
        for shown in now {
            let before = self.seen.insert(shown.id.clone(), shown.state.clone());
            if before.as_ref() == Some(&shown.state) {
                continue;
            }
            if let Some(deed) = self.deed(&shown) {
                self.deeds.push(deed);
            }
            self.news.push_back(shown);
        }
    }

    fn deed(&self, shown: &VerificationShown) -> Option<Deed> {
        let verification = self.client.verification(shown.id.clone());
        let user = &shown.id.user_id;
        let is_welcome = self.policy.answers(user, self.client.user_id());
        match &shown.state {
            VerificationState::Requested if shown.by_us => None,
            VerificationState::Requested if is_welcome => Some(async move { verification.accept().await }.boxed()),
            VerificationState::Requested if self.policy.declines() => {
                Some(async move { verification.cancel().await }.boxed())
            }
            VerificationState::Ready { sas: true, .. } if shown.by_us && self.policy.starts() => {
                Some(async move { verification.start().await }.boxed())
            }
            VerificationState::Compare { .. } | VerificationState::QrScanned => {
                if let Some(expected) = self.policy.expected_of(user) {
                    let expected = expected.clone();
                    return Some(async move { verification.confirm_if(&expected).await }.boxed());
                }
                let decision = self.policy.decision(verification.clone(), shown.clone())?;
                Some(
                    async move {
                        match decision.await {
                            Decision::Match => verification.confirm().await,
                            Decision::Mismatch => verification.mismatch().await,
                            Decision::Nothing => Ok(()),
                        }
                    }
                    .boxed(),
                )
            }
            _ => None,
        }
    }
}
