//! Several of ours and the peers in several rooms, for minutes: random messages, restarts, kills and faults.

mod book;
mod cast;
mod sample;

use std::time::Duration;

use anyhow::{Result, ensure};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use tokio::time::Instant;

use self::{
    book::{Book, Fate},
    cast::Cast,
    sample::Samples,
};
use crate::{plan::Plan, proxy::Weather, stage::Stage};

/// How often the processes are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What the seed decides.
#[derive(Debug)]
struct Dice(ChaCha8Rng);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.0.next_u32()).unwrap_or_default() % sides.max(1)
    }
}

/// What happened beside the messages.
#[derive(Debug, Default)]
struct Happened {
    restarts: usize,
    kills: usize,
    storms: usize,
    rotations: usize,
    peer_restarts: usize,
}

pub(crate) async fn run(plan: &Plan, minutes: &str, seed: Option<&str>) -> Result<()> {
    let minutes: f64 = minutes.parse()?;
    let seed = match seed {
        Some(seed) => seed.parse()?,
        None => u64::from(std::process::id()) ^ u64::from(std::time::UNIX_EPOCH.elapsed()?.subsec_nanos()),
    };
    println!("soak of {minutes} minutes, seed {seed}");
    let stage = Stage::new(plan).await?;
    let mut cast = Cast::assemble(&stage).await?;
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
    let (mut book, mut samples, mut happened) = (Book::default(), Samples::default(), Happened::default());
    let (started, mut looked) = (Instant::now(), Instant::now());
    samples.look(&cast);
    while started.elapsed().as_secs_f64() < minutes * 60.0 {
        Box::pin(step(&stage, &mut cast, &mut dice, &mut book, &mut happened)).await?;
        if looked.elapsed() > LOOK {
            samples.look(&cast);
            looked = Instant::now();
        }
    }
    cast.calm().await?;
    let seconds = started.elapsed().as_secs_f64();
    let verdict = book.check(&stage, &mut cast).await;
    samples.look(&cast);
    println!("{seconds:.0} s, seed {seed}, {happened:?}");
    println!("{}", book.report(seconds));
    println!("{}", samples.report());
    verdict?;
    stage.only_ciphertext(&stage.server)?;
    let problems = samples.problems();
    ensure!(problems.is_empty(), "not flat: {}", problems.join("; "));
    println!("every accepted message was read once by everybody who should; the homeserver holds no word");
    Ok(())
}

/// One thing happens: mostly a handful of messages at a time.
async fn step(
    stage: &Stage<'_>,
    cast: &mut Cast,
    dice: &mut Dice,
    book: &mut Book,
    happened: &mut Happened,
) -> Result<()> {
    match dice.roll(100) {
        0..3 => {
            happened.restarts += 1;
            let who = cast.mortal(dice);
            cast.restart(who).await
        }
        3..7 => {
            happened.kills += 1;
            let who = cast.mortal(dice);
            let room = cast.room_of(who, dice);
            let texts: Vec<String> = (0..8).map(|_| stage.text("before a kill")).collect();
            let after = dice.roll(texts.len());
            let fates = cast.kill_while_sending(who, &room, &texts, after).await?;
            for (text, fate) in texts.into_iter().zip(fates) {
                book.note(&room, &cast.ours_id(who), text, fate);
            }
            Ok(())
        }
        7..10 => {
            happened.storms += 1;
            let who = dice.roll(cast.ours.len());
            let weather = match dice.roll(3) {
                0 => Weather::Status(502),
                1 => Weather::CutBefore,
                _ => Weather::CutAfter,
            };
            let lasts = Duration::from_millis(300 + u64::try_from(dice.roll(1_500))?);
            cast.storm(who, weather, lasts);
            Ok(())
        }
        10..12 => {
            happened.rotations += 1;
            let who = dice.roll(cast.ours.len());
            let room = cast.room_of(who, dice);
            cast.rotate(who, &room).await
        }
        12 => {
            happened.peer_restarts += 1;
            let who = dice.roll(cast.theirs.len());
            cast.restart_peer(who).await
        }
        _ => {
            let count = 1 + dice.roll(5);
            let planned: Vec<_> = (0..count)
                .map(|_| {
                    let (who, room) = cast.speaker(dice);
                    (who, room, stage.text("soak"))
                })
                .collect();
            let fates: Vec<(Fate, Duration)> = cast.say_all(&planned).await;
            for ((who, room, text), (fate, took)) in planned.into_iter().zip(fates) {
                book.took(cast.is_ours(who), took, &fate);
                book.note(&room, &cast.id(who), text, fate);
            }
            Ok(())
        }
    }
}
