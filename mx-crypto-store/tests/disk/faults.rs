//! The n-th write or sync fails, once or for ever, for every n: a typed error, and nothing that was acknowledged is lost.

use mx_crypto_store::backend::BackendErrorKind as Kind;

use crate::{
    engine::{Engine, runtime},
    recorder::{Disk, Fault},
    story::{COMMITS, found, tell},
};

/// What must have been told by an error of this fault.
fn is_typed(fault: Fault, kind: Kind) -> bool {
    match kind {
        // A sync that finds the disk full is an error of input and output to SQLite.
        Kind::Io => true,
        Kind::NoSpace => fault.full,
        _ => false,
    }
}

/// What became of a story.
struct Outcome {
    /// It was not over before the fault came.
    came: bool,
    /// An error said that there is no space.
    no_space: bool,
}

async fn fail(engine: Engine, fault: Fault) -> Outcome {
    let disk = Disk::default();
    disk.set_fault(Some(fault));
    let (mut begun, mut acknowledged, mut no_space) = (0, 0, false);
    match engine.open(&disk).await {
        Err(error) => assert!(is_typed(fault, error.kind()), "{engine:?}, {fault:?}: {error:?}"),
        Ok(backend) => {
            let told = tell(&*backend, &disk).await;
            (begun, acknowledged) = (told.begun, told.acknowledged);
            if let Some(error) = told.error {
                no_space = error.kind() == Kind::NoSpace;
                assert!(is_typed(fault, error.kind()), "{engine:?}, {fault:?}: {error:?}");
                // What is there can be read, or is refused with an error: it is not made up.
                if let Ok(found) = found(&*backend).await {
                    assert!(
                        (acknowledged..=begun).contains(&found),
                        "{engine:?}, {fault:?}: {found}"
                    );
                }
            }
            if let Err(error) = backend.close().await {
                assert!(
                    is_typed(fault, error.kind()),
                    "{engine:?}, {fault:?}, closing: {error:?}"
                );
            }
        }
    }
    disk.set_fault(None);
    let came = disk.operations() >= fault.at;
    match engine.open(&disk).await {
        Ok(backend) => {
            let found = found(&*backend).await;
            assert!(
                found.as_ref().is_ok_and(|found| (acknowledged..=begun).contains(found)),
                "{engine:?}, {fault:?}: {acknowledged} acknowledged, {begun} begun, found {found:?}"
            );
        }
        // redb, half made: an engine on files has not given it its name yet, and begins anew.
        Err(error) => assert!(
            engine == Engine::Redb && begun == 0,
            "{engine:?}, {fault:?}: {acknowledged} acknowledged, and it does not open: {error:?}"
        ),
    }
    disk.clear();
    Outcome { came, no_space }
}

async fn fail_everywhere(engine: Engine) {
    for (for_ever, full) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut at, mut no_space) = (1, 0);
        loop {
            let outcome = fail(engine, Fault { at, for_ever, full }).await;
            if !outcome.came {
                break;
            }
            no_space += u64::from(outcome.no_space);
            at += 1;
        }
        // All but syncs and cuts, of which SQLite does not say why they failed.
        assert_eq!(
            full,
            no_space > at / 2,
            "{engine:?}: {no_space} of {at} said that there is no space"
        );
        println!(
            "{engine:?}: each of {} writes and syncs failed, for ever: {for_ever}, full: {full}",
            at - 1
        );
        assert!(at > 4 * COMMITS, "{at}");
    }
}

#[test]
fn sqlite() {
    runtime().block_on(fail_everywhere(Engine::Sqlite));
}

#[test]
fn redb() {
    runtime().block_on(fail_everywhere(Engine::Redb));
}
