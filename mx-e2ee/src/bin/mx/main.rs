//! `mx`: the client for a shell.

fn main() {}
