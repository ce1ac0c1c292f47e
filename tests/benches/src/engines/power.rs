//! What is there after a power cut, in images made from the trace of a writer.

use std::{
    env, fmt,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use mx_crypto_store::backend::MemoryDisk;

use super::{
    disk::Disk,
    trace::{CALLS, Call, Phase, Reader},
    writer::missing,
};
use crate::engine::Engine;

/// How many commits a traced writer makes.
const COMMITS: usize = 400;
/// How many times one trace is cut.
const CUTS: usize = 5;
/// The table's header counts the barriers of so many commits.
const COUNTED: usize = 200;

#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    pub(super) sync_calls: String,
    acknowledged: u64,
    lost: u64,
    cuts: usize,
    not_openable: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {}; {} of {}",
            self.lost, self.acknowledged, self.not_openable, self.cuts
        )
    }
}

/// `None`: there is no `strace` on this machine.
pub(super) async fn measure(engine: Engine, rounds: usize) -> anyhow::Result<Option<Cut>> {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let mut total = Cut::default();
    for round in 0..rounds.div_ceil(CUTS) {
        let directory = tempfile::tempdir()?;
        // The directory itself is made by the engine, as everything in it.
        let store = directory.path().canonicalize()?.join("store");
        let trace = traced_writer(engine, directory.path(), &store)?;
        let cuts = CUTS.min(rounds - total.cuts);
        play(engine, &trace, &store, cuts, round, &mut total).await?;
    }
    Ok(Some(total))
}

fn traced_writer(engine: Engine, directory: &Path, store: &Path) -> anyhow::Result<PathBuf> {
    let trace = directory.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "16777216", "-e"])
        .arg(format!("trace={CALLS}"))
        .args(["-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(env::current_exe()?)
        .args([
            "writer",
            "--engine",
            engine.name(),
            "--commits",
            &COMMITS.to_string(),
            "--directory",
        ])
        .arg(store)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "the writer on {} ended with {status}", engine.name());
    Ok(trace)
}

/// Plays a trace back, and cuts the power on its way: after so many acknowledged commits, and some calls more.
async fn play(
    engine: Engine,
    trace: &Path,
    store: &Path,
    cuts: usize,
    round: usize,
    total: &mut Cut,
) -> anyhow::Result<()> {
    let mut disk = Disk::new(store)?;
    let mut reader = Reader::default();
    let mut acknowledged = 0;
    let mut pending = cut_points(cuts, round);
    let mut before = (0, 0);
    for line in BufReader::new(File::open(trace)?).lines() {
        let Some((phase, call)) = reader.read(&line?)? else {
            continue;
        };
        if is_acknowledgement(phase, &call) {
            acknowledged += 1;
            match acknowledged {
                100 => before = (disk.syncs, disk.weak_syncs),
                n if n == 100 + COUNTED => total.sync_calls = counted(&disk, before),
                _ => {}
            }
        } else {
            disk.play(phase, call);
        }
        if let Some((_, calls)) = pending.first_mut().filter(|(after, _)| acknowledged >= *after) {
            if *calls > 0 {
                *calls -= 1;
                continue;
            }
            pending.remove(0);
            cut(engine, &disk, u64::try_from(acknowledged)?, total).await?;
        }
    }
    ensure!(pending.is_empty(), "the trace ended before the power was cut");
    // Had nothing been lost, everything would be there: otherwise it is the playback that loses.
    disk.sync_all();
    let mut whole = Cut::default();
    cut(engine, &disk, u64::try_from(acknowledged)?, &mut whole).await?;
    ensure!(
        whole.lost == 0,
        "the trace of {} cannot be played back: {whole}",
        engine.name()
    );
    Ok(())
}

/// After which commits, and how many calls later, spread over the trace and different in each round.
fn cut_points(cuts: usize, round: usize) -> Vec<(usize, usize)> {
    let share = (COMMITS - 20) / cuts.max(1);
    let point = |cut: usize| {
        (
            10 + cut * share + (round * 31 + cut * 17) % share,
            (round * 7 + cut * 3) % 11,
        )
    };
    (0..cuts).map(point).collect()
}

fn is_acknowledgement(phase: Phase, call: &Call) -> bool {
    phase == Phase::Done && matches!(call, Call::Write { file, .. } if file.descriptor == 1)
}

fn counted(disk: &Disk, before: (u64, u64)) -> String {
    let (real, weak) = (disk.syncs - before.0, disk.weak_syncs - before.1);
    match weak {
        0 => real.to_string(),
        _ => format!("{real}, and {weak} that are no barrier"),
    }
}

async fn cut(engine: Engine, disk: &Disk, acknowledged: u64, total: &mut Cut) -> anyhow::Result<()> {
    let image = tempfile::tempdir().context("no place for an image")?;
    disk.image(image.path())?;
    total.cuts += 1;
    total.acknowledged += acknowledged;
    match engine.open(image.path(), &MemoryDisk::new()).await {
        Ok(backend) => {
            total.lost += missing(&*backend, acknowledged).await;
            backend.close().await.ok();
        }
        Err(_) => {
            total.lost += acknowledged;
            total.not_openable += 1;
        }
    }
    Ok(())
}
