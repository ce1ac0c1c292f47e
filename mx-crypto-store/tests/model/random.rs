//! Random sequences of operations, from a seed that is told when one fails.

use std::{
    env,
    hash::{BuildHasher, RandomState},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{
    check::Checked,
    faulty::{Fault, fault},
    home::Home,
    live::first_rows,
    mutation::mutation,
    records::record_step,
    reference::{Step, settled},
    world::{Action, Operation, World},
};

/// How many sequences are tried on each engine. `MX_MODEL_CASES` sets another number.
const CASES: u32 = 1_000;

/// How long a sequence is, at most.
const LENGTH: usize = 12;

#[derive(Clone, Debug)]
struct Case {
    /// With an account and a device of our own, as the engine's stores are from their first moment on.
    settled: bool,
    opening: Option<Fault>,
    operations: Vec<Operation>,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => mutation().prop_map(|mutation| Action::Step(Step::Engine(mutation))),
        4 => record_step().prop_map(|step| Action::Step(Step::Record(step))),
        3 => Just(Action::Begin),
        3 => Just(Action::Commit),
        2 => Just(Action::Submit),
        1 => Just(Action::Abort),
        1 => Just(Action::Drop),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let faulty = prop_oneof![6 => action(), 1 => Just(Action::Read)];
    let rarely = || prop::option::weighted(0.3, fault());
    prop_oneof![
        20 => action().prop_map(Operation::Do),
        5 => (fault(), faulty).prop_map(|(fault, action)| Operation::Faulty(fault, action)),
        2 => Just(Operation::Kill),
        1 => rarely().prop_map(Operation::Reopen),
        1 => rarely().prop_map(Operation::Forget),
        1 => Just(Operation::Peek),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let opening = prop::option::weighted(0.1, fault());
    (prop::bool::weighted(0.8), opening, vec(operation(), 1..=LENGTH)).prop_map(|(settled, opening, operations)| Case {
        settled,
        opening,
        operations,
    })
}

async fn run<H: Home>(case: &Case) -> Checked {
    if let Some(fault) = case.opening {
        World::<H>::begin_with(fault).await?;
    }
    let mut world = World::<H>::begin().await?;
    if case.settled {
        for step in settled() {
            world.act(&Action::Step(step), None).await?;
        }
    }
    for (index, operation) in case.operations.iter().enumerate() {
        let operated = world.operate(operation).await;
        operated.map_err(|what| format!("operation {index}, {operation:?}: {what}"))?;
    }
    // In the end what is on the disk counts, and not what is kept in memory.
    world
        .operate(&Operation::Kill)
        .await
        .map_err(|what| format!("in the end: {what}"))
}

/// A number from the environment.
pub(crate) fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// Try the engine.
pub(crate) fn random<H: Home>(name: &str) {
    // A hasher's keys are the randomness that the standard library has.
    let seed: u64 = number("MX_SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    let config = Config {
        cases: number("MX_MODEL_CASES").unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let ran = TestRunner::new_with_rng(config, rng).run(&case(), |case| {
        runtime.block_on(run::<H>(&case)).map_err(TestCaseError::fail)
    });
    match ran {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => {
            let operations: Vec<String> = case.operations.iter().map(|one| format!("  {one:?}")).collect();
            let store = serde_json::to_string(runtime.block_on(first_rows())).unwrap();
            let Case { settled, opening, .. } = case;
            panic!(
                "MX_SEED={seed} MX_STORE='{store}' replays this\nsettled: {settled}, opening: {opening:?}, then\n{}\n\
                 {reason}",
                operations.join("\n")
            )
        }
        Err(TestError::Abort(reason)) => panic!("MX_SEED={seed}: {reason}"),
    }
}
