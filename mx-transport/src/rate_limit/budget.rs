//! A budget: what may be sent, and when. Pure, but for the clock.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use tokio::time::Instant;

use crate::{Phase, TransportError, TransportErrorKind as Kind, homeserver::visible, layer::Answer};

/// Requests of a budget that was held back are this far apart at first, and at last.
pub(super) const LEAST_SPACE: Duration = Duration::from_millis(20);
pub(super) const MOST_SPACE: Duration = Duration::from_secs(2);
/// Of that space each good answer leaves this much, in percent.
pub(super) const EASING: u32 = 80;
/// A budget is not held back longer than this without asking again.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(5 * 60);
/// The others wait this long for the answer to the one that asks.
pub(super) const FOR_A_PROBE: Duration = Duration::from_secs(10);
/// What was learned is worth nothing after this long.
const MEMORY: Duration = Duration::from_secs(60);

/// What is set, and not learned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) under_way: usize,
    pub(super) limit: Option<Limit>,
}

/// So many requests at once, and another after each of these times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    burst: u32,
    every: Duration,
}

impl Limit {
    pub(super) fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst: burst.max(1),
            every,
        }
    }
}

/// What may be sent, and when.
#[derive(Debug, Default)]
pub(super) struct Budget {
    under_way: usize,
    held: Option<Held>,
    /// How often it was held back: an answer to what went before that says nothing of what is now.
    generation: u64,
    space: Duration,
    last: Option<Instant>,
    /// When all of a limit's burst is there again.
    full: Option<Instant>,
}

/// A 429 holds it back.
#[derive(Debug)]
struct Held {
    until: Instant,
    /// It would be for longer, which one request finds out.
    is_cut: bool,
    errcode: Option<String>,
}

impl Budget {
    /// When the next request may go, if there is room. `None`: at once.
    pub(super) fn ready(&self, rules: &Rules) -> Option<Instant> {
        self.ready_after(rules, 0)
    }

    /// When a request may go at the earliest that has so many before it.
    fn ready_after(&self, rules: &Rules, before: usize) -> Option<Instant> {
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let held = self.held.as_ref().map(|held| held.until);
        let spaced = self.last.map(|last| last + self.space);
        let limited = rules.limit.and_then(|limit| {
            // `burst` of them fit before the time at which all is there again.
            let now = Instant::now();
            let full = self.full.map_or(now, |full| full.max(now));
            let full = full.checked_add(limit.every.saturating_mul(before))?;
            full.checked_sub(limit.every.saturating_mul(limit.burst - 1))
        });
        let first = held.max(spaced);
        first.map(|first| first + self.least_space_for(before)).max(limited)
    }

    /// What so many requests leave between them, if all answers are good.
    fn least_space_for(&self, requests: u32) -> Duration {
        let easing = f64::from(EASING) / 100.0;
        let powers = i32::try_from(requests).unwrap_or(i32::MAX);
        self.space.mul_f64((1.0 - easing.powi(powers)) / (1.0 - easing))
    }

    /// What a request is told whose turn comes after its end, with so many before it.
    pub(super) fn beyond(&self, rules: &Rules, end: Option<Instant>, before: usize) -> Option<Answer> {
        (end.is_some() && self.ready_after(rules, before) > end).then(|| self.refusal())
    }

    /// A request goes. `None`: it does not yet.
    pub(super) fn take(&mut self, rules: &Rules) -> Option<u64> {
        let now = Instant::now();
        if self.under_way >= rules.under_way || self.ready(rules).is_some_and(|at| at > now) {
            return None;
        }
        match &mut self.held {
            Some(held) if held.is_cut => held.until = now + FOR_A_PROBE,
            held => *held = None,
        }
        self.under_way += 1;
        self.last = Some(now);
        if let Some(limit) = rules.limit {
            self.full = self.full.map_or(now, |full| full.max(now)).checked_add(limit.every);
        }
        Some(self.generation)
    }

    /// A request has ended, whatever came of it.
    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A 429 came to a request of that generation. Whether that is news.
    pub(super) fn hold(&mut self, pause: Duration, errcode: Option<String>, generation: u64) -> bool {
        let until = Instant::now() + pause.min(LONGEST_HOLD);
        let is_news = generation == self.generation;
        if is_news || self.held.as_ref().is_none_or(|held| held.until < until) {
            self.held = Some(Held {
                until,
                is_cut: pause > LONGEST_HOLD,
                errcode: errcode.as_deref().map(visible),
            });
        }
        if is_news {
            self.generation += 1;
            self.space = (self.space * 2).clamp(LEAST_SPACE, MOST_SPACE);
        }
        is_news
    }

    /// Another answer came to a request of that generation.
    pub(super) fn ease(&mut self, generation: u64) {
        if generation != self.generation {
            return;
        }
        self.held = None;
        self.space = self.space * EASING / 100;
        if self.space < Duration::from_millis(1) {
            self.space = Duration::ZERO;
        }
    }

    /// What a request is told that cannot wait as long.
    pub(super) fn refusal(&self) -> Answer {
        let now = Instant::now();
        let Some(held) = self.held.as_ref().filter(|held| held.until > now) else {
            return Err(TransportError::new(Kind::Timeout(Phase::Queue)));
        };
        let left = held.until - now;
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let mut body = serde_json::json!({
            "error": "the homeserver said before that it is too much: this was not sent",
            "retry_after_ms": seconds.saturating_mul(1000),
        });
        if let (Some(errcode), Some(body)) = (&held.errcode, body.as_object_mut()) {
            body.insert("errcode".to_owned(), errcode.as_str().into());
        }
        let mut response = http::Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Ok(response)
    }

    /// Whether what is known here is worth remembering.
    pub(super) fn is_needed(&self) -> bool {
        let now = Instant::now();
        let recent = self.last.is_some_and(|last| last + MEMORY > now);
        recent || self.held.as_ref().is_some_and(|held| held.until > now) || self.full.is_some_and(|full| full > now)
    }
}
