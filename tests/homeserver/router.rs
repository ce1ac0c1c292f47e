//! From a method and a path to the endpoint that answers.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::{
    reply::{Refusal, Reply},
    state::{Session, State},
    sync,
};

/// A request, taken apart.
pub(crate) struct Parts {
    pub(crate) method: Method,
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) token: Option<String>,
    pub(crate) body: Value,
}

impl Parts {
    pub(crate) fn of(request: &http::Request<Bytes>) -> Self {
        let decode = |text: &str| percent_decoded(text);
        let query = request.uri().query().unwrap_or_default();
        let token = request
            .headers()
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        Self {
            method: request.method().clone(),
            path: request.uri().path().trim_matches('/').split('/').map(decode).collect(),
            query: query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
                .collect(),
            token: token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned),
            body: serde_json::from_slice(request.body()).unwrap_or(Value::Null),
        }
    }

    /// The path after `/_matrix/client/<version>/`.
    fn endpoint(&self) -> Vec<&str> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["_matrix", "client", "versions"] => vec!["versions"],
            ["_matrix", "client", "r0" | "v1" | "v3" | "unstable", rest @ ..] => rest.to_vec(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.endpoint() == ["sync"]
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: Vec<u8> = rest.by_ref().take(2).collect();
            let digits = String::from_utf8_lossy(&digits).into_owned();
            bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl State {
    /// Whose request this is.
    pub(crate) fn session(&self, parts: &Parts) -> Result<Session, Refusal> {
        let token = parts
            .token
            .as_deref()
            .ok_or_else(|| Refusal::new(401, "M_MISSING_TOKEN", "Missing access token"))?;
        let mut unknown = Refusal::new(401, "M_UNKNOWN_TOKEN", "Invalid access token passed.");
        let session = self.tokens.get(token).cloned().ok_or(Refusal {
            status: 401,
            body: unknown.body.clone(),
        })?;
        if let Some(soft) = session.expired {
            unknown.body["soft_logout"] = soft.into();
            return Err(unknown);
        }
        Ok(session)
    }

    /// Answer a request.
    pub(crate) fn answer(&mut self, parts: &Parts) -> Reply {
        let endpoint = parts.endpoint();
        match (parts.method.as_str(), endpoint.as_slice()) {
            ("GET", ["versions"]) => Ok(json!({"versions": ["v1.1", "v1.5", "v1.11"], "unstable_features": {}})),
            ("GET", ["login"]) => Ok(json!({"flows": [{"type": "m.login.password"}]})),
            ("POST", ["login"]) => self.login(&parts.body),
            ("POST", ["register"]) => self.register(&parts.body),
            _ => {
                let session = self.session(parts)?;
                self.answer_for(&session, parts, &endpoint)
            }
        }
    }

    fn answer_for(&mut self, session: &Session, parts: &Parts, endpoint: &[&str]) -> Reply {
        let body = &parts.body;
        match (parts.method.as_str(), endpoint) {
            ("GET", ["sync"]) => sync::reply(self.sync(session, &parts.query)),
            ("POST", ["logout"]) => self.logout(session),
            ("GET", ["account", "whoami"]) => {
                Ok(json!({"user_id": session.user, "device_id": session.device, "is_guest": false}))
            }
            ("GET", ["devices"]) => self.devices(session),
            ("DELETE", ["devices", device]) => self.delete_device(session, device, body),
            ("POST", ["user", _, "filter"]) => self.put_filter(session, body.clone()),
            ("POST", ["keys", "upload"]) => self.upload_keys(session, body),
            ("POST", ["keys", "query"]) => self.query_keys(session, body),
            ("POST", ["keys", "claim"]) => self.claim_keys(body),
            ("POST", ["keys", "device_signing", "upload"]) => self.upload_signing_keys(session, body),
            ("POST", ["keys", "signatures", "upload"]) => self.upload_signatures(session, body),
            ("PUT", ["sendToDevice", kind, transaction]) => self.send_to_device(session, kind, transaction, body),
            ("POST", ["createRoom"]) => self.create_room(session, body),
            ("POST", ["join", room] | ["rooms", room, "join"]) => self.join(session, room),
            ("POST", ["rooms", room, "leave"]) => self.leave(session, room),
            ("POST", ["rooms", _, "forget"]) => Ok(json!({})),
            ("POST", ["rooms", room, what @ ("invite" | "kick" | "ban" | "unban")]) => {
                self.moderate(session, room, what, body)
            }
            ("GET", ["joined_rooms"]) => self.joined_rooms(session),
            ("GET", ["rooms", room, "members"]) => self.members(session, room, &parts.query),
            ("GET", ["rooms", room, "joined_members"]) => self.joined_members(session, room),
            ("GET", ["rooms", room, "state"]) => self.all_state(session, room),
            ("GET", ["rooms", room, "state", kind]) => self.get_state(session, room, kind, ""),
            ("GET", ["rooms", room, "state", kind, key]) => self.get_state(session, room, kind, key),
            ("PUT", ["rooms", room, "state", kind]) => self.put_state(session, room, kind, "", body.clone()),
            ("PUT", ["rooms", room, "state", kind, key]) => self.put_state(session, room, kind, key, body.clone()),
            ("PUT", ["rooms", room, "send", kind, transaction]) => {
                self.send(session, room, kind, transaction, body.clone())
            }
            ("GET", ["rooms", room, "event", event]) => self.event(session, room, event),
            ("GET", ["rooms", room, "messages"]) => self.messages(session, room, &parts.query),
            ("GET", ["directory", "room", alias]) => match self.aliases.get(*alias) {
                Some(room) => Ok(json!({"room_id": room, "servers": [self.server_name]})),
                None => Err(Refusal::not_found("Room alias not found")),
            },
            _ => Err(Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }
}
