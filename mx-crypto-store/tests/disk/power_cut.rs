//! A power cut at every point of a story: each disk that it can leave opens, with every acknowledged commit whole.

use mx_crypto_store::backend::Batch;

use crate::{
    engine::{Engine, runtime},
    image::Platter,
    recorder::{Disk, Event, Files},
    story::{COMMITS, found, tell},
};

/// How many torn disks are made at each point.
const TORN: usize = 8;

/// Open a disk through the engine. How many commits are there?
async fn opened(engine: Engine, files: Files, goes_on: bool) -> Result<u64, String> {
    let disk = Disk::of(files);
    let backend = engine.open(&disk).await;
    let backend = backend.map_err(|error| format!("it does not open: {error:?}"))?;
    let commits = found(&*backend).await?;
    if goes_on {
        let batch = Batch::new().put("again", [1]).delete("again");
        let went_on = backend.commit(batch).await;
        went_on.map_err(|error| format!("it does not go on: {error:?}"))?;
        drop(backend);
        let backend = engine.open(&disk).await;
        let backend = backend.map_err(|error| format!("it does not open again: {error:?}"))?;
        let again = found(&*backend).await?;
        if again != commits {
            return Err(format!("{commits} commits became {again}"));
        }
    }
    disk.clear();
    Ok(commits)
}

async fn cut_everywhere(engine: Engine) {
    let disk = Disk::default();
    let backend = engine.open(&disk).await.unwrap();
    // What happened before is not part of the story: an engine on files gives a store its name, or its mark, then.
    let complete = disk.events().len();
    let told = tell(&*backend, &disk).await;
    assert_eq!(told.acknowledged, COMMITS, "{:?}", told.error);
    backend.close().await.unwrap();
    let events = disk.events();
    let (mut platter, mut acknowledged, mut begun, mut images) = (Platter::default(), 0, 0, 0);
    for (index, event) in events.iter().enumerate() {
        platter.apply(event);
        match event {
            Event::Begin(number) => begun = *number,
            Event::Acknowledged(number) => acknowledged = *number,
            _ => {}
        }
        if index + 1 < complete {
            continue;
        }
        let mut cuts = vec![("newest", platter.newest())];
        if platter.is_dirty() {
            cuts.push(("oldest", platter.oldest()));
            let torn = |seed| ("torn", platter.torn(&mut fastrand::Rng::with_seed(seed as u64)));
            cuts.extend((0..TORN).map(|number| torn(index * TORN + number)));
        }
        for (number, (kind, files)) in cuts.into_iter().enumerate() {
            images += 1;
            let found = opened(engine, files, images % 8 == 0).await;
            assert!(
                found.as_ref().is_ok_and(|found| (acknowledged..=begun).contains(found)),
                "{engine:?}: power was cut after event {index} of {}, image {number} ({kind}): {acknowledged} commits \
                 were acknowledged, {begun} begun; found: {found:?}",
                events.len()
            );
        }
    }
    println!(
        "{engine:?}: {} events, {images} disks after a power cut, all legal",
        events.len()
    );
    assert!(images > 500);
}

#[test]
fn sqlite() {
    runtime().block_on(cut_everywhere(Engine::Sqlite));
}

#[test]
fn redb() {
    runtime().block_on(cut_everywhere(Engine::Redb));
}

/// The disk can tear, and the test can see it: a store that does not wait for its syncs is found.
#[test]
fn a_store_without_syncs_is_found() {
    let lost = runtime().block_on(async {
        let disk = Disk::default();
        let backend = Engine::Redb.open(&disk).await.unwrap();
        let mut platter = Platter::default();
        let complete = disk.events().len();
        tell(&*backend, &disk).await;
        let events = disk.events();
        events[..complete].iter().for_each(|event| platter.apply(event));
        let without = events[complete..]
            .iter()
            .filter(|event| !matches!(event, Event::Sync { .. }));
        without.for_each(|event| platter.apply(event));
        let mut lost = 0;
        for seed in 0..20 {
            let files = platter.torn(&mut fastrand::Rng::with_seed(seed));
            lost += u32::from(opened(Engine::Redb, files, false).await != Ok(COMMITS));
        }
        lost
    });
    assert!(lost > 10, "{lost} of 20");
}
