//! How often keys are uploaded: a homeserver that ignores uploads, or refuses them, must not be able to make us run.

/// Keys that may be uploaded at once; a login uploads 50.
const MOST_AT_ONCE: u64 = 150;
/// One key may be uploaded again after this long, in milliseconds: 50 a minute.
const MS_PER_KEY: u64 = 1_200;
/// A small upload counts as this many keys: it is a request, too.
const LEAST: u64 = 10;
/// The first pause after a refusal, in milliseconds; each further one doubles it,
const FIRST_PAUSE_MS: u64 = 60_000;
/// up to this one.
const LONGEST_PAUSE_MS: u64 = 15 * 60_000;

/// What was uploaded lately, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Keys that were uploaded and are not made up for by time.
    spent: u64,
    /// Up to when time has made up, in milliseconds.
    counted_to_ms: u64,
    refusals: u32,
    refused_at_ms: u64,
}

impl Pace {
    /// Whether `keys` one-time keys may be uploaded now. They count as uploaded then.
    pub(crate) fn take(&mut self, keys: usize, now_ms: u64) -> bool {
        // A clock that was put back begins anew, rather than stopping uploads until it catches up.
        let elapsed = now_ms.saturating_sub(self.counted_to_ms);
        let made_up = elapsed / MS_PER_KEY;
        self.spent = self.spent.saturating_sub(made_up);
        self.counted_to_ms = if self.spent == 0 || now_ms < self.counted_to_ms {
            now_ms
        } else {
            self.counted_to_ms + made_up * MS_PER_KEY
        };
        let cost = if keys == 0 {
            0
        } else {
            u64::try_from(keys).unwrap_or(u64::MAX).max(LEAST)
        };
        let after = self.spent.saturating_add(cost);
        let allowed = after <= MOST_AT_ONCE;
        if allowed {
            self.spent = after;
        }
        allowed
    }

    /// Whether the last refusal was so lately that asking again makes no sense.
    pub(crate) fn is_pausing(&self, now_ms: u64) -> bool {
        let pause = FIRST_PAUSE_MS
            .saturating_mul(1 << self.refusals.saturating_sub(1).min(10))
            .min(LONGEST_PAUSE_MS);
        self.refusals > 0 && now_ms.abs_diff(self.refused_at_ms) < pause
    }

    pub(crate) const fn refused(&mut self, now_ms: u64) {
        self.refusals = self.refusals.saturating_add(1);
        self.refused_at_ms = now_ms;
    }

    pub(crate) const fn accepted(&mut self) {
        self.refusals = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    #[test]
    fn three_batches_at_once_and_one_a_minute_then() {
        let mut pace = Pace::default();
        let start = 1_700_000_000_000;
        let at_once = (0..10).filter(|_| pace.take(50, start)).count();
        assert_eq!(at_once, 3);
        let in_an_hour = (1..=3600).filter(|second| pace.take(50, start + second * 1000)).count();
        assert_eq!(in_an_hour, 60);
    }

    #[test]
    fn small_uploads_count_as_requests_and_none_is_free() {
        let mut pace = Pace::default();
        assert_eq!((0..100).filter(|_| pace.take(1, 5)).count(), 15);
        assert!(pace.take(0, 5), "an upload without one-time keys always passes");
    }

    #[test]
    fn a_clock_that_goes_back_does_not_stop_uploads_for_good() {
        let mut pace = Pace::default();
        assert!((0..3).all(|_| pace.take(50, 1_000_000_000)));
        assert!(!pace.take(50, 5));
        assert!(pace.take(50, 5 + 60_000));
    }

    #[test]
    fn refusals_pause_longer_and_longer_and_success_ends_them() {
        let mut pace = Pace::default();
        assert!(!pace.is_pausing(0));
        pace.refused(1_000);
        assert!(pace.is_pausing(60_999) && !pace.is_pausing(61_000));
        pace.refused(61_000);
        assert!(pace.is_pausing(180_999) && !pace.is_pausing(181_000));
        (0..50).for_each(|_| pace.refused(0));
        assert!(pace.is_pausing(899_999) && !pace.is_pausing(900_000));
        pace.accepted();
        assert!(!pace.is_pausing(0));
    }
}
