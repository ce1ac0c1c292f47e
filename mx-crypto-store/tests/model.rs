//! A model of the store, on each storage engine: random operations, faults and deaths, and every short sequence with
//! every crash point, beside the engine's own store in memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod model {
    mod act;
    mod alphabet;
    mod check;
    pub(crate) mod exhaustive;
    mod faulty;
    mod fresh;
    pub(crate) mod home;
    mod live;
    mod mutation;
    mod observe;
    mod pool;
    pub(crate) mod random;
    mod records;
    mod reference;
    mod world;
}

mod memory {
    use mx_crypto_store::backend::MemoryDisk as Home;

    use super::model::{exhaustive::exhaustive, random::random};

    #[test]
    fn any_sequence() {
        random::<Home>("memory");
    }

    #[test]
    fn every_short_sequence() {
        exhaustive::<Home>(3);
    }
}

mod sqlite {
    use super::model::{exhaustive::exhaustive, home::SqliteHome as Home, random::random};

    #[test]
    fn any_sequence() {
        random::<Home>("sqlite");
    }

    /// Up to two steps. `MX_MODEL_DEPTH=3` takes three, and an hour perhaps.
    #[test]
    fn every_short_sequence() {
        exhaustive::<Home>(2);
    }
}

mod redb {
    use super::model::{exhaustive::exhaustive, home::RedbHome as Home, random::random};

    #[test]
    fn any_sequence() {
        random::<Home>("redb");
    }

    /// Up to two steps. `MX_MODEL_DEPTH=3` takes three, and an hour perhaps.
    #[test]
    fn every_short_sequence() {
        exhaustive::<Home>(2);
    }
}

mod sled {
    use super::model::{exhaustive::exhaustive, home::SledHome as Home, random::random};

    #[test]
    fn any_sequence() {
        random::<Home>("sled");
    }

    /// Up to two steps. `MX_MODEL_DEPTH=3` takes three, and an hour perhaps.
    #[test]
    fn every_short_sequence() {
        exhaustive::<Home>(2);
    }
}
