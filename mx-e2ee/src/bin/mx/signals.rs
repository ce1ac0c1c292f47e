//! How a command is ended: SIGINT and SIGTERM let it finish for a few seconds, a second one does not.

use std::{future::Future, pin::pin, time::Duration};

use anyhow::Result;

use crate::output::Output;

/// How long a command may still take. A service manager waits longer before it kills.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A signal came before the command was done.
#[derive(Debug, thiserror::Error)]
#[error(
    "ended by a signal: what was under way is done or not begun; a message that was encrypted already is sent by the next \
     command of this profile, and a device that was on its way goes on with the same command"
)]
pub(crate) struct Ended;

/// Run a command. When it is asked to end, it may finish within the grace; what it holds is dropped then, and what is
/// under way on the disk is as after a kill: done, or not begun.
pub(crate) async fn finishing<T>(output: &Output, command: impl Future<Output = Result<T>>) -> Result<T> {
    let mut command = pin!(command);
    let mut signals = None;
    // The command first: until it waits for something, as for a password or a pipe, signals do what they always do.
    tokio::select! {
        biased;
        done = &mut command => return done,
        () = async { signals.insert(Signals::new()).next().await } => {}
    }
    output.note("ending when this is done, or in five seconds; once more to end at once");
    let again = async {
        match &mut signals {
            Some(signals) => signals.next().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = &mut command => done,
        () = again => Err(Ended.into()),
        () = tokio::time::sleep(GRACE) => Err(Ended.into()),
    }
}

/// The first signal that asks this process to end.
pub(crate) async fn asked_to_end() {
    Signals::new().next().await;
}

/// What asks a process to end, from the terminal and from the service manager: each of them once, however close they come.
#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if came {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    const fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
