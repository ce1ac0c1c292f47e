//! The same as a page that needs nothing beside itself: no script, nothing fetched, everything from the network escaped.
//!
//! # Why a policy in the page
//! It may be opened from anywhere. Should text ever get past the escaping, `Content-Security-Policy` lets it do nothing.

use std::fmt::Write as _;

use mx_e2ee::{Outlook, Reader, ReaderDevice, ReaderIdentity, ReaderTrust};

use super::{Shown, age, care};
use crate::output::clean;

const STYLE: &str = include_str!("page.css");

/// Text from anywhere as text of a page: nothing in it is markup, and nothing in it hides or turns the rest.
fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for char in clean(raw).chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            char => safe.push(char),
        }
    }
    safe
}

pub(super) fn of(shown: &Shown) -> String {
    let readers = &shown.readers;
    let room = readers.room_id.as_str();
    let name = shown.name.as_deref().unwrap_or(room);
    let (can, all) = shown.counts();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>Who can read {title}</title><style>{STYLE}</style></head><body><main>\n\
         <header><p class=\"kicker\">Who can read the next message</p><h1><bdi>{title}</bdi></h1>\n\
         <p class=\"id\"><bdi>{id}</bdi></p></header>\n",
        title = text(name),
        id = text(room),
    );
    let verdict = if !readers.refused.is_empty() {
        ("bad", "A message would be refused")
    } else if !readers.encrypted {
        ("bad", "Not encrypted: everybody can read it, the homeserver too")
    } else if can < all {
        ("warn", "A message would be sent, and not every device can read it")
    } else {
        ("good", "A message would be sent, and every device can read it")
    };
    push(
        &mut page,
        format_args!(
            "<section class=\"verdict {}\"><strong>{}</strong>",
            verdict.0, verdict.1
        ),
    );
    push(
        &mut page,
        format_args!("<span>{can} of {all} devices</span></section>\n"),
    );
    facts(&mut page, shown);
    for (kind, refusals) in [("bad", &readers.refused), ("warn", &readers.warnings)] {
        for refusal in refusals {
            let (code, advice) = (text(refusal.code), text(&refusal.advice));
            push(
                &mut page,
                format_args!("<p class=\"notice {kind}\"><code>{code}</code> {advice}</p>\n"),
            );
        }
    }
    page.push_str("<ul class=\"users\">\n");
    for reader in &readers.users {
        user(&mut page, shown, reader);
    }
    page.push_str(
        "</ul>\n<footer>Names are what people and devices call themselves: anybody can be called anything. \
                   Compare fingerprints by another way.</footer></main></body></html>\n",
    );
    page
}

/// Writing into a string does not fail.
fn push(page: &mut String, what: std::fmt::Arguments<'_>) {
    let _written = page.write_fmt(what);
}

fn facts(page: &mut String, shown: &Shown) {
    let readers = &shown.readers;
    page.push_str("<dl>");
    let mut fact = |name: &str, value: &str| {
        push(page, format_args!("<div><dt>{name}</dt><dd>{}</dd></div>", text(value)));
    };
    fact("Sending", care(readers.recipients));
    if let Some(key) = &readers.key {
        let since = key.since_ms.map(|since| age(shown.now_ms.saturating_sub(since)));
        let since = since.unwrap_or_else(|| "unknown".to_owned());
        fact("Room key’s age", &format!("{since} of {}", age(key.period_ms)));
        fact(
            "Messages with it",
            &format!("{} of {}", key.messages, key.most_messages),
        );
    }
    if let Some(reason) = readers.renewal {
        fact("Next message", &format!("gets a new room key: {}", reason.describe()));
    }
    page.push_str("</dl>\n");
}

fn user(page: &mut String, shown: &Shown, reader: &Reader) {
    let called = shown.names.get(&reader.user_id).map(String::as_str);
    push(
        page,
        format_args!(
            "<li><div class=\"who\"><h2><bdi>{}</bdi></h2>",
            text(called.unwrap_or(reader.user_id.as_str()))
        ),
    );
    push(
        page,
        format_args!("<span class=\"id\"><bdi>{}</bdi></span>", text(reader.user_id.as_str())),
    );
    let identity = match reader.identity {
        ReaderIdentity::Verified => "good",
        ReaderIdentity::Replaced => "bad",
        _ => "plain",
    };
    for about in shown.about(reader) {
        let kind = if about == reader.identity.describe() {
            identity
        } else if about == "ourselves" {
            "plain"
        } else {
            "bad"
        };
        push(
            page,
            format_args!("<span class=\"tag {kind}\">{}</span>", text(&about.to_lowercase())),
        );
    }
    page.push_str("</div>");
    if !reader.devices.is_empty() {
        page.push_str("<ul class=\"devices\">");
        for one in &reader.devices {
            device(page, one);
        }
        page.push_str("</ul>");
    }
    page.push_str("</li>\n");
}

fn device(page: &mut String, device: &ReaderDevice) {
    let can = device.outlook.can_read();
    let (kind, mark) = if can { ("good", "✓") } else { ("bad", "✗") };
    push(
        page,
        format_args!(
            "<li class=\"{kind}\"><span class=\"mark\" role=\"img\" aria-label=\"{}\">{mark}</span><div><p><code><bdi>{}</bdi></code>",
            if can { "can read" } else { "cannot read" },
            text(device.device_id.as_str())
        ),
    );
    if let Some(name) = &device.name {
        push(page, format_args!(" <bdi>{}</bdi>", text(name)));
    }
    let trust = match device.trust {
        ReaderTrust::Verified | ReaderTrust::Trusted => "good",
        ReaderTrust::Blocked | ReaderTrust::Unusable => "bad",
        _ => "plain",
    };
    if device.outlook != Outlook::ThisDevice {
        push(
            page,
            format_args!(" <span class=\"tag {trust}\">{}</span>", text(device.trust.describe())),
        );
    }
    push(
        page,
        format_args!("</p><p class=\"why\">{}</p>", text(device.outlook.describe())),
    );
    if let Some(fingerprint) = &device.ed25519 {
        push(page, format_args!("<p class=\"fingerprint\">{}</p>", text(fingerprint)));
    }
    page.push_str("</div></li>");
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn nothing_from_the_network_is_markup_or_turns_the_page() {
        let said = text("<script>alert('x')</script> & \"q\" \u{202e}evil\u{1b}[31m\n");
        assert_eq!(
            said,
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;q&quot; \\u{202e}evil\\u{1b}[31m␤"
        );
    }
}
