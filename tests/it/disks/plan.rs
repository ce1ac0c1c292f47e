//! What happens to a process, and at which of its operations.

use std::sync::{Arc, Mutex};

use mx_crypto_store::backend::BackendErrorKind as Kind;
use tokio::sync::Notify;

use super::lock;

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
        loop {
            let notified = self.1.notified();
            if lock(&self.0).dead {
                return;
            }
            notified.await;
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
            Trouble::Kill => {
                planned.dead = true;
                self.1.notify_waiters();
            }
            Trouble::Fail(kind) => planned.failing = Some(kind),
            Trouble::Panic | Trouble::Hang | Trouble::Lie => {}
        }
        Turn::Stops(point.trouble)
    }
}
