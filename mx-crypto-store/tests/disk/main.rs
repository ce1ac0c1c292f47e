//! What the engines write and sync, recorded on a disk in memory: power cuts at every point, faults at every point, and
//! how many syncs a commit costs.
//!
//! SQLite runs on the disk through a virtual file system (`sqlite-vfs`, which brings its own bindings: `sqlite-plugin`
//! would want libclang), redb through its `StorageBackend`. sled has no such door, and promises nothing here.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "a test says how much it tried")]

mod engine;
mod faults;
mod image;
mod power_cut;
mod recorder;
mod redb_storage;
mod sqlite_vfs;
mod story;
mod syncs;
