//! What happens to a process, and at which of its operations.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use mx_crypto_store::backend::BackendErrorKind as Kind;
use tokio::sync::Notify;

use super::lock;
use crate::world::seed::Seed;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Scan,
    Commit,
    Request,
}

/// Before or after an operation was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The process is killed here.
    Kill,
    /// The disk says so, now and at every operation after it.
    Fail(Kind),
    /// The engine panics, once.
    Panic,
    /// The disk answers never, and others go on.
    Hang,
    /// From here on the disk only says that it syncs.
    Lie,
    /// It waits until the test says [`Plan::go_on`].
    Wait,
}

/// Which operations count. A request counts by its path.
pub(crate) type Counts = fn(Operation, &str) -> bool;

/// Where something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// Counting begins when an operation of this kind has ended.
    pub(crate) after: Option<Counts>,
    pub(crate) counts: Counts,
    /// The n-th operation that counts, from 1; 0: none of them.
    pub(crate) nth: u64,
    pub(crate) moment: Moment,
    pub(crate) trouble: Trouble,
}

impl Point {
    /// Nothing happens: what counts is counted.
    pub(crate) fn dry(counts: Counts) -> Self {
        Self {
            after: None,
            counts,
            nth: 0,
            moment: Moment::Before,
            trouble: Trouble::Hang,
        }
    }
}

#[derive(Debug, Default)]
struct Planned {
    point: Option<Point>,
    counted: u64,
    /// The operation that `after` names has ended.
    begun: bool,
    /// What counted and where it happened, for people.
    struck: Option<String>,
    dead: bool,
    failing: Option<Kind>,
    /// What waits may go on.
    goes_on: bool,
    /// How long each operation takes.
    pace: Option<Seed>,
}

/// What happens in one process. Cheap to clone; the disk and the line of a process share one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan(Arc<Mutex<Planned>>, Arc<Notify>);

/// What becomes of an operation.
pub(super) enum Turn {
    GoesOn,
    Stops(Trouble),
}

impl Plan {
    /// From now on, count and strike.
    pub(crate) fn arm(&self, point: Point) {
        let mut planned = lock(&self.0);
        planned.counted = 0;
        planned.begun = point.after.is_none();
        planned.point = Some(point);
    }

    /// How many operations counted since the plan was armed.
    pub(crate) fn counted(&self) -> u64 {
        lock(&self.0).counted
    }

    /// Where it struck, in words.
    pub(crate) fn struck(&self) -> Option<String> {
        lock(&self.0).struck.clone()
    }

    /// Wait until the process is killed.
    pub(crate) async fn killed(&self) {
        self.until(|planned| planned.dead).await;
    }

    /// Run `work` until something has happened, and drop it there. `Some`: it ended before.
    pub(crate) async fn until_struck<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.until(|planned| planned.struck.is_some()) => None,
            done = work => Some(done),
        }
    }

    /// Let go on what waits.
    pub(crate) fn go_on(&self) {
        lock(&self.0).goes_on = true;
        self.1.notify_waiters();
    }

    /// Until the test says so.
    pub(super) async fn waits(&self) {
        self.until(|planned| planned.goes_on).await;
    }

    async fn until(&self, is_so: fn(&Planned) -> bool) {
        loop {
            let mut notified = pin!(self.1.notified());
            notified.as_mut().enable();
            if is_so(&lock(&self.0)) {
                return;
            }
            notified.await;
        }
    }

    /// From now on each operation takes a few milliseconds, as this seed has it: with paused time, another order of
    /// everything that runs beside each other.
    pub(crate) fn stagger(&self, seed: Seed) {
        lock(&self.0).pace = Some(seed);
    }

    /// The time that an operation takes. One request takes that of many operations of a disk.
    pub(super) async fn pause(&self, operation: Operation) {
        let pause = lock(&self.0).pace.as_mut().map(|seed| seed.below(8));
        let ms = if operation == Operation::Request { 20 } else { 1 };
        match pause {
            // Half of them take none, so that one may overtake many.
            Some(times @ 4..) => tokio::time::sleep(Duration::from_millis(times * ms)).await,
            Some(_) => tokio::task::yield_now().await,
            None => {}
        }
    }

    /// Run `work` until its end or until the process is killed. `None`: it was killed.
    pub(crate) async fn until_killed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.killed() => None,
            done = work => Some(done),
        }
    }

    /// This operation is at `moment`.
    pub(super) fn turn(&self, operation: Operation, path: &str, moment: Moment) -> Turn {
        let mut planned = lock(&self.0);
        if planned.dead {
            return Turn::Stops(Trouble::Kill);
        }
        if let Some(kind) = planned.failing.filter(|_| operation != Operation::Request) {
            return Turn::Stops(Trouble::Fail(kind));
        }
        let Some(point) = planned.point else {
            return Turn::GoesOn;
        };
        if !planned.begun {
            let begins = |after: Counts| moment == Moment::After && after(operation, path);
            planned.begun = point.after.is_some_and(begins);
            return Turn::GoesOn;
        }
        if !(point.counts)(operation, path) {
            return Turn::GoesOn;
        }
        if moment == Moment::Before {
            planned.counted += 1;
        }
        if planned.counted != point.nth || point.moment != moment || planned.struck.is_some() {
            return Turn::GoesOn;
        }
        planned.struck = Some(format!(
            "{:?} {moment:?} {operation:?} {path} no. {}",
            point.trouble, point.nth
        ));
        match point.trouble {
            Trouble::Kill => planned.dead = true,
            Trouble::Fail(kind) => planned.failing = Some(kind),
            Trouble::Panic | Trouble::Hang | Trouble::Lie | Trouble::Wait => {}
        }
        self.1.notify_waiters();
        Turn::Stops(point.trouble)
    }
}
