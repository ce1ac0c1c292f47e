//! I3 and I4: what must stay secret is in no request.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Call, Found, Invariant, Owner};
use crate::{router::Parts, state::State};

/// Events that stay readable in an encrypted room by the specification.
const READABLE: [&str; 2] = ["m.room.redaction", "m.reaction"];

/// What is looked for in every request.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    guarded: BTreeSet<(Invariant, String)>,
    /// Every token that was ever handed out, but for those of devices that misbehave on purpose: nobody else has them.
    tokens: BTreeSet<String>,
}

impl Secrets {
    pub(super) fn guard(&mut self, invariant: Invariant, secret: &str) {
        if !secret.is_empty() {
            self.guarded.insert((invariant, secret.to_owned()));
        }
    }

    pub(super) fn request(&mut self, state: &State, parts: &Parts, exempt: &BTreeSet<Owner>) -> Found {
        let access = state.tokens.iter();
        let access = access.map(|(token, session)| (token, &session.user, &session.device));
        let refresh = state.refresh_tokens.iter();
        let refresh = refresh.map(|(token, renewable)| (token, &renewable.user, &renewable.device));
        for (token, user, device) in access.chain(refresh) {
            let is_exempt = || exempt.contains(&(user.clone(), device.clone()));
            if !self.tokens.contains(token) && !is_exempt() {
                self.tokens.insert(token.clone());
            }
        }
        let address = parts.request.uri().to_string();
        let mut readable = address.clone();
        readable.extend(parts.path.iter().map(String::as_str));
        readable.extend(parts.query.iter().map(|(_, value)| value.as_str()));
        let mut found = Found::new();
        let guarded = self.guarded.iter().map(|(invariant, secret)| (*invariant, secret));
        let tokens = self.tokens.iter().map(|token| (Invariant::I4, token));
        for (invariant, secret) in guarded.chain(tokens) {
            let what = if invariant == Invariant::I3 {
                "a guarded plaintext"
            } else {
                "a token or a key"
            };
            if readable.contains(secret.as_str()) {
                found.push((invariant, format!("{what} is in the address of {}", place(parts))));
            }
            // The one place where one belongs.
            let renews = parts.endpoint() == ["refresh"] && parts.body == json!({"refresh_token": secret})
                || matches!(parts.path.as_slice(), [oauth, what] if oauth == "oauth" && (what == "token" || what == "revoke"));
            if contains(parts.request.body(), secret.as_bytes()) && !renews {
                found.push((invariant, format!("{what} is in the body of {}", place(parts))));
            }
        }
        found
    }
}

/// An event that everybody can read goes into a room that is encrypted.
pub(super) fn plaintext(call: &Call<'_>) -> Found {
    let Some((room, kind, _)) = call.event_put() else {
        return Found::new();
    };
    let encrypted = call
        .state
        .rooms
        .get(room)
        .is_some_and(|known| known.content("m.room.encryption", "").is_some());
    if !encrypted || kind == "m.room.encrypted" || READABLE.contains(&kind) {
        return Found::new();
    }
    vec![(
        Invariant::I3,
        format!("{kind} goes into the encrypted room {room} as plaintext"),
    )]
}

/// The request, without what could be secret.
fn place(parts: &Parts) -> String {
    let endpoint = parts.endpoint();
    format!("{} /{}", parts.method, endpoint.first().copied().unwrap_or_default())
}

/// Whether `text` holds `part`.
pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    match (std::str::from_utf8(text), std::str::from_utf8(part)) {
        // The standard library searches text fast, also where this is a debug build.
        (Ok(text), Ok(part)) => !part.is_empty() && text.contains(part),
        _ => !part.is_empty() && text.windows(part.len()).any(|window| window == part),
    }
}
