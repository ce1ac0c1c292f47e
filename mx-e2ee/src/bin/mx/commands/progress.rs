//! How far something is that takes a while, shown while it is waited for.

use std::pin::pin;

use mx_e2ee::{Client, Progress, ProgressStep};

use crate::output::Output;

/// Wait for something, and show meanwhile how far it is. `what` is shown until there is a number.
pub(super) async fn shown<T>(client: &Client, output: Output, what: &'static str, work: impl Future<Output = T>) -> T {
    let bar = output.progress(what);
    let mut steps = client.orchestrator().progress();
    let mut work = pin!(work);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            Ok(()) = steps.changed() => {
                if let Some(step) = steps.borrow_and_update().as_ref() {
                    bar.set_message(in_words(step));
                }
            }
        }
    };
    bar.finish_and_clear();
    done
}

fn in_words(progress: &Progress) -> String {
    let what = match progress.step {
        ProgressStep::Devices => "asking for the devices of users",
        ProgressStep::Sessions => "opening sessions with devices",
        ProgressStep::Keys => "giving the room key to devices",
        ProgressStep::Backup => "putting room keys into the backup",
        ProgressStep::Restore => "taking room keys out of the backup",
        _ => "at work",
    };
    format!("{what}: {} of {}", progress.done, progress.total)
}
