//! Messages through the whole of a device against the engine on matrix-sdk-sqlite and against vodozemac alone.
//!
//! # What each column does
//! *ours* is a device as an app has it, on SQLite: recipients, outbox, inbox, replay guard, each `Ok` on the disk. Its
//! homeserver is in the process and answers at once. *matrix-sdk-sqlite* is the bare engine on its usual store, with a key:
//! it encrypts and decrypts, and nothing keeps what comes out. *floor* is the same cryptography by vodozemac, with the JSON
//! around it and no storage.
//!
//! # Why batches
//! What is measured changes what it is measured on (sessions, inboxes), so that a batch is of a fixed size, and the variants
//! take turns batch by batch. What counts is the median over the rounds, of the time and of its ratio to ours in the same
//! round.

mod crowd;
mod decrypts;
mod intakes;
mod line;
mod ours;
mod sends;
mod shares;
mod stack;

use std::{env, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::runtime::Runtime;

use self::{crowd::Crowd, decrypts::Decrypts, intakes::Intakes, sends::Sends, shares::Shares};
use crate::{
    host,
    table::{Table, duration, median},
};

/// Measure messages.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer rounds and no rooms of thousands: to look whether something changed, not to write it down.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Only the column of this name, as for a profiler; there are no ratios without ours.
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Floor,
    Ours,
    Stack,
}

impl Column {
    const ALL: [Self; 3] = [Self::Ours, Self::Floor, Self::Stack];

    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::Stack => "matrix-sdk-sqlite",
        }
    }
}

/// A case that is ready to be measured on one column.
#[async_trait]
pub(crate) trait Batch {
    /// Does all of a batch, and returns how long that took without what had to be prepared.
    async fn run(&mut self) -> anyhow::Result<Duration>;
}

/// One line of the table.
struct Case {
    name: String,
    /// How many messages, keys or devices a batch has: what the time is divided by.
    items: u32,
    /// Not for a quick look.
    slow: bool,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Send(Sends),
    Share(Shares),
    Decrypt(Decrypts),
    Intake(Intakes),
}

impl Kind {
    /// The case on one column.
    async fn prepare(self, crowd: &Arc<Crowd>, column: Column) -> anyhow::Result<Box<dyn Batch>> {
        match self {
            Self::Send(sends) => sends.prepare(crowd, column).await,
            Self::Share(shares) => shares.prepare(crowd, column),
            Self::Decrypt(decrypts) => decrypts.prepare(column).await,
            Self::Intake(intakes) => intakes.prepare(column).await,
        }
    }
}

fn sends() -> Vec<Case> {
    let send = |name: &str, rooms: usize, devices: usize, at_once: usize| Case {
        name: name.to_owned(),
        items: 400,
        slow: devices > 1_000,
        kind: Kind::Send(Sends {
            messages: 400,
            rooms,
            devices,
            at_once,
        }),
    };
    let share = |devices: usize| Case {
        name: format!("a new key to {devices} devices, a device"),
        items: u32::try_from(devices).unwrap_or(u32::MAX),
        slow: devices > 1_000,
        kind: Kind::Share(Shares { devices }),
    };
    vec![
        send("send, one room, one at a time", 1, 10, 1),
        send("send, one room, 8 at once", 1, 10, 8),
        send("send, one room, 32 at once", 1, 10, 32),
        send("send, 100 rooms, 8 at once", 100, 10, 8),
        send("send, 100 rooms, 32 at once", 100, 10, 32),
        send("later send into 1000 devices, one at a time", 1, 1_000, 1),
        send("later send into 1000 devices, 8 at once", 1, 1_000, 8),
        send("later send into 5000 devices, 8 at once", 1, 5_000, 8),
        share(10),
        share(100),
        share(1_000),
        share(5_000),
    ]
}

fn receives() -> Vec<Case> {
    let decrypt = |name: &str, sessions: usize| Case {
        name: name.to_owned(),
        items: 2_000,
        slow: false,
        kind: Kind::Decrypt(Decrypts {
            events: 2_000,
            sessions,
        }),
    };
    let intake = |keys: usize| Case {
        name: format!("a sync with {keys} room keys of new Olm sessions, a key"),
        items: u32::try_from(keys).unwrap_or(u32::MAX),
        slow: keys > 100,
        kind: Kind::Intake(Intakes { keys }),
    };
    vec![
        decrypt("decrypt, one session", 1),
        decrypt("decrypt, 1000 sessions", 1_000),
        intake(1),
        intake(100),
        intake(1_000),
    ]
}

/// Sending.
pub(crate) fn send(options: &Options) -> anyhow::Result<()> {
    run(options, sends())
}

/// Receiving.
pub(crate) fn receive(options: &Options) -> anyhow::Result<()> {
    run(options, receives())
}

fn run(options: &Options, cases: Vec<Case>) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let wanted = |case: &Case| case.name.contains(&options.filter) && !(options.quick && case.slow);
    let cases: Vec<Case> = cases.into_iter().filter(wanted).collect();
    let largest = cases.iter().map(|case| match case.kind {
        Kind::Send(sends) => sends.devices,
        Kind::Share(shares) => shares.devices,
        Kind::Decrypt(_) | Kind::Intake(_) => 0,
    });
    let crowd = Arc::new(Crowd::new(largest.max().unwrap_or(0))?);
    let rounds = if options.quick { 3 } else { 7 };
    let mut table = Table::new(
        ["case"]
            .into_iter()
            .chain(Column::ALL.iter().map(|column| column.name())),
    );
    for case in &cases {
        eprintln!("{}", case.name);
        table.row(runtime.block_on(measure(case, &crowd, rounds, options.column.as_deref()))?);
    }
    println!("\n{}\n", host::describe(&env::temp_dir()));
    println!("{table}");
    println!("Time for one (times as long as ours in the same round).");
    Ok(())
}

/// The cells of a case.
async fn measure(
    case: &Case,
    crowd: &Arc<Crowd>,
    rounds: usize,
    only: Option<&str>,
) -> anyhow::Result<Vec<String>> {
    let mut batches = Vec::new();
    for column in Column::ALL
        .into_iter()
        .filter(|column| only.is_none_or(|only| only == column.name()))
    {
        batches.push((column, case.kind.prepare(crowd, column).await?));
    }
    let mut taken: Vec<(Column, Vec<f64>)> = Column::ALL.iter().map(|column| (*column, Vec::new())).collect();
    // One more, which fills caches and is not counted.
    for round in 0..=rounds {
        for (column, batch) in &mut batches {
            let nanoseconds = batch.run().await?.as_secs_f64() * 1e9 / f64::from(case.items);
            if round > 0
                && let Some((_, taken)) = taken.iter_mut().find(|(other, _)| other == column)
            {
                taken.push(nanoseconds);
            }
        }
        batches.rotate_left(1);
    }
    let ours = taken.first().map(|(_, taken)| taken.clone()).unwrap_or_default();
    let cell = |(column, taken): &(Column, Vec<f64>)| {
        let ratios = taken.iter().zip(&ours).map(|(taken, ours)| taken / ours).collect();
        match (median(taken.clone()), median(ratios)) {
            (Some(time), Some(ratio)) if *column != Column::Ours => format!("{} ({ratio:.2})", duration(time)),
            (Some(time), _) => duration(time),
            _ => String::new(),
        }
    };
    Ok([case.name.clone()].into_iter().chain(taken.iter().map(cell)).collect())
}
