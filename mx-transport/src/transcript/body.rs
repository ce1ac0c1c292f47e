//! A body in a transcript: as it was, but for its secrets.

use ruma::serde::{Base64, base64::Standard};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

/// What stands instead of a secret. It may be a token, as far as HTTP knows.
const TAKEN_OUT: &str = "taken-out";

/// Names whose values are secrets, in any spelling of case.
const SECRETS: [&str; 24] = [
    "access_token",
    "as_token",
    "hs_token",
    "refresh_token",
    "login_token",
    "logintoken",
    "id_token",
    "token",
    "password",
    "new_password",
    "old_password",
    "secret",
    "client_secret",
    "code",
    "device_code",
    "user_code",
    "code_verifier",
    "session",
    "sid",
    "registration_token",
    "recovery_key",
    "private_key",
    "passphrase",
    "signature",
];

/// A body in a transcript. `Nothing`: it is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Body {
    #[default]
    Nothing,
    Text(String),
    Json(Value),
    Form(Vec<(String, String)>),
    Base64(String),
}

impl Body {
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(super) fn of(bytes: &[u8], content_type: Option<&str>) -> Self {
        if bytes.is_empty() {
            return Self::Nothing;
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Self::Base64(Base64::<Standard, _>::new(bytes).encode());
        };
        if content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
            return Self::Form(pairs(text));
        }
        let Ok(mut json) = serde_json::from_str(text) else {
            return Self::Text(text.to_owned());
        };
        if take_out(&mut json) {
            Self::Json(json)
        } else {
            Self::Text(text.to_owned())
        }
    }

    /// The bytes, as far as they are known.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Nothing => Some(Vec::new()),
            Self::Text(text) => Some(text.as_bytes().to_vec()),
            Self::Json(json) => serde_json::to_vec(json).ok(),
            Self::Form(pairs) => {
                let form = form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish();
                Some(form.into_bytes())
            }
            Self::Base64(text) => Base64::<Standard>::parse(text).ok().map(Base64::into_inner),
        }
    }
}

/// A query or a form, without its secrets.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(text.as_bytes());
    pairs
        .map(|(name, value)| {
            let value = if is_secret(&name) {
                TAKEN_OUT.to_owned()
            } else {
                value.into_owned()
            };
            (name.into_owned(), value)
        })
        .collect()
}

fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// Take secrets out. Whether there was one.
fn take_out(json: &mut Value) -> bool {
    match json {
        Value::Array(values) => values.iter_mut().fold(false, |found, value| take_out(value) | found),
        Value::Object(fields) => fields.iter_mut().fold(false, |found, (name, value)| {
            // Signatures of keys are objects, and no secrets; so are sessions of sessions.
            if value.is_string() && is_secret(name) {
                *value = TAKEN_OUT.into();
                return true;
            }
            take_out(value) | found
        }),
        _ => false,
    }
}
