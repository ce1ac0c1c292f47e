//! The pause that a server names, in all the forms that servers have.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;

/// No pause is longer than this: what a server says beyond it is a mistake, or meant to stop us for good.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// A body that names a pause is short, in bytes: an answer of another kind is not read for it.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The pause that the server names: `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), else
/// `retry_after_ms` of the body, which the Matrix specification has deprecated and every homeserver still sends.
///
/// A date is compared with the answer's own: the clock of a machine that has just started may be years off, and two
/// clocks of one server are one. Fractions are taken, as some proxies send them. What is negative or past is no time at all,
/// what is huge is a day, and what is none of this is not there. Of several headers the longest pause counts.
pub(crate) fn named_pause(response: &http::Response<Bytes>) -> Option<Duration> {
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    let headers = response.headers().get_all(RETRY_AFTER).iter();
    let named = headers
        .filter_map(|value| of_header(value.to_str().ok()?.trim(), now))
        .max();
    named.or_else(|| said(response.body()).pause)
}

/// What a refusal says of itself.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) pause: Option<Duration>,
    pub(crate) errcode: Option<String>,
}

/// `now` is what the server took for it.
fn of_header(value: &str, now: Option<SystemTime>) -> Option<Duration> {
    if let Some(seconds) = number(value) {
        return Some(clamped(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = now.unwrap_or_else(SystemTime::now);
    Some(at.duration_since(now).unwrap_or_default().min(LONGEST))
}

/// What the body of a refusal says. An answer of another kind says nothing.
pub(crate) fn said(body: &[u8]) -> Said {
    #[derive(Default, Deserialize)]
    struct Body {
        retry_after_ms: Option<Value>,
        errcode: Option<Value>,
    }
    if body.len() > MAX_BODY_BYTES {
        return Said::default();
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let ms = match body.retry_after_ms {
        Some(Value::Number(ms)) => ms.as_f64(),
        Some(Value::String(ms)) => number(ms.trim()),
        _ => None,
    };
    Said {
        pause: ms.map(|ms| clamped(ms / 1000.0)),
        errcode: body.errcode.and_then(|code| code.as_str().map(ToOwned::to_owned)),
    }
}

/// A decimal number: digits with a sign and a fraction, and no other form that a float may have.
fn number(text: &str) -> Option<f64> {
    let is_one = text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'));
    text.parse().ok().filter(|_| is_one)
}

fn clamped(seconds: f64) -> Duration {
    // Not a number cannot come here, and would be no time at all.
    Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST.as_secs_f64())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(headers: &[&str], body: &str) -> Option<Duration> {
        let mut response = http::Response::new(Bytes::copy_from_slice(body.as_bytes()));
        for header in headers {
            response.headers_mut().append(RETRY_AFTER, header.parse().unwrap());
        }
        named_pause(&response)
    }

    fn from_now(seconds: u64) -> String {
        httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds))
    }

    const MS: fn(u64) -> Option<Duration> = |ms| Some(Duration::from_millis(ms));

    #[test]
    fn nw_01_every_form_of_the_header_is_read_and_clamped() {
        for (header, pause) in [
            ("2", MS(2000)),
            (" 2 ", MS(2000)),
            ("+2", MS(2000)),
            ("0", MS(0)),
            ("1.5", MS(1500)),
            (".5", MS(500)),
            ("-1", MS(0)),
            ("-99999999999999999999999", MS(0)),
            ("86401", Some(LONGEST)),
            ("99999999999999999999999999999", Some(LONGEST)),
            ("soon", None),
            ("", None),
            ("NaN", None),
            ("inf", None),
            ("1e3", None),
            ("1.2.3", None),
            ("--", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", MS(0)),
            ("Wednesday, 21-Oct-15 07:28:00 GMT", MS(0)),
            ("Wed Oct 21 07:28:00 2015", MS(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LONGEST)),
            ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ] {
            assert_eq!(named(&[header], "{}"), pause, "{header:?}");
        }
        let date = named(&[&from_now(100)], "{}").unwrap();
        assert!((98..=100).contains(&date.as_secs()), "{date:?}");
        assert_eq!(
            named(&["1", "nonsense", "3", "2"], "{}"),
            MS(3000),
            "the longest counts"
        );
    }

    #[test]
    fn nw_01_a_date_is_compared_with_the_clock_that_wrote_it() {
        let told = |date: &str| {
            let mut response = http::Response::new(Bytes::new());
            let at = "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap();
            response.headers_mut().insert(RETRY_AFTER, at);
            response.headers_mut().insert(DATE, date.parse().unwrap());
            named_pause(&response)
        };
        assert_eq!(told("Wed, 21 Oct 2015 07:27:30 GMT"), MS(30_000));
        assert_eq!(told("Wed, 21 Oct 2015 07:28:30 GMT"), MS(0));
        assert_eq!(told("nonsense"), MS(0), "our own clock is far beyond it");
    }

    #[test]
    fn nw_02_every_form_of_the_body_is_read_and_clamped() {
        for (body, pause) in [
            (r#"{"retry_after_ms":1500}"#, MS(1500)),
            (r#"{"retry_after_ms":1500.0}"#, MS(1500)),
            (r#"{"retry_after_ms":1.5e3}"#, MS(1500)),
            (r#"{"retry_after_ms":"1500"}"#, MS(1500)),
            (r#"{"retry_after_ms":-1}"#, MS(0)),
            (r#"{"retry_after_ms":1e300}"#, Some(LONGEST)),
            (r#"{"retry_after_ms":18446744073709551616}"#, Some(LONGEST)),
            (r#"{"retry_after_ms":null}"#, None),
            (r#"{"retry_after_ms":[1500]}"#, None),
            (r#"{"retry_after_ms":"soon"}"#, None),
            (r#"{"retry_after_ms":true}"#, None),
            (r#"{"errcode":"M_LIMIT_EXCEEDED"}"#, None),
            (r#"[{"retry_after_ms":1500}]"#, None),
            ("<html>429</html>", None),
            ("", None),
        ] {
            assert_eq!(named(&[], body), pause, "{body}");
        }
        let long = format!(r#"{{"retry_after_ms":1500,"error":"{}"}}"#, "x".repeat(MAX_BODY_BYTES));
        assert_eq!(named(&[], &long), None, "an answer of another kind");
    }

    #[test]
    fn nw_03_the_header_goes_before_the_body_and_nonsense_before_nothing() {
        let body = r#"{"retry_after_ms":1500}"#;
        assert_eq!(named(&["7"], body), MS(7000));
        assert_eq!(named(&["1"], body), MS(1000));
        assert_eq!(named(&["0"], body), MS(0));
        assert_eq!(named(&["nonsense"], body), MS(1500));
    }
}
