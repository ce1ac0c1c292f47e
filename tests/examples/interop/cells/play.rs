//! Playing cells, and what a run of them has to show.

use std::{future::Future, pin::Pin, time::Instant};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;

use super::{CELLS, Cell, NOT_APPLICABLE};
use crate::{inexcusable::Inexcusable, peer::Kind, plan::Plan, stage::Stage};

/// Cells with a homeserver of their own, which one peer at a time may have; all of them play beside the rest.
const ALONE: [&str; 2] = ["10a", "13"];
/// Of all others: they wait for their peers most of the time.
const AT_ONCE: usize = 4;

/// How many cells of a run may fail once with somebody else's implementation, and pass when they are played again: a peer
/// has races of its own. Each is shown with what failed first. What we do with ourselves has to pass at once.
const SECOND_CHANCES: usize = 4;

/// How a cell went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Well, or the peer cannot do it.
    Well,
    SecondTry,
    Failed,
}

/// Play every cell that the filter names.
pub(crate) async fn run(plan: &Plan, filter: &str) -> Result<()> {
    let started = Instant::now();
    let (js, nio) = (plan.driver("js")?, plan.driver("nio")?);
    println!(
        "synapse {}, matrix-js-sdk {}, matrix-nio {}, mx-e2ee {}",
        plan.synapse()?,
        js.version,
        nio.version,
        env!("CARGO_PKG_VERSION")
    );
    let stage = Stage::new(plan).await?;
    let wanted: Vec<_> = CELLS
        .iter()
        .filter(|cell| filter.split(',').any(|part| named(cell, part)))
        .flat_map(|cell| cell.peers.iter().map(move |kind| (cell, *kind)))
        .collect();
    ensure!(!wanted.is_empty(), "no cell has {filter:?} in its name");
    let played = play_all(&stage, wanted).await;
    stage.only_ciphertext(&stage.server).context("after all cells")?;
    let count = |wanted: Outcome| played.iter().filter(|outcome| **outcome == wanted).count();
    let (all, failed, again) = (played.len(), count(Outcome::Failed), count(Outcome::SecondTry));
    println!("the homeserver holds no word of {all} cells");
    println!(
        "{all} cells in {:.0} s, {again} of them at the second try",
        started.elapsed().as_secs_f32()
    );
    ensure!(failed == 0, "{failed} of {all} cells failed");
    ensure!(
        again <= SECOND_CHANCES,
        "{again} of {all} cells passed at the second try only: that is not chance"
    );
    Ok(())
}

/// Play these, and print them in their order.
async fn play_all(stage: &Stage<'_>, cells: Vec<(&Cell, Kind)>) -> Vec<Outcome> {
    let all = cells.len();
    let (turns, alone) = (Semaphore::new(AT_ONCE), ALONE.map(|number| (number, Semaphore::new(1))));
    let playing = cells.into_iter().map(|(cell, kind)| {
        let own = alone.iter().find(|(number, _)| *number == cell.number);
        let turn = own.map_or(&turns, |(_, turn)| turn);
        Box::pin(async move {
            let _turn = turn.acquire().await;
            play(stage, cell, kind).await
        }) as Pin<Box<dyn Future<Output = (String, Outcome)> + Send + '_>>
    });
    let mut played = stream::iter(playing).buffered(all);
    let mut outcomes = Vec::with_capacity(all);
    while let Some((line, outcome)) = played.next().await {
        println!("{line}");
        outcomes.push(outcome);
    }
    outcomes
}

/// Whether a filter means a cell: by its number, by the number without its letter, or by words.
fn named(cell: &Cell, filter: &str) -> bool {
    let number = cell.number.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let words = !filter.starts_with(|first: char| first.is_ascii_digit()) && cell.what.contains(filter);
    cell.number == filter || number == filter || words
}

async fn play(stage: &Stage<'_>, cell: &Cell, kind: Kind) -> (String, Outcome) {
    let version = match kind {
        Kind::Ours => env!("CARGO_PKG_VERSION").to_owned(),
        Kind::Nio => stage
            .plan
            .driver("nio")
            .map_or_else(|_| String::new(), |driver| driver.version),
        Kind::Js => stage
            .plan
            .driver("js")
            .map_or_else(|_| String::new(), |driver| driver.version),
    };
    let head = format!(
        "{:<3} {:<46} {:<21}",
        cell.number,
        cell.what,
        format!("{kind} {version}")
    );
    let unable = NOT_APPLICABLE
        .iter()
        .find(|(number, peer, _)| *number == cell.number && *peer == kind);
    if let Some((_, _, why)) = unable {
        return (format!("{head} n/a     {why}"), Outcome::Well);
    }
    let started = Instant::now();
    let mut outcome = (cell.run)(stage, kind).await;
    let mut before = String::new();
    if let Err(error) = &outcome
        && kind != Kind::Ours
        && !error.is::<Inexcusable>()
    {
        before = format!("; at the second try, after: {error:#}");
        outcome = (cell.run)(stage, kind).await;
    }
    let seconds = started.elapsed().as_secs_f32();
    match outcome {
        Ok(seen) => {
            let went = if before.is_empty() {
                Outcome::Well
            } else {
                Outcome::SecondTry
            };
            (format!("{head} ok      {seconds:>5.1} s  {seen}{before}"), went)
        }
        Err(error) => (
            format!("{head} FAILED  {seconds:>5.1} s  {error:#}{before}"),
            Outcome::Failed,
        ),
    }
}
