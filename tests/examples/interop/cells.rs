//! The matrix: every cell with every peer that can, one line each.

mod contact;
mod content;
mod ending;
mod federation;
mod keys;
mod late;
mod outage;
mod restart;
mod rotation;
mod wedge;

use std::{future::Future, pin::Pin, time::Instant};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt};

use crate::{peer::Kind, plan::Plan, proxy::Weather, stage::Stage};

type Outcome<'s> = Pin<Box<dyn Future<Output = Result<String>> + Send + 's>>;

/// What happens between our device and a peer. It says in a few words what was seen.
struct Cell {
    number: &'static str,
    what: &'static str,
    peers: &'static [Kind],
    run: for<'s> fn(&'s Stage<'s>, Kind) -> Outcome<'s>,
}

const ALL: &[Kind] = &[Kind::Js, Kind::Nio, Kind::Ours];
const OTHERS: &[Kind] = &[Kind::Js, Kind::Nio];

/// What a peer cannot do in the version that is pinned, and why.
const NOT_APPLICABLE: [(&str, Kind, &str); 1] = [("4b", Kind::Nio, "it publishes no fallback key")];

/// What the issue asks for and nobody plays yet.
const OPEN: [(&str, &str, &str); 2] = [
    (
        "11",
        "key export files each way",
        "no cell plays it yet, though the facade can",
    ),
    (
        "12",
        "identity and trust",
        "no cell plays it yet, though the facade can",
    ),
];

/// Cells that stop a homeserver which others use, or start the same ones for each peer.
const ALONE: [&str; 2] = ["10a", "13"];
/// All others wait for their peers most of the time.
const AT_ONCE: usize = 2;

const CELLS: &[Cell] = &[
    Cell {
        number: "1a",
        what: "first contact in a room of ours and of theirs",
        peers: ALL,
        run: |stage, kind| Box::pin(contact::both_ways(stage, kind)),
    },
    Cell {
        number: "1b",
        what: "three engines in one room",
        peers: &[Kind::Js],
        run: |stage, _| Box::pin(contact::three(stage)),
    },
    Cell {
        number: "1c",
        what: "first contact with the binary mx",
        peers: ALL,
        run: |stage, kind| Box::pin(contact::binary(stage, kind)),
    },
    Cell {
        number: "2a",
        what: "both restart from their stores and go on",
        peers: ALL,
        run: |stage, kind| Box::pin(restart::from_stores(stage, kind)),
    },
    Cell {
        number: "2b",
        what: "SIGKILL of ours in a burst of 200 each way",
        peers: ALL,
        run: |stage, kind| Box::pin(restart::killed(stage, kind)),
    },
    Cell {
        number: "3a",
        what: "kick: who was removed cannot read",
        peers: ALL,
        run: |stage, kind| Box::pin(rotation::kicked(stage, kind)),
    },
    Cell {
        number: "3b",
        what: "leave and rejoin",
        peers: ALL,
        run: |stage, kind| Box::pin(rotation::left(stage, kind)),
    },
    Cell {
        number: "3c",
        what: "a new device reads from now on",
        peers: ALL,
        run: |stage, kind| Box::pin(rotation::new_device(stage, kind)),
    },
    Cell {
        number: "4a",
        what: "our one-time keys are exhausted",
        peers: ALL,
        run: |stage, kind| Box::pin(keys::of_ours(stage, kind)),
    },
    Cell {
        number: "4b",
        what: "their one-time keys are exhausted",
        peers: ALL,
        run: |stage, kind| Box::pin(keys::of_theirs(stage, kind)),
    },
    Cell {
        number: "5",
        what: "their store is set back",
        peers: OTHERS,
        run: |stage, kind| Box::pin(wedge::heals(stage, kind)),
    },
    Cell {
        number: "6a",
        what: "who joins late reads from then on",
        peers: ALL,
        run: |stage, kind| Box::pin(late::joiner(stage, kind)),
    },
    Cell {
        number: "6b",
        what: "a message overtakes its key",
        peers: ALL,
        run: |stage, kind| Box::pin(late::before_key(stage, kind)),
    },
    Cell {
        number: "6c",
        what: "said between the invitation and the join",
        peers: ALL,
        run: |stage, kind| Box::pin(late::before_join(stage, kind)),
    },
    Cell {
        number: "7a",
        what: "files of each kind",
        peers: ALL,
        run: |stage, kind| Box::pin(content::files(stage, kind)),
    },
    Cell {
        number: "7b",
        what: "replies, threads, edits, reactions, redactions",
        peers: ALL,
        run: |stage, kind| Box::pin(content::related(stage, kind)),
    },
    Cell {
        number: "8a",
        what: "our device is deleted",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(ending::deleted(stage, kind)),
    },
    Cell {
        number: "8b",
        what: "our token expires, and our login",
        peers: &[Kind::Ours],
        run: |stage, kind| Box::pin(ending::soft(stage, kind)),
    },
    Cell {
        number: "9",
        what: "Synapse's own rate limits",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(outage::limits(stage, kind)),
    },
    Cell {
        number: "10a",
        what: "the server restarts in the middle",
        peers: ALL,
        run: |stage, kind| Box::pin(outage::restarted(stage, kind)),
    },
    Cell {
        number: "10b",
        what: "a proxy answers 502 for a while",
        peers: ALL,
        run: |stage, kind| Box::pin(outage::weather(stage, kind, Weather::Status(502))),
    },
    Cell {
        number: "10c",
        what: "answers are lost for a while",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(outage::weather(stage, kind, Weather::CutAfter)),
    },
    Cell {
        number: "10d",
        what: "connections break for a while",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(outage::weather(stage, kind, Weather::CutBefore)),
    },
    Cell {
        number: "13",
        what: "two servers federate, one is stopped",
        peers: ALL,
        run: |stage, kind| Box::pin(federation::one_stopped(stage, kind)),
    },
];

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
    let wanted = CELLS
        .iter()
        .filter(|cell| filter.split(',').any(|part| named(cell, part)))
        .flat_map(|cell| cell.peers.iter().map(move |kind| (cell, *kind)));
    let (alone, beside): (Vec<_>, Vec<_>) = wanted.partition(|(cell, _)| ALONE.contains(&cell.number));
    let played = alone.len() + beside.len();
    ensure!(played > 0, "no cell has {filter:?} in its name");
    let mut well = play_all(&stage, beside, AT_ONCE).await;
    well += play_all(&stage, alone, 1).await;
    for (number, what, why) in OPEN {
        println!("{number:<3} {what:<46} {:<21} open    {why}", "");
    }
    stage.only_ciphertext(&stage.server).context("after all cells")?;
    println!("the homeserver holds no word of {played} cells");
    println!("{played} cells in {:.0} s", started.elapsed().as_secs_f32());
    ensure!(well == played, "{} of {played} cells failed", played - well);
    Ok(())
}

/// Play these, so many at a time, and print them in their order. Returns how many went well.
async fn play_all(stage: &Stage<'_>, cells: Vec<(&Cell, Kind)>, at_once: usize) -> usize {
    let playing = cells.into_iter().map(|(cell, kind)| {
        Box::pin(play(stage, cell, kind)) as Pin<Box<dyn Future<Output = (String, bool)> + Send + '_>>
    });
    let mut played = stream::iter(playing).buffered(at_once);
    let mut well = 0;
    while let Some((line, ok)) = played.next().await {
        println!("{line}");
        well += usize::from(ok);
    }
    well
}

/// Whether a filter means a cell: by its number, by the number without its letter, or by words.
fn named(cell: &Cell, filter: &str) -> bool {
    let number = cell.number.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let words = !filter.starts_with(|first: char| first.is_ascii_digit()) && cell.what.contains(filter);
    cell.number == filter || number == filter || words
}

async fn play(stage: &Stage<'_>, cell: &Cell, kind: Kind) -> (String, bool) {
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
        return (format!("{head} n/a     {why}"), true);
    }
    let started = Instant::now();
    let outcome = (cell.run)(stage, kind).await;
    let seconds = started.elapsed().as_secs_f32();
    let line = match &outcome {
        Ok(seen) => format!("{head} ok      {seconds:>5.1} s  {seen}"),
        Err(error) => format!("{head} FAILED  {seconds:>5.1} s  {error:#}"),
    };
    (line, outcome.is_ok())
}
