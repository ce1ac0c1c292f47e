//! A body in a transcript: as it was, but for its secrets.

use ruma::serde::{Base64, base64::Standard};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

/// What stands instead of a secret. It may be a token, as far as HTTP knows.
const TAKEN_OUT: &str = "taken-out";

/// Names whose values are secrets, in any spelling of case.
const SECRETS: [&str; 13] = [
    "secret",
    "code",
    "code_verifier",
    "session",
    "sid",
    "recovery_key",
    "private_key",
    "client_key",
    "passphrase",
    "signature",
    "verification_uri_complete",
    "cookie",
    "authorization",
];

/// How such names end: `access_token`, `loginToken`, `client_secret`, `device_code`, `new_password`, `client_assertion`.
const SECRET_ENDS: [&str; 5] = ["token", "_secret", "_code", "password", "assertion"];

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
    /// It was this long, and may have held anything.
    Length(usize),
}

/// What becomes of a body that is neither JSON nor a form: nobody can tell what in it is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opaque {
    /// Its length is kept: an answer that was cut may hold half a login.
    Left,
    /// It is kept, as a file's content is.
    Kept,
}

/// Of a body that was left out, no more than this is made up again, in bytes.
const MOST_MADE_UP: usize = 1024 * 1024;

impl Body {
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(super) fn of(bytes: &[u8], content_type: Option<&str>, opaque: Opaque) -> Self {
        if bytes.is_empty() {
            return Self::Nothing;
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return match opaque {
                Opaque::Left => Self::Length(bytes.len()),
                Opaque::Kept => Self::Base64(Base64::<Standard, _>::new(bytes).encode()),
            };
        };
        if content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
            return Self::Form(pairs(text));
        }
        let Ok(mut json) = serde_json::from_str(text) else {
            return match opaque {
                Opaque::Left => Self::Length(bytes.len()),
                Opaque::Kept => Self::Text(text.to_owned()),
            };
        };
        if take_out(&mut json) {
            Self::Json(json)
        } else {
            Self::Text(text.to_owned())
        }
    }

    /// The bytes, as far as they are known: what was left out is blank, and as unreadable.
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
            Self::Length(bytes) => Some(vec![b' '; (*bytes).min(MOST_MADE_UP)]),
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
    let name = name.to_ascii_lowercase();
    SECRETS.contains(&name.as_str()) || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

/// Take secrets out. Whether there was one.
fn take_out(json: &mut Value) -> bool {
    match json {
        Value::Array(values) => values.iter_mut().fold(false, |found, value| take_out(value) | found),
        Value::Object(fields) => fields.iter_mut().fold(false, |found, (name, value)| {
            // Whatever it is: a list of tokens, or what somebody wraps one in.
            if is_secret(name) && !matches!(value, Value::Null | Value::Bool(_)) {
                *value = TAKEN_OUT.into();
                return true;
            }
            take_out(value) | found
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        serde_json::to_string(&Body::of(text.as_bytes(), None, Opaque::Left)).unwrap()
    }

    #[test]
    fn nw_31_a_secret_is_taken_out_whatever_it_is_called_and_wrapped_in() {
        for name in [
            "access_token",
            "registration_access_token",
            "loginToken",
            "Refresh_Token",
            "client_secret",
            "device_code",
            "user_code",
            "new_password",
            "assertion",
            "client_assertion",
            "verification_uri_complete",
            "signature",
        ] {
            for value in [
                json_of("secret-value"),
                serde_json::json!(["secret-value", {"x": "secret-value"}]),
                serde_json::json!({"value": "secret-value"}),
            ] {
                for body in [
                    serde_json::json!({name: value}),
                    serde_json::json!({"a": [{"b": {name: value}}]}),
                ] {
                    let kept = kept(&body.to_string());
                    assert!(!kept.contains("secret-value") && kept.contains(TAKEN_OUT), "{kept}");
                }
            }
            let form = format!("x=1&{name}=secret-value");
            assert!(pairs(&form).iter().all(|(_, value)| value != "secret-value"), "{name}");
        }
        for harmless in [
            r#"{"errcode":"M_UNKNOWN","signatures":{"@a:b":{"k":"v"}}}"#,
            r#"{"soft_token":true}"#,
        ] {
            assert!(!kept(harmless).contains(TAKEN_OUT), "{harmless}");
        }
    }

    fn json_of(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn nw_31_what_cannot_be_read_is_left_out_but_for_its_length() {
        let cut = r#"{"user_id":"@a:hs.test","access_token":"secret-value","dev"#;
        let broken = [b"{\"access_token\":\"secret-value\xff".as_slice(), b"\"}"].concat();
        for bytes in [cut.as_bytes(), &broken, b"Bearer secret-value"] {
            let body = Body::of(bytes, Some("application/json"), Opaque::Left);
            assert_eq!(body, Body::Length(bytes.len()));
            assert_eq!(body.bytes().unwrap().len(), bytes.len());
        }
        assert_eq!(Body::of(cut.as_bytes(), None, Opaque::Kept), Body::Text(cut.to_owned()));
        assert_eq!(Body::Length(usize::MAX).bytes().unwrap().len(), MOST_MADE_UP);
    }
}
