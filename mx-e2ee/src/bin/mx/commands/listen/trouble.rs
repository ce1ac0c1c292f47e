//! Trouble that passes by itself: told when it begins and every hour, and not at each attempt.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use tokio::time::Instant;

/// The same trouble is told again after this long.
const EVERY: Duration = Duration::from_secs(3600);

/// What keeps us from listening.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
    /// The last attempt that failed.
    last: Option<Instant>,
    /// By code, when it was told last.
    told: BTreeMap<&'static str, Instant>,
}

impl Trouble {
    /// An attempt failed. Returns what to tell.
    pub(super) fn goes_on(&mut self, code: &'static str, error: &impl Display) -> Option<String> {
        let now = Instant::now();
        self.last = Some(now);
        if self.told.get(code).is_some_and(|at| now.duration_since(*at) < EVERY) {
            return None;
        }
        self.told.insert(code, now);
        let since = *self.since.get_or_insert(now);
        let minutes = now.duration_since(since).as_secs() / 60;
        let so_far = match minutes {
            0 => String::new(),
            _ => format!(", for {minutes} minutes now"),
        };
        Some(format!("mx: {error}; trying again{so_far} [{code}]"))
    }

    /// Whether an attempt failed since something worked.
    pub(super) const fn is_on(&self) -> bool {
        self.last.is_some()
    }

    /// The last thing that worked did so this long ago: it is over where nothing failed since. Returns what to tell.
    pub(super) fn is_over_since(&mut self, worked: Duration) -> Option<String> {
        let is_over = self.last.is_some_and(|last| worked < last.elapsed());
        if is_over { self.is_over() } else { None }
    }

    /// Something arrived. Returns what to tell.
    pub(super) fn is_over(&mut self) -> Option<String> {
        self.told.clear();
        self.last = None;
        let seconds = self.since.take()?.elapsed().as_secs();
        Some(format!("mx: it works again, after {seconds} seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nw_20_a_day_offline_is_told_once_an_hour() {
        let mut trouble = Trouble::default();
        let mut told = Vec::new();
        for _ in 0..24 * 60 {
            told.extend(trouble.goes_on("unreachable", &"no way"));
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(told.len(), 24, "{told:?}");
        assert_eq!(told[0], "mx: no way; trying again [unreachable]");
        assert!(
            trouble.goes_on("rate_limited", &"slower").is_some(),
            "other trouble is told at once"
        );
        assert_eq!(trouble.is_over().unwrap(), "mx: it works again, after 86400 seconds");
        assert!(trouble.is_over().is_none());
        assert!(trouble.goes_on("unreachable", &"again").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_a_sync_works_that_brings_nothing() {
        let mut trouble = Trouble::default();
        assert!(!trouble.is_on());
        trouble.goes_on("unreachable", &"no way");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(trouble.is_over_since(Duration::from_secs(90)).is_none() && trouble.is_on());
        let told = trouble.is_over_since(Duration::from_secs(10)).unwrap();
        assert_eq!(told, "mx: it works again, after 60 seconds");
        assert!(!trouble.is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_changes_all_the_time_is_told_once_each() {
        let mut trouble = Trouble::default();
        let told = ["a", "b"]
            .repeat(100)
            .into_iter()
            .filter_map(|code| trouble.goes_on(code, &"no way"));
        assert_eq!(told.count(), 2);
    }
}
