//! A seed: every choice of a story comes from its name, and a story that fails prints it.

use std::panic::AssertUnwindSafe;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// Where the choices of a story come from.
#[derive(Clone, Debug)]
pub(crate) struct Seed(ChaCha8Rng);

impl Seed {
    /// The same name gives the same choices, on every machine.
    pub(crate) fn new(name: &str) -> Self {
        // FNV-1a: the standard library's hash differs from one release to the next.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(ChaCha8Rng::seed_from_u64(hash))
    }

    /// A number below `limit`; 0 where there is none.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.0.next_u64() % limit }
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// Tell a story on one thread, on a runtime of its own whose time stands still. When it fails, its name and how to repeat
/// it are printed; a story without a name has no choices, and its test repeats it.
pub(crate) fn tell<T>(name: &str, story: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let told = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(story())));
    // The tasks of processes that were killed go with the runtime.
    drop(runtime);
    told.unwrap_or_else(|panic| {
        if !name.is_empty() {
            eprintln!("MX_SEED={name}\n    cargo xtask replay {name}");
        }
        std::panic::resume_unwind(panic)
    })
}

/// How many rounds a longer run asks for, as CI does: then everything is told, and not a part of it.
pub(crate) fn rounds() -> Option<u64> {
    let asked = std::env::var("MX_CRASH_ROUNDS").ok()?;
    Some(asked.parse().unwrap())
}
