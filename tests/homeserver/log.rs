//! What went over the wire, without what must stay secret.

use serde_json::Value;

/// One request and its answer. Tokens and passwords are replaced by `<hidden>`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use mx_test_homeserver::Homeserver;
/// # let server = Homeserver::new();
///
/// # use mx_test_homeserver::EvilPeer;
/// # let mut peer = EvilPeer::new(&server, "alice", "PHONE");
/// # peer.publish();
/// let uploads: Vec<_> = server.log().into_iter().filter(|exchange| exchange.path.ends_with("/keys/upload")).collect();
/// assert_eq!(uploads.len(), 1);
/// assert_eq!((uploads[0].device.as_deref(), uploads[0].status), (Some("PHONE"), Some(200)));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// The method, as in `PUT`.
    pub method: String,
    /// The path as it was sent, without the query.
    pub path: String,
    /// The query's names and values, decoded, without an access token.
    pub query: Vec<(String, String)>,
    /// Whose request it was. `None`: the token was missing or unknown.
    pub user: Option<String>,
    /// From which device.
    pub device: Option<String>,
    /// What was sent: JSON, a string where it is none, `null` where it is empty. Of a file only its length.
    pub request_body: Value,
    /// The status. `None`: no answer arrived.
    pub status: Option<u16>,
    /// What was answered, like `request_body`.
    pub response_body: Value,
}

/// A body for the log.
pub(crate) fn readable(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    let mut value =
        serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
    hide_secrets(&mut value);
    value
}

fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "access_token" | "refresh_token" | "password" | "token" | "device_code" if field.is_string() => {
                        *field = "<hidden>".into()
                    }
                    _ => hide_secrets(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::readable;
    use serde_json::json;

    #[test]
    fn secrets_are_hidden_at_any_depth() {
        let body = br#"{"auth":{"type":"m.login.password","password":"p"},"list":[{"access_token":"t"}]}"#;
        let hidden = json!({"auth": {"type": "m.login.password", "password": "<hidden>"}, "list": [{"access_token": "<hidden>"}]});
        assert_eq!(readable(body), hidden);
        assert_eq!(readable(b""), json!(null));
        assert_eq!(readable(b"not json"), json!("not json"));
    }
}
