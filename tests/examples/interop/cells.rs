//! The matrix: every cell with every peer that can, one line each.

mod contact;
mod content;
mod ending;
mod federation;
mod identity;
mod key_files;
mod keys;
mod late;
mod outage;
mod play;
mod restart;
mod rotation;
mod taken_over;
mod wedge;

use std::{future::Future, pin::Pin};

use anyhow::{Result, bail};

pub(crate) use self::play::run;
use crate::{peer::Kind, proxy::Weather, stage::Stage};

type Playing<'s> = Pin<Box<dyn Future<Output = Result<String>> + Send + 's>>;

/// What happens between our device and a peer. It says in a few words what was seen.
struct Cell {
    number: &'static str,
    what: &'static str,
    peers: &'static [Kind],
    run: for<'s> fn(&'s Stage<'s>, Kind) -> Playing<'s>,
}

const ALL: &[Kind] = &[Kind::Js, Kind::Nio, Kind::Ours];
const OTHERS: &[Kind] = &[Kind::Js, Kind::Nio];

/// What a peer cannot do in the version that is pinned, and why.
const NOT_APPLICABLE: [(&str, Kind, &str); 4] = [
    ("4b", Kind::Nio, "it publishes no fallback key"),
    (
        "12k",
        Kind::Js,
        "it offers hkdf-hmac-sha256.v2 beside it, which is taken: see 12a",
    ),
    ("12l", Kind::Nio, "it neither gives nor takes histories (MSC4268)"),
    ("12m", Kind::Nio, "it neither gives nor takes histories (MSC4268)"),
];

const CELLS: &[Cell] = &[
    Cell {
        number: "1a",
        what: "first contact in a room of ours and of theirs",
        peers: ALL,
        run: |stage, kind| Box::pin(contact::both_ways(stage, kind)),
    },
    Cell {
        number: "1b",
        what: "three engines in one room",
        peers: &[Kind::Js],
        run: |stage, _| Box::pin(contact::three(stage)),
    },
    Cell {
        number: "1c",
        what: "first contact with the binary mx",
        peers: ALL,
        run: |stage, kind| Box::pin(contact::binary(stage, kind)),
    },
    Cell {
        number: "2a",
        what: "both restart from their stores and go on",
        peers: ALL,
        run: |stage, kind| Box::pin(restart::from_stores(stage, kind)),
    },
    Cell {
        number: "2b",
        what: "SIGKILL of ours in a burst of 200 each way",
        peers: ALL,
        run: |stage, kind| Box::pin(restart::killed(stage, kind)),
    },
    Cell {
        number: "3a",
        what: "kick: who was removed cannot read",
        peers: ALL,
        run: |stage, kind| Box::pin(rotation::kicked(stage, kind)),
    },
    Cell {
        number: "3b",
        what: "leave and rejoin",
        peers: ALL,
        run: |stage, kind| Box::pin(rotation::left(stage, kind)),
    },
    Cell {
        number: "3c",
        what: "a new device reads from now on",
        peers: ALL,
        run: |stage, kind| Box::pin(rotation::new_device(stage, kind)),
    },
    Cell {
        number: "4a",
        what: "our one-time keys are exhausted",
        peers: ALL,
        run: |stage, kind| Box::pin(keys::of_ours(stage, kind)),
    },
    Cell {
        number: "4b",
        what: "their one-time keys are exhausted",
        peers: ALL,
        run: |stage, kind| Box::pin(keys::of_theirs(stage, kind)),
    },
    Cell {
        number: "5",
        what: "their store is set back",
        peers: OTHERS,
        run: |stage, kind| Box::pin(wedge::heals(stage, kind)),
    },
    Cell {
        number: "6a",
        what: "who joins late reads from then on",
        peers: ALL,
        run: |stage, kind| Box::pin(late::joiner(stage, kind)),
    },
    Cell {
        number: "6b",
        what: "a message overtakes its key",
        peers: ALL,
        run: |stage, kind| Box::pin(late::before_key(stage, kind)),
    },
    Cell {
        number: "6c",
        what: "said between the invitation and the join",
        peers: ALL,
        run: |stage, kind| Box::pin(late::before_join(stage, kind)),
    },
    Cell {
        number: "7a",
        what: "files of each kind",
        peers: ALL,
        run: |stage, kind| Box::pin(content::files(stage, kind)),
    },
    Cell {
        number: "7b",
        what: "replies, threads, edits, reactions, redactions",
        peers: ALL,
        run: |stage, kind| Box::pin(content::related(stage, kind)),
    },
    Cell {
        number: "8a",
        what: "our device is deleted",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(ending::deleted(stage, kind)),
    },
    Cell {
        number: "8b",
        what: "our token expires, and our login",
        peers: &[Kind::Ours],
        run: |stage, kind| Box::pin(ending::soft(stage, kind)),
    },
    Cell {
        number: "9",
        what: "Synapse's own rate limits",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(outage::limits(stage, kind)),
    },
    Cell {
        number: "10a",
        what: "the server restarts in the middle",
        peers: ALL,
        run: |stage, kind| Box::pin(outage::restarted(stage, kind)),
    },
    Cell {
        number: "10b",
        what: "a proxy answers 502 for a while",
        peers: ALL,
        run: |stage, kind| Box::pin(outage::weather(stage, kind, Weather::Status(502))),
    },
    Cell {
        number: "10c",
        what: "answers are lost for a while",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(outage::weather(stage, kind, Weather::CutAfter)),
    },
    Cell {
        number: "10d",
        what: "connections break for a while",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(outage::weather(stage, kind, Weather::CutBefore)),
    },
    Cell {
        number: "11",
        what: "key files, with mx",
        peers: ALL,
        run: |stage, kind| Box::pin(key_files::ex_06_each_way(stage, kind)),
    },
    Cell {
        number: "12a",
        what: "emoji with another user, to a device",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::sas_with_devices(stage, kind)),
    },
    Cell {
        number: "12b",
        what: "emoji with another user, in a room",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::sas_in_rooms(stage, kind)),
    },
    Cell {
        number: "12c",
        what: "cross-signed devices are trusted each way",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::cross_signing(stage, kind)),
    },
    Cell {
        number: "12d",
        what: "emoji that differ",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::mismatch(stage, kind)),
    },
    Cell {
        number: "12e",
        what: "codes with another user",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::codes(stage, kind)),
    },
    Cell {
        number: "12f",
        what: "their new device is given our secrets",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::own::theirs_is_new(stage, kind)),
    },
    Cell {
        number: "12g",
        what: "our new device is given their secrets",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::own::ours_is_new(stage, kind)),
    },
    Cell {
        number: "12h",
        what: "codes with a new device",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::own::codes(stage, kind)),
    },
    Cell {
        number: "12i",
        what: "backup and storage of theirs, restored here",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::backup::theirs_restored_here(stage, kind)),
    },
    Cell {
        number: "12j",
        what: "backup and storage of ours, restored there",
        peers: &[Kind::Js],
        run: |stage, kind| Box::pin(identity::backup::ours_restored_there(stage, kind)),
    },
    Cell {
        number: "12k",
        what: "libolm's old MAC where it is all that there is",
        peers: &[Kind::Js],
        run: |_, _| Box::pin(async { bail!("nobody plays it") }),
    },
    Cell {
        number: "12l",
        what: "history shared with who is invited",
        peers: ALL,
        run: |stage, kind| Box::pin(identity::history::shared(stage, kind)),
    },
    Cell {
        number: "12m",
        what: "history that is not for newcomers",
        peers: ALL,
        run: |stage, kind| Box::pin(identity::history::hidden(stage, kind)),
    },
    Cell {
        number: "13",
        what: "two servers federate, one is stopped",
        peers: ALL,
        run: |stage, kind| Box::pin(federation::one_stopped(stage, kind)),
    },
    Cell {
        number: "14",
        what: "a device of theirs goes on with mx import",
        peers: &[Kind::Nio],
        run: |stage, kind| Box::pin(taken_over::by_mx(stage, kind)),
    },
];
