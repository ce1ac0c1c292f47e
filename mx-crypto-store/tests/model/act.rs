//! What a caller does, with or without a fault, and what has to come of it.

use mx_crypto_store::{PickleStore, Result as Stored, StoreError, Unit};

use super::{
    check::{self, Checked},
    faulty::{Fault, Fired, How},
    home::Home,
    mutation::{Answer, Mutation},
    observe::observe,
    records::{Eyes, RecordStep},
    reference::{Reference, Step},
    world::{Action, Inside, World},
};

/// What came back.
enum Outcome {
    Returned(Stored<Answer>),
    /// The caller gave up waiting.
    GaveUp,
}

/// The call.
pub(crate) async fn step(store: &PickleStore, unit: Option<&Unit>, step: &Step) -> Stored<Answer> {
    match (step, unit) {
        (Step::Engine(mutation), _) => mutation.apply(store).await,
        (Step::Record(step), Some(unit)) => step.apply(unit).await,
        (Step::Record(step), None) => alone(store, *step).await,
    }
}

/// In a unit of its own. A failure inside must stop the commit.
async fn alone(store: &PickleStore, step: RecordStep) -> Stored<Answer> {
    let unit = store.begin().await?;
    let answer = step.apply(&unit).await;
    let committed = unit.commit().await;
    if answer.is_err() {
        assert!(
            matches!(committed, Err(StoreError::UnitFailed)),
            "a unit that failed commits"
        );
    }
    answer.and_then(|answer| committed.map(|()| answer))
}

impl<H: Home> World<H> {
    /// The action, and its effect on what should be.
    pub(crate) async fn act(&mut self, action: &Action, fault: Option<Fault>) -> Checked {
        let alone = self.inside.is_none() && matches!(action, Action::Step(_));
        if fault.is_some() || alone {
            self.settle().await?;
        }
        match action {
            Action::Submit => match self.inside.take() {
                Some(inside) => self.submit(inside),
                None => Ok(()),
            },
            Action::Begin if self.inside.is_none() => self.begin_unit().await,
            Action::Commit => match self.inside.take() {
                Some(inside) => self.commit(inside, fault).await,
                None => Ok(()),
            },
            Action::Abort => match self.inside.take() {
                Some(inside) => inside.unit.abort().await.map_err(|error| format!("abort: {error:?}")),
                None => Ok(()),
            },
            Action::Drop => {
                self.inside = None;
                Ok(())
            }
            Action::Step(step) if self.is_sensible(step) => self.step(step, fault).await,
            Action::Read => self.read(fault).await,
            Action::Begin | Action::Step(_) => Ok(()),
        }
    }

    /// A first account is not another one.
    fn is_sensible(&self, step: &Step) -> bool {
        let state = self.inside.as_ref().map_or(&self.disk, |inside| &inside.sees);
        *step != Step::Engine(Mutation::ForeignAccount) || state.may().account
    }

    async fn begin_unit(&mut self) -> Checked {
        let began = self.store()?.begin().await;
        if self.poisoned {
            return check::that(
                matches!(began, Err(StoreError::Poisoned)),
                "a poisoned store begins no unit",
            );
        }
        self.inside = Some(Inside {
            unit: began.map_err(|error| format!("begin: {error:?}"))?,
            sees: self.newest().go_on(),
            failed: false,
        });
        Ok(())
    }

    fn submit(&mut self, inside: Inside) -> Checked {
        let submitted = inside.unit.submit();
        if inside.failed {
            let refused = matches!(submitted, Err(StoreError::UnitFailed));
            return check::that(refused, "a unit that failed is not submitted");
        }
        let submitted = submitted.map_err(|error| format!("submit: {error:?}"))?;
        self.ahead.push((submitted, inside.sees));
        Ok(())
    }

    async fn commit(&mut self, inside: Inside, fault: Option<Fault>) -> Checked {
        let Inside { unit, sees, failed } = inside;
        let commits = self.plan.commits();
        self.plan.arm(fault);
        let outcome = tokio::select! {
            biased;
            committed = unit.commit() => Outcome::Returned(committed.map(|()| Answer::Done)),
            () = self.plan.hung.notified() => Outcome::GaveUp,
        };
        if let Some(fired) = self.plan.disarm() {
            return self.broken(fired, outcome, Some(sees)).await;
        }
        if failed {
            let refused = matches!(outcome, Outcome::Returned(Err(StoreError::UnitFailed)));
            check::that(refused, "a unit that failed does not commit")?;
            let quiet = !self.ahead.is_empty() || self.plan.commits() == commits;
            return check::that(quiet, "a unit that failed writes nothing");
        }
        let Outcome::Returned(Ok(_)) = outcome else {
            return Err(format!("a commit without a fault: {}", outcome.text()));
        };
        check::that(
            self.plan.commits() <= commits + 1 + self.ahead.len(),
            "a unit is one write",
        )?;
        // Whoever came before is there as well.
        self.settle().await?;
        self.disk = sees;
        Ok(())
    }

    async fn step(&mut self, step: &Step, fault: Option<Fault>) -> Checked {
        let commits = self.plan.commits();
        self.plan.arm(fault);
        let outcome = {
            let unit = self.inside.as_ref().map(|inside| &inside.unit);
            let store = self.store()?;
            tokio::select! {
                biased;
                answer = self::step(store, unit, step) => Outcome::Returned(answer),
                () = self.plan.hung.notified() => Outcome::GaveUp,
            }
        };
        let commits = self.plan.commits() - commits;
        let refused = *step == Step::Engine(Mutation::ForeignAccount);
        if let Some(fired) = self.plan.disarm() {
            let intended = match &self.inside {
                None if !refused && fired.write => {
                    let mut after = self.disk.fork();
                    after.apply(step).await;
                    Some(after)
                }
                _ => None,
            };
            return self.broken(fired, outcome, intended).await;
        }
        match &mut self.inside {
            Some(inside) => {
                let quiet = commits == 0 || !self.ahead.is_empty();
                check::that(quiet, "a unit writes nothing before its commit")?;
                if refused || inside.failed {
                    inside.failed = true;
                    return check::that(!refused || outcome.is_refusal(), "another account is refused");
                }
                let expected = inside.sees.apply(step).await;
                outcome.must_be(expected)
            }
            None if refused => {
                let poisoned = self.poisoned && matches!(outcome, Outcome::Returned(Err(StoreError::Poisoned)));
                check::that(poisoned || outcome.is_refusal(), "another account is refused")
            }
            None => {
                check::that(commits <= 1, "a step is one write")?;
                if self.poisoned {
                    let mut after = self.disk.fork();
                    let expected = after.apply(step).await;
                    return self.poisoned_step(&mut after, expected, &outcome).await;
                }
                outcome.must_be(self.disk.apply(step).await)
            }
        }
    }

    /// Nothing is written: it is refused, unless there is nothing to be written.
    async fn poisoned_step(&mut self, after: &mut Reference, expected: Answer, outcome: &Outcome) -> Checked {
        match outcome {
            Outcome::Returned(Err(StoreError::Poisoned)) => Ok(()),
            Outcome::Returned(Ok(Answer::Lease(None))) => check::that(expected == Answer::Lease(None), "it is held"),
            Outcome::Returned(Ok(Answer::Done)) => {
                let same = self.disk.same(after).await;
                check::that(same, "a poisoned store does not say that it wrote")
            }
            other => Err(format!("a step in a poisoned store: {}", other.text())),
        }
    }

    async fn read(&mut self, fault: Option<Fault>) -> Checked {
        let may = match &self.inside {
            Some(inside) => inside.sees.may(),
            None => self.newest().may(),
        };
        self.plan.arm(fault);
        let outcome = {
            let store = self.store()?;
            let everything = async {
                if let Some(inside) = &self.inside {
                    Eyes::Unit(&inside.unit).records().await?;
                } else {
                    Eyes::Store(store).records().await?;
                }
                observe(store, may).await
            };
            tokio::select! {
                biased;
                seen = everything => Outcome::Returned(seen.map(|_| Answer::Done)),
                () = self.plan.hung.notified() => Outcome::GaveUp,
            }
        };
        match self.plan.disarm() {
            Some(fired) => self.broken(fired, outcome, None).await,
            // What was read is compared after each operation.
            None => Ok(()),
        }
    }

    /// Whoever gave up a write learns nothing of its end; the store does.
    async fn until_poisoned(&mut self) -> Checked {
        self.plan.released.notify_waiters();
        let store = self.store()?;
        for _ in 0..5_000 {
            if store.is_poisoned() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        Err("a failed write does not poison the store".to_owned())
    }

    /// A fault came. `intended`: what would be on the disk if all of the write were.
    async fn broken(&mut self, fired: Fired<H>, outcome: Outcome, intended: Option<Reference>) -> Checked {
        let took_effect = fired.write && fired.fault.after;
        if fired.write {
            let Some(intended) = intended else {
                return Err("something was written that nobody committed".to_owned());
            };
            if took_effect {
                self.before = Some(std::mem::replace(&mut self.disk, intended));
            }
            self.inside = None;
        }
        if let Some(left) = fired.left {
            return self.begin_anew(left).await;
        }
        let failed = matches!(outcome, Outcome::GaveUp | Outcome::Returned(Err(_)));
        check::that(failed, "what the backend fails in, fails")?;
        if fired.write || fired.by_writer {
            self.inside = None;
            self.poisoned = true;
            self.until_poisoned().await?;
        } else if fired.fault.how == How::Hangs {
            // Who gives up inside of a unit lets go of it.
            self.inside = None;
        } else if let Some(inside) = &mut self.inside {
            inside.failed = true;
        }
        Ok(())
    }
}

impl Outcome {
    fn text(&self) -> String {
        match self {
            Self::Returned(Ok(answer)) => format!("it answered {answer:?}"),
            Self::Returned(Err(error)) => format!("it failed: {error:?}"),
            Self::GaveUp => "it did not return".to_owned(),
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::Returned(Err(StoreError::AnotherAccount { .. })))
    }

    fn must_be(&self, expected: Answer) -> Checked {
        match self {
            Self::Returned(Ok(answer)) if *answer == expected => Ok(()),
            other => Err(format!("a step should answer {expected:?}: {}", other.text())),
        }
    }
}
