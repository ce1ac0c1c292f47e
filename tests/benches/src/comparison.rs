//! The store on each engine against matrix-sdk-sqlite, as ratios within one run.

mod cases;
mod inputs;
mod opening;
mod reads;
mod replays;
mod rounds;
mod sends;
mod size;
mod syncs;
pub(crate) mod variant;

use std::{env, time::Duration};

use tokio::runtime::Runtime;

use self::{
    cases::{Case, Inputs},
    rounds::{Effort, Figure},
    variant::Variant,
};
use crate::{
    host,
    table::{Table, duration},
};

/// Compare the store on each engine with matrix-sdk-sqlite.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer rounds and smaller stores: to look whether something changed, not to write it down.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Only the variant of this name, as for a profiler; there are no ratios without the base.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
}

impl Options {
    const fn effort(&self) -> Effort {
        let (rounds, warm_up_ms, measurement_ms) = if self.quick { (1, 20, 100) } else { (5, 50, 200) };
        Effort {
            rounds,
            warm_up: Duration::from_millis(warm_up_ms),
            measurement: Duration::from_millis(measurement_ms),
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    // The connections of matrix-sdk-sqlite end on a thread of the runtime.
    let _entered = runtime.enter();
    let wanted = |case: &Case| case.name.contains(&options.filter) && !(options.quick && case.slow);
    let cases: Vec<_> = Case::all().into_iter().filter(wanted).collect();
    let inputs = Inputs::new(&cases)?;
    let columns: Vec<_> = [Variant::Floor]
        .into_iter()
        .chain(Variant::stores())
        .chain([Variant::MatrixSqliteKey])
        .collect();
    let mut table = Table::new(["case"].into_iter().chain(columns.iter().map(|variant| variant.name())));
    for case in &cases {
        let subjects = runtime.block_on(case.prepare(&inputs, options.variant.as_deref()))?;
        let figures = rounds::measure(&runtime, case.name, subjects, options.effort())?;
        table.row(row(case.name, &columns, &figures));
    }
    println!("\n{}\n", host::describe(&env::temp_dir()));
    println!("{table}");
    println!(
        "Time (times as long as the store on {} in the same round).",
        Variant::BASE.name()
    );
    if "file size".contains(&options.filter) {
        println!(
            "\n{}",
            runtime.block_on(sizes(if options.quick { 2_000 } else { 20_000 }))?
        );
    }
    Ok(())
}

fn row(case: &str, columns: &[Variant], figures: &[(Variant, Figure)]) -> Vec<String> {
    let cell = |column: &Variant| {
        let found = figures.iter().find(|(variant, _)| variant == column);
        found.map_or_else(String::new, |(_, figure)| match figure.ratio {
            Some(ratio) if *column != Variant::BASE => format!("{} ({ratio:.2})", duration(figure.nanoseconds)),
            _ => duration(figure.nanoseconds),
        })
    };
    [case.to_owned()].into_iter().chain(columns.iter().map(cell)).collect()
}

async fn sizes(overwrites: usize) -> anyhow::Result<Table> {
    let what = format!("KiB after {overwrites} overwrites of 100 rows of 1 KiB");
    let mut table = Table::new([what.as_str(), "open", "closed"]);
    for variant in Variant::stores() {
        if variant.has_files() {
            let (open, closed) = size::after_overwrites(variant, overwrites).await?;
            table.row([
                variant.name().to_owned(),
                (open / 1024).to_string(),
                (closed / 1024).to_string(),
            ]);
        }
    }
    Ok(table)
}
