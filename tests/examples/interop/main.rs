//! Our facade and `mx` with matrix-nio and matrix-js-sdk on a real Synapse: what `cargo xtask interop` runs.
#![expect(clippy::print_stdout, reason = "a task talks to people and to its processes")]

mod cells;
mod inexcusable;
mod ours;
mod peer;
mod plan;
mod proxy;
mod server;
mod soak;
mod stage;

use std::path::Path;

use anyhow::{Result, bail};

use plan::Plan;

const USAGE: &str = "usage: interop PLAN.json matrix [FILTER] | soak MINUTES [SEED]   (start it as `cargo xtask`)";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--device"] => ours::serve().await,
        [plan, "matrix"] => cells::run(&Plan::read(Path::new(plan))?, "").await,
        [plan, "matrix", filter] => cells::run(&Plan::read(Path::new(plan))?, filter).await,
        [plan, "soak", minutes] => soak::run(&Plan::read(Path::new(plan))?, minutes, None).await,
        [plan, "soak", minutes, seed] => soak::run(&Plan::read(Path::new(plan))?, minutes, Some(seed)).await,
        _ => bail!("{USAGE}"),
    }
}
