//! Work on many records, spread over the cores. Pure: no I/O.
//!
//! # Why
//! A key query of a large room, or the sync after a night, brings thousands of records, and half of their cost is
//! encoding and sealing them. Threads of their own, for as long as that takes: those of the runtime are for others.

use std::{panic::resume_unwind, thread};

/// How many records are worth a thread.
const WORTH_A_THREAD: usize = 64;
/// What waits at the end is one disk: more threads than this change nothing.
const MOST_THREADS: usize = 4;

/// On how many threads large work is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    threads: usize,
}

impl Spread {
    /// As this machine has cores.
    pub(crate) fn new() -> Self {
        Self {
            threads: thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
        }
    }

    /// Does `work` on consecutive parts of `items`; what comes of them is in their order. Every part is done when it
    /// returns. A part whose thread cannot begin is done here.
    pub(crate) fn over<T: Sync, R: Send>(self, items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
        let threads = self.threads.min(items.len() / WORTH_A_THREAD);
        if threads < 2 {
            return vec![work(items)];
        }
        let mut parts = items.chunks(items.len().div_ceil(threads));
        let first = parts.next().unwrap_or_default();
        let work = &work;
        thread::scope(|scope| {
            let begin = |part| {
                let thread = thread::Builder::new().spawn_scoped(scope, move || work(part));
                (part, thread.ok())
            };
            let others: Vec<_> = parts.map(begin).collect();
            let mut done = vec![work(first)];
            done.extend(others.into_iter().map(|(part, thread)| match thread {
                Some(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                None => work(part),
            }));
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_in_order() {
        for threads in [1, 2, 3, 4] {
            for count in [0, 1, 63, 64, 127, 128, 129, 191, 192, 1_000] {
                let items: Vec<usize> = (0..count).collect();
                let parts = Spread { threads }.over(&items, <[usize]>::to_vec);
                assert_eq!(parts.concat(), items, "{count} on {threads} threads");
                let expected = threads.min(count / WORTH_A_THREAD).max(1);
                assert_eq!(parts.len(), expected, "{count} on {threads} threads");
            }
        }
    }

    #[test]
    fn large_work_is_on_several_threads() {
        let items = [(); 2 * WORTH_A_THREAD];
        let threads = Spread { threads: 2 }.over(&items, |_| thread::current().id());
        assert_ne!(threads.first(), threads.last());
        let few = items.split_last().unwrap().1;
        assert_eq!(
            Spread { threads: 2 }.over(few, |_| thread::current().id()),
            [thread::current().id()]
        );
    }

    #[test]
    #[should_panic(expected = "the last part")]
    fn a_panic_of_a_part_is_one_of_the_whole() {
        let items: Vec<usize> = (0..2 * WORTH_A_THREAD).collect();
        Spread { threads: 2 }.over(&items, |part| assert!(part.first() == Some(&0), "the last part"));
    }
}
