//! From a method and a path to the endpoint that answers.

use bytes::Bytes;
use http::Method;
use ruma::api::{
    IncomingRequest, IncomingResponse, OutgoingRequest,
    client::{
        account::{register, whoami},
        alias::get_alias,
        backup::{
            add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session, create_backup_version,
            delete_backup_version, get_backup_info, get_backup_keys, get_backup_keys_for_room,
            get_backup_keys_for_session, get_latest_backup_info, update_backup_version,
        },
        config::{get_global_account_data, set_global_account_data},
        device::{delete_device, get_devices, update_device},
        discovery::get_supported_versions,
        filter::create_filter,
        keys::{claim_keys, get_keys, upload_keys, upload_signatures, upload_signing_keys},
        membership::{
            forget_room, get_member_events, invite_user, join_room_by_id, join_room_by_id_or_alias, joined_members,
            joined_rooms, kick_user, leave_room,
        },
        message::{get_message_events, send_message_event},
        redact::redact_event,
        room::{create_room, get_room_event},
        session::{get_login_types, login, logout, refresh_token},
        state::{get_state_event_for_key, get_state_events, send_state_event},
        sync::sync_events,
        to_device::send_event_to_device,
    },
};
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
    pub(crate) request: http::Request<Bytes>,
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
            request: request.clone(),
        }
    }

    /// The path after `/_matrix/client/<version>/`; that of an upload as it would be there.
    pub(crate) fn endpoint(&self) -> Vec<&str> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["_matrix", "client", "versions"] => vec!["versions"],
            [".well-known", "matrix", "client"] => vec![".well-known"],
            ["_matrix", "client", "unstable", "org.matrix.msc2965", "auth_metadata"] => vec!["auth_metadata"],
            ["_matrix", "media", "v3", "upload"] => vec!["media", "upload"],
            ["_matrix", "client", "r0" | "v1" | "v3" | "unstable", rest @ ..] => rest.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Answer a request of the endpoint `R`: the request has to be one, and the answer has to be one that ruma's clients
    /// read. `arguments` are those of the endpoint's path.
    pub(crate) fn typed<R>(&self, arguments: &[&str], answer: impl FnOnce() -> Reply) -> Reply
    where
        R: IncomingRequest + OutgoingRequest,
    {
        R::try_from_http_request(self.request.clone(), arguments)
            .map_err(|error| Refusal::bad_json(&error.to_string()))?;
        let answer = answer()?;
        let response = http::Response::new(answer.to_string().into_bytes());
        match <R as OutgoingRequest>::IncomingResponse::try_from_http_response(response) {
            Ok(_) => Ok(answer),
            Err(error) => Err(Refusal::new(
                500,
                "M_UNKNOWN",
                &format!("not an answer of this endpoint: {error}"),
            )),
        }
    }

    pub(crate) fn is_sliding(&self) -> bool {
        self.endpoint() == ["org.matrix.simplified_msc3575", "sync"]
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.endpoint() == ["sync"]
    }
}

pub(crate) fn percent_decoded(text: &str) -> String {
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
        if let Some(asserted) = self.asserted(parts) {
            return asserted;
        }
        let token = parts
            .token
            .as_deref()
            .ok_or_else(|| Refusal::new(401, "M_MISSING_TOKEN", "Missing access token"))?;
        let mut unknown = Refusal::new(401, "M_UNKNOWN_TOKEN", "Invalid access token passed.");
        let session = self.tokens.get(token).cloned().ok_or(Refusal {
            status: 401,
            body: unknown.body.clone(),
        })?;
        let ran_out = session.expires_at_ms.filter(|end| *end <= self.now()).map(|_| true);
        if let Some(soft) = session.expired.or(ran_out) {
            unknown.body["soft_logout"] = soft.into();
            return Err(unknown);
        }
        Ok(session)
    }

    /// Answer a request.
    pub(crate) fn answer(&mut self, parts: &Parts) -> Reply {
        let endpoint = parts.endpoint();
        match (parts.method.as_str(), endpoint.as_slice()) {
            ("GET", ["versions"]) => parts.typed::<get_supported_versions::Request>(&[], || {
                Ok(json!({"versions": ["v1.1", "v1.5", "v1.11", "v1.15"], "unstable_features": {"org.matrix.simplified_msc3575": self.slides}}))
            }),
            ("GET", ["login"]) => parts.typed::<get_login_types::v3::Request>(&[], || self.login_types()),
            ("GET", ["auth_metadata"]) => self.authorization_metadata(),
            ("GET", [".well-known"]) => self
                .well_known
                .clone()
                .ok_or_else(|| Refusal::not_found("There is no such page")),
            ("GET", ["directory", "room", alias]) => {
                parts.typed::<get_alias::v3::Request>(&[alias], || match self.aliases.get(*alias) {
                    Some(room) => Ok(json!({"room_id": room, "servers": [self.server_name]})),
                    None => Err(Refusal::not_found("Room alias not found")),
                })
            }
            ("POST", ["login"]) => parts.typed::<login::v3::Request>(&[], || self.login(parts)),
            ("POST", ["refresh"]) => parts.typed::<refresh_token::v3::Request>(&[], || self.refresh(&parts.body)),
            ("POST", ["register"]) => parts.typed::<register::v3::Request>(&[], || self.register(parts)),
            _ => {
                let session = self.session(parts)?;
                self.token_is_used(parts.token.as_deref(), None);
                self.of_account(&session, parts, &endpoint)
            }
        }
    }

    /// What belongs to an account and its devices.
    fn of_account(&mut self, session: &Session, parts: &Parts, endpoint: &[&str]) -> Reply {
        let body = &parts.body;
        match (parts.method.as_str(), endpoint) {
            ("GET", ["sync"]) => {
                parts.typed::<sync_events::v3::Request>(&[], || sync::reply(self.sync(session, &parts.query)))
            }
            ("POST", ["org.matrix.simplified_msc3575", "sync"]) => parts.typed::<sync_events::v5::Request>(&[], || {
                sync::reply(self.sliding(session, &parts.query, body, false))
            }),
            ("POST", ["logout"]) => parts.typed::<logout::v3::Request>(&[], || self.logout(session)),
            ("GET", ["account", "whoami"]) => parts.typed::<whoami::v3::Request>(&[], || {
                let mut who = json!({"user_id": session.user, "is_guest": false});
                if !session.device.is_empty() {
                    who["device_id"] = session.device.clone().into();
                }
                Ok(who)
            }),
            ("GET", ["devices"]) => parts.typed::<get_devices::v3::Request>(&[], || self.devices(session)),
            ("PUT", ["devices", device]) => {
                parts.typed::<update_device::v3::Request>(&[device], || self.put_device(session, parts, device, body))
            }
            ("DELETE", ["devices", device]) => {
                parts.typed::<delete_device::v3::Request>(&[device], || self.delete_device(session, parts, device))
            }
            ("POST", ["user", user, "filter"]) => {
                parts.typed::<create_filter::v3::Request>(&[user], || self.put_filter(session, body.clone()))
            }
            ("POST", ["keys", "upload"]) => {
                parts.typed::<upload_keys::v3::Request>(&[], || self.upload_keys(session, body))
            }
            ("POST", ["keys", "query"]) => parts.typed::<get_keys::v3::Request>(&[], || self.query_keys(session, body)),
            ("POST", ["keys", "claim"]) => parts.typed::<claim_keys::v3::Request>(&[], || self.claim_keys(body)),
            ("POST", ["keys", "device_signing", "upload"]) => {
                parts.typed::<upload_signing_keys::v3::Request>(&[], || self.upload_signing_keys(session, body))
            }
            ("POST", ["keys", "signatures", "upload"]) => {
                parts.typed::<upload_signatures::v3::Request>(&[], || self.upload_signatures(body))
            }
            ("PUT", ["sendToDevice", kind, transaction]) => parts
                .typed::<send_event_to_device::v3::Request>(&[kind, transaction], || {
                    self.send_to_device(session, kind, transaction, body)
                }),
            ("PUT", ["user", user, "account_data", kind]) => parts
                .typed::<set_global_account_data::v3::Request>(&[user, kind], || {
                    self.put_account_data(session, user, kind, body)
                }),
            ("GET", ["user", user, "account_data", kind]) => parts
                .typed::<get_global_account_data::v3::Request>(&[user, kind], || {
                    self.account_data(session, user, kind)
                }),
            (_, ["room_keys", ..]) => self.of_backups(session, parts, endpoint),
            (_, ["org.matrix.msc3814.v1", "dehydrated_device", rest @ ..]) => self.of_dehydrated(session, parts, rest),
            (_, ["media", ..]) => self.of_media(parts, endpoint),
            _ => self.of_rooms(session, parts, endpoint),
        }
    }

    /// The key backup.
    fn of_backups(&mut self, session: &Session, parts: &Parts, endpoint: &[&str]) -> Reply {
        let body = &parts.body;
        match (parts.method.as_str(), endpoint) {
            ("POST", ["room_keys", "version"]) => {
                parts.typed::<create_backup_version::v3::Request>(&[], || self.create_backup(session, body))
            }
            ("GET", ["room_keys", "version"]) => {
                parts.typed::<get_latest_backup_info::v3::Request>(&[], || self.backup(session, None))
            }
            ("GET", ["room_keys", "version", version]) => {
                parts.typed::<get_backup_info::v3::Request>(&[version], || self.backup(session, Some(version)))
            }
            ("PUT", ["room_keys", "version", version]) => parts
                .typed::<update_backup_version::v3::Request>(&[version], || self.update_backup(session, version, body)),
            ("DELETE", ["room_keys", "version", version]) => {
                parts.typed::<delete_backup_version::v3::Request>(&[version], || self.delete_backup(session, version))
            }
            ("PUT", ["room_keys", "keys", path @ ..]) => {
                let put = || self.put_room_keys(session, parts, path);
                match path.len() {
                    0 => parts.typed::<add_backup_keys::v3::Request>(path, put),
                    1 => parts.typed::<add_backup_keys_for_room::v3::Request>(path, put),
                    _ => parts.typed::<add_backup_keys_for_session::v3::Request>(path, put),
                }
            }
            ("GET", ["room_keys", "keys", path @ ..]) => {
                let get = || self.room_keys(session, parts, path);
                match path.len() {
                    0 => parts.typed::<get_backup_keys::v3::Request>(path, get),
                    1 => parts.typed::<get_backup_keys_for_room::v3::Request>(path, get),
                    _ => parts.typed::<get_backup_keys_for_session::v3::Request>(path, get),
                }
            }
            _ => Err(Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }

    /// Coming to rooms and going.
    fn of_rooms(&mut self, session: &Session, parts: &Parts, endpoint: &[&str]) -> Reply {
        let body = &parts.body;
        match (parts.method.as_str(), endpoint) {
            ("POST", ["createRoom"]) => {
                parts.typed::<create_room::v3::Request>(&[], || self.create_room(session, body))
            }
            ("POST", ["join", room]) => {
                parts.typed::<join_room_by_id_or_alias::v3::Request>(&[room], || self.join(session, room))
            }
            ("POST", ["rooms", room, "join"]) => {
                parts.typed::<join_room_by_id::v3::Request>(&[room], || self.join(session, room))
            }
            ("POST", ["rooms", room, "leave"]) => {
                parts.typed::<leave_room::v3::Request>(&[room], || self.leave(session, room))
            }
            ("POST", ["rooms", room, "forget"]) => parts.typed::<forget_room::v3::Request>(&[room], || Ok(json!({}))),
            ("POST", ["rooms", room, "invite"]) => {
                parts.typed::<invite_user::v3::Request>(&[room], || self.moderate(session, room, "invite", body))
            }
            ("POST", ["rooms", room, what @ ("kick" | "ban" | "unban")]) => {
                parts.typed::<kick_user::v3::Request>(&[room], || self.moderate(session, room, what, body))
            }
            ("GET", ["joined_rooms"]) => parts.typed::<joined_rooms::v3::Request>(&[], || self.joined_rooms(session)),
            ("GET", ["rooms", room, "members"]) => {
                parts.typed::<get_member_events::v3::Request>(&[room], || self.members(session, room, &parts.query))
            }
            ("GET", ["rooms", room, "joined_members"]) => {
                parts.typed::<joined_members::v3::Request>(&[room], || self.joined_members(session, room))
            }
            _ => self.of_events(session, parts, endpoint),
        }
    }

    /// State and events of a room.
    fn of_events(&mut self, session: &Session, parts: &Parts, endpoint: &[&str]) -> Reply {
        let body = &parts.body;
        match (parts.method.as_str(), endpoint) {
            ("GET", ["rooms", room, "state"]) => {
                parts.typed::<get_state_events::v3::Request>(&[room], || self.all_state(session, room))
            }
            ("GET", ["rooms", room, "state", kind, rest @ ..]) if rest.len() < 2 => {
                let key = rest.first().copied().unwrap_or_default();
                parts.typed::<get_state_event_for_key::v3::Request>(&[room, kind, key], || {
                    self.get_state(session, room, kind, key)
                })
            }
            ("PUT", ["rooms", room, "state", kind, rest @ ..]) if rest.len() < 2 => {
                let key = rest.first().copied().unwrap_or_default();
                parts.typed::<send_state_event::v3::Request>(&[room, kind, key], || {
                    self.put_state(session, room, kind, key, body.clone())
                })
            }
            ("PUT", ["rooms", room, "send", kind, transaction]) => parts
                .typed::<send_message_event::v3::Request>(&[room, kind, transaction], || {
                    self.send(session, room, kind, transaction, body.clone())
                }),
            ("PUT", ["rooms", room, "redact", event, transaction]) => parts
                .typed::<redact_event::v3::Request>(&[room, event, transaction], || {
                    self.redact(session, room, event, transaction, body)
                }),
            ("GET", ["rooms", room, "event", event]) => {
                parts.typed::<get_room_event::v3::Request>(&[room, event], || self.event(session, room, event))
            }
            ("GET", ["rooms", room, "messages"]) => {
                parts.typed::<get_message_events::v3::Request>(&[room], || self.messages(session, room, &parts.query))
            }
            _ => Err(Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }
}
