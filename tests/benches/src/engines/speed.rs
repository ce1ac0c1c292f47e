//! What commits and reads cost, one caller at a time.

use std::time::Instant;

use anyhow::Context as _;
use mx_crypto_store::backend::{Batch, MemoryDisk};

use super::writer::{batch, name};
use crate::engine::Engine;

const GROUP: u64 = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    pub(super) commit_p50_us: f64,
    pub(super) commit_p99_us: f64,
    pub(super) grouped_a_second: f64,
    pub(super) read_p50_us: f64,
}

pub(super) async fn measure(engine: Engine, commits: usize) -> anyhow::Result<Speed> {
    let directory = tempfile::tempdir()?;
    let backend = engine.open(directory.path(), &MemoryDisk::new()).await?;
    let commits = u64::try_from(commits)?;
    let mut number = 0..;
    let mut next = || number.next().context("numbers end");
    let mut took = Vec::new();
    for _ in 0..commits {
        let batch = batch(next()?);
        let started = Instant::now();
        backend.commit(batch).await?;
        took.push(micros(started));
    }
    let groups = (commits / 20).max(1);
    let started = Instant::now();
    for _ in 0..groups {
        let mut group = Batch::new();
        for _ in 0..GROUP {
            group.writes.extend(batch(next()?).writes);
        }
        backend.commit(group).await?;
    }
    let grouped_us = micros(started);
    let mut reads = Vec::new();
    for number in 0..commits {
        let row = name(number, 0);
        let started = Instant::now();
        backend.get(&row).await?.context("a committed row is not there")?;
        reads.push(micros(started));
    }
    Ok(Speed {
        commit_p50_us: percentile(&mut took, 0.5),
        commit_p99_us: percentile(&mut took, 0.99),
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        grouped_a_second: (groups * GROUP) as f64 / grouped_us * 1e6,
        read_p50_us: percentile(&mut reads, 0.5),
    })
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// The value below which this part of all values is.
pub(super) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few thousand, and a part of them"
    )]
    let index = (values.len() as f64 * part) as usize;
    values.get(index).or(values.last()).copied().unwrap_or_default()
}
