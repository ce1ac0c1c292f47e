//! A process that commits, and says each commit's number once it was acknowledged. It is there to be killed.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use mx_crypto_store::backend::{Backend, Batch, MemoryDisk};
use tokio::runtime::Runtime;

use crate::engine::Engine;

/// The values of a batch have this length.
pub(super) const VALUE_BYTES: usize = 1024;
const ROWS_A_COMMIT: u64 = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    engine: Engine,
    #[arg(long)]
    directory: PathBuf,
    /// Stop after so many commits; otherwise somebody kills us.
    #[arg(long, default_value_t = u64::MAX)]
    commits: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    Runtime::new()?.block_on(async {
        let backend = options.engine.open(&options.directory, &MemoryDisk::new()).await?;
        for number in 0..options.commits {
            backend.commit(batch(number)).await?;
            let mut out = io::stdout().lock();
            writeln!(out, "{number}")?;
            out.flush()?;
        }
        // As a process that is killed: nothing is put in order at the end.
        std::process::exit(0)
    })
}

/// Three rows of 1 KB that nobody wrote before.
pub(super) fn batch(number: u64) -> Batch {
    (0..ROWS_A_COMMIT).fold(Batch::new(), |batch, row| batch.put(name(number, row), value(number)))
}

/// Rows come in no order, as those of the store do.
pub(super) fn name(number: u64, row: u64) -> Vec<u8> {
    let scattered = (number * ROWS_A_COMMIT + row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    scattered.to_be_bytes().to_vec()
}

/// Bytes that do not shrink, and tell one commit from another.
fn value(number: u64) -> Vec<u8> {
    let mut state = number;
    let next = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state.to_be_bytes()
    };
    let mut value: Vec<u8> = std::iter::repeat_with(next).take(VALUE_BYTES / 8).flatten().collect();
    value.truncate(VALUE_BYTES);
    value
}

/// How many of the first commits are not there as a whole. A row that cannot be read is one that is lost.
pub(super) async fn missing(backend: &dyn Backend, acknowledged: u64) -> u64 {
    let mut missing = 0;
    for number in 0..acknowledged {
        let mut whole = true;
        for row in 0..ROWS_A_COMMIT {
            let found = backend.get(&name(number, row)).await.ok().flatten();
            whole &= found == Some(value(number));
        }
        missing += u64::from(!whole);
    }
    missing
}
