//! The whole stack: devices of the facade against the homeserver of the tests. One behaviour a file.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod cli;
mod crash;
mod dying;
mod edits;
mod keys;
mod keys_cast;
mod keys_claim;
mod keys_claim_retry;
mod keys_conflict;
mod keys_fallback;
mod keys_gate;
mod keys_query_changed;
mod keys_query_rejected;
mod keys_query_unknown;
mod keys_upload;
mod megolm_queue;
mod receiving;
mod sending;
mod story;
mod sync_answers;
mod world;
