//! The whole stack: devices of the facade against the homeserver of the tests. One behaviour a file.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod cli;
mod crash;
mod crash_history;
mod crash_matrix;
mod crash_replay;
mod disks;
mod dying;
mod edits;
mod engine_disk;
mod engine_keys;
mod engine_machine;
mod engine_receive;
mod engine_send;
mod engine_store;
mod engine_unwedge;
mod evil;
mod keys;
mod megolm_forged;
mod megolm_queue;
mod receiving;
mod rollback;
mod sending;
mod story;
mod sync_answers;
mod td_confusion;
mod td_envelope;
mod td_ignored;
mod td_room_key;
mod td_session;
mod td_store_error;
mod to_device_limits;
mod unwedging;
mod world;
mod world_guard;
