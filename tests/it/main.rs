//! The whole stack: devices of the facade against the homeserver of the tests. One behaviour a file.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod cancel;
mod cli;
mod crash;
mod crash_history;
mod crash_matrix;
mod crash_replay;
mod disks;
mod dying;
mod fault_matrix;
mod keys;
mod receiving;
mod sending;
mod story;
mod world;
mod world_guard;
