//! The storage engines against each other: what a commit costs, and what is left when the process or the power ends.
//!
//! # Why a power cut is played back from a trace
//! A killed process proves little: what it wrote is in the page cache, and the kernel writes it down later. So a writer
//! runs under `strace`, its writes, its barriers and what it acknowledged are played back in their order, and at a
//! random point only that is kept what a barrier had made durable. It needs no privileges and no other disk.

mod disk;
mod kill;
mod power;
mod speed;
mod trace;
mod writer;

use std::{env, fmt::Display};

use tokio::runtime::Runtime;

pub(crate) use self::writer::{Options as WriterOptions, run as write};
use crate::{engine::Engine, host, table::Table};

/// Measure the storage engines: commits, reads, killed processes and power cuts.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer commits and rounds.
    #[arg(long)]
    quick: bool,
    /// Only engines whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
}

/// How often everything is done.
#[derive(Clone, Copy, Debug)]
struct Effort {
    commits: usize,
    rounds: usize,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let effort = match options.quick {
        true => Effort {
            commits: 300,
            rounds: 4,
        },
        false => Effort {
            commits: 3_000,
            rounds: 20,
        },
    };
    let mut table = Table::new([
        "engine",
        "sync calls for 200 commits",
        "commit p50 / p99 µs",
        "64 grouped, batches a second",
        "read warm µs",
        "open after SIGKILL p50 ms",
        "lost in SIGKILL, of acknowledged",
        "lost in power cut, of acknowledged; not openable",
    ]);
    for engine in Engine::ALL
        .iter()
        .filter(|engine| engine.name().contains(&options.filter))
    {
        eprintln!("measuring {}", engine.name());
        table.row(runtime.block_on(row(*engine, effort))?);
    }
    println!("\n{}\n\n{table}", host::describe(&env::temp_dir()));
    Ok(())
}

async fn row(engine: Engine, effort: Effort) -> anyhow::Result<Vec<String>> {
    let speed = speed::measure(engine, effort.commits).await?;
    let mut cells = vec![engine.name().to_owned()];
    let commit = format!("{:.0} / {:.0}", speed.commit_p50_us, speed.commit_p99_us);
    let (grouped, read) = (
        format!("{:.0}", speed.grouped_a_second),
        format!("{:.1}", speed.read_p50_us),
    );
    if !engine.has_files() {
        let nothing = || "nothing is kept".to_owned();
        cells.extend(["0".to_owned(), commit, grouped, read, nothing(), nothing(), nothing()]);
        return Ok(cells);
    }
    let killed = kill::measure(engine, effort.rounds).await?;
    let cut = power::measure(engine, effort.rounds).await?;
    let or_not = |value: Option<&dyn Display>| value.map_or_else(|| "not counted".to_owned(), ToString::to_string);
    cells.push(or_not(cut.as_ref().map(|cut| &cut.sync_calls as _)));
    cells.extend([commit, grouped, read]);
    cells.push(format!("{:.1}", killed.open_p50_ms));
    cells.push(format!("{} of {}", killed.lost, killed.acknowledged));
    cells.push(or_not(cut.as_ref().map(|cut| cut as _)));
    Ok(cells)
}
