//! A seed again: `cargo xtask replay SEED` tells exactly the story that failed.

use mx_test_homeserver::Exchange;

use crate::{crash_matrix, interleavings};

/// What went over the wire, without what differs between two tellings: keys, ciphertexts and transaction ids are random,
/// by the operating system, whatever a story chooses.
pub(crate) fn shape(log: &[Exchange]) -> Vec<String> {
    log.iter()
        .map(|exchange| {
            let path = exchange
                .path
                .split('/')
                .map(|part| if is_random(part) { "…" } else { part });
            let path: Vec<&str> = path.collect();
            format!("{} {} {:?}", exchange.method, path.join("/"), exchange.status)
        })
        .collect()
}

/// Transaction ids are UUIDs without dashes.
fn is_random(part: &str) -> bool {
    part.len() == 32 && part.chars().all(|digit| digit.is_ascii_hexdigit())
}

/// With a seed: its story. Without one: two tellings of the same seed are the same story, and another seed's is another.
#[test]
fn a_seed_is_the_same_story_again() {
    let Ok(seed) = std::env::var("MX_SEED") else {
        let first = told("k21", 1, 3);
        assert_eq!(first, told("k21", 1, 3));
        // Where a process is killed is chosen by the seed, and two seeds may choose the same place.
        assert!((4..12).any(|round| told("k21", 1, round) != first));
        return;
    };
    let parts: Vec<&str> = seed.split('-').collect();
    match parts.as_slice() {
        ["crash", point, history, round] => {
            told(point, history.parse().unwrap(), round.parse().unwrap());
        }
        ["order", _] => interleavings::replay(&seed),
        _ => unreachable!("{seed:?} is no seed of these tests"),
    }
}

fn told(point: &str, history: u64, round: u64) -> Vec<String> {
    shape(&crash_matrix::replay(point, history, round))
}
