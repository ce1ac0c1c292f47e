//! What is there after the process was killed, and how long opening it takes then.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mx_crypto_store::backend::MemoryDisk;

use super::{speed::percentile, writer::missing};
use crate::engine::Engine;

#[derive(Clone, Copy, Debug)]
pub(super) struct Killed {
    pub(super) acknowledged: u64,
    pub(super) lost: u64,
    pub(super) open_p50_ms: f64,
}

pub(super) async fn measure(engine: Engine, rounds: usize) -> anyhow::Result<Killed> {
    let (mut acknowledged, mut lost, mut opened_ms) = (0, 0, Vec::new());
    for round in 0..rounds {
        let directory = tempfile::tempdir()?;
        // From a third of a second up, so that no two rounds end at the same place of a checkpoint.
        let life = Duration::from_millis(300 + 37 * u64::try_from(round)?);
        let commits = life_of_a_writer(engine, directory.path(), life)?;
        let started = Instant::now();
        let backend = engine.open(directory.path(), &MemoryDisk::new()).await?;
        opened_ms.push(started.elapsed().as_secs_f64() * 1e3);
        acknowledged += commits;
        lost += missing(&*backend, commits).await;
        backend.close().await?;
    }
    Ok(Killed {
        acknowledged,
        lost,
        open_p50_ms: percentile(&mut opened_ms, 0.5),
    })
}

/// Starts a writer, kills it, and returns how many commits it was told were durable.
fn life_of_a_writer(engine: Engine, directory: &std::path::Path, life: Duration) -> anyhow::Result<u64> {
    let mut child = Command::new(env::current_exe()?)
        .args(["writer", "--engine", engine.name(), "--directory"])
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("the writer has no output")?;
    let reader = thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).count());
    thread::sleep(life);
    child.kill()?;
    child.wait()?;
    let lines = reader.join().ok().context("the reader ended early")?;
    Ok(u64::try_from(lines)?)
}
