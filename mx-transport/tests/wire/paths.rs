//! Row NW-30: what stands in a path arrives as it is, whatever is in it.

use mx_transport::{Call, RequestError};
use proptest::prelude::*;
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedTransactionId, OwnedUserId,
    api::client::{
        alias::get_alias,
        message::send_message_event,
        profile::{get_profile, set_profile_field},
        room::get_room_event,
        state::get_state_event_for_key,
        to_device::send_event_to_device,
    },
    events::{MessageLikeEventType, StateEventType, ToDeviceEventType},
    owned_room_id,
    profile::{ProfileFieldName, ProfileFieldValue},
    serde::Raw,
};

use super::*;

/// The parts of a request's path, decoded once, as a router does it.
fn parts(target: &str) -> Vec<String> {
    target.split('/').map(percent_decoded).collect()
}

fn percent_decoded(part: &str) -> String {
    let form = format!("x={}", part.replace('+', "%2B").replace('&', "%26").replace('=', "%3D"));
    url::form_urlencoded::parse(form.as_bytes())
        .next()
        .unwrap()
        .1
        .into_owned()
}

/// A homeserver, and what it was asked.
struct Asked {
    homeserver: Homeserver,
    server: Server,
}

impl Asked {
    async fn new() -> Self {
        let (homeserver, server) = homeserver(|_| vec![answer(200, "", b"{}")]).await;
        homeserver.versions().await.unwrap();
        Self { homeserver, server }
    }

    /// What came of a request, and the path that was asked, if one was.
    fn path(&self, answer: Result<http::Response<Bytes>, RequestError>, before: usize) -> Option<String> {
        let seen = self.server.seen().into_iter().nth(before);
        assert_eq!(answer.is_ok(), seen.is_some(), "{answer:?}");
        if let Err(error) = answer {
            assert_eq!(error.code(), "request_invalid", "{error:?}");
        }
        let seen = seen?;
        assert!(!seen.target().contains(['?', '#']) && seen.header("x").is_none());
        Some(seen.target().to_owned())
    }
}

/// The request arrives with these parts after `/_matrix/client/v3`, or it is not sent, for what is `.` or `..` would lead
/// elsewhere.
macro_rules! arrives {
    ($asked:expr, $request:expr, [$($part:expr),+]) => {{
        let before = $asked.server.seen().len();
        let answer = $asked.homeserver.exchange($request, Call::default()).await;
        let expected: Vec<&str> = vec![$($part),+];
        match $asked.path(answer, before) {
            Some(target) => assert_eq!(parts(&target).get(4..).unwrap(), expected, "{target}"),
            None => assert!(expected.iter().any(|part| matches!(*part, "." | "..")), "{expected:?}"),
        }
    }};
}

/// Every kind of thing that stands in a path, with `odd` in it.
async fn all_arrive(asked: &Asked, odd: &str) {
    // What ruma takes for no id of its kind is none.
    if let Ok(alias) = OwnedRoomAliasId::try_from(format!("#{odd}:hs.test")) {
        let request = get_alias::v3::Request::new(alias.clone());
        arrives!(asked, request, ["directory", "room", alias.as_str()]);
    }
    if let Ok(user) = OwnedUserId::try_from(format!("@{odd}:hs.test")) {
        let request = get_profile::v3::Request::new(user.clone());
        arrives!(asked, request, ["profile", user.as_str()]);
    }
    let room = OwnedRoomId::try_from(format!("!{odd}:hs.test")).unwrap_or_else(|_| owned_room_id!("!room:hs.test"));
    if let Ok(event) = OwnedEventId::try_from(format!("${odd}")) {
        let request = get_room_event::v3::Request::new(room.clone(), event.clone());
        arrives!(asked, request, ["rooms", room.as_str(), "event", event.as_str()]);
    }
    for kind in [odd.to_owned(), format!("x.{odd}")] {
        let request =
            get_state_event_for_key::v3::Request::new(room.clone(), StateEventType::from(kind.clone()), odd.to_owned());
        arrives!(asked, request, ["rooms", room.as_str(), "state", kind.as_str(), odd]);
    }
    let kind = format!("x.{odd}");
    let txn_id = OwnedTransactionId::from(odd);
    let request = send_message_event::v3::Request::new_raw(
        room.clone(),
        txn_id.clone(),
        MessageLikeEventType::from(kind.clone()),
        Raw::new(&serde_json::json!({})).unwrap().cast_unchecked(),
    );
    arrives!(asked, request, ["rooms", room.as_str(), "send", kind.as_str(), odd]);
    let to_device = ToDeviceEventType::from(kind.clone());
    let request = send_event_to_device::v3::Request::new_raw(to_device, txn_id, Default::default());
    arrives!(asked, request, ["sendToDevice", kind.as_str(), odd]);
}

const ODD: [&str; 24] = [
    "/",
    "a/b",
    "?x=1",
    "#frag",
    "%",
    "%%",
    "../x",
    "..",
    ".",
    "%2e%2e",
    "%2F",
    "x%41",
    "a%2Fb%3Fx%23",
    "%2525",
    "%zz%",
    "%00",
    "a\\b",
    "^|`{}<>\"'[]~",
    "\n",
    "\r\nx: y",
    " ",
    "ünïcödé €%E2%82",
    "\u{0}",
    "&=;,:@+",
];

#[tokio::test]
async fn nw_30_ids_arrive_as_they_are_whatever_is_in_them() {
    let asked = Asked::new().await;
    for odd in ODD {
        all_arrive(&asked, odd).await;
    }
}

/// Pieces of what a reader of URLs might take for something else, and anything at all between them.
fn odd() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec!["%", "%2", "%2F", "%2f", "%25", "%41", "%00", "/", "?", "#", "\\", ".", "..", "^", "|"])
            .prop_map(str::to_owned),
        1 => "[ -~]{0,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

#[test]
fn nw_30_whatever_an_id_is_made_of_it_arrives() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let asked = runtime.block_on(Asked::new());
    proptest!(ProptestConfig::with_cases(64), |(odd in odd())| {
        runtime.block_on(all_arrive(&asked, &odd));
    });
}

#[tokio::test]
async fn nw_30_an_id_that_cannot_be_encoded_is_refused() {
    let asked = Asked::new().await;
    let before = asked.server.seen().len();
    // Not in the table: a part of its path is in what it sends, too.
    let value = ProfileFieldValue::new("x", serde_json::json!("y")).unwrap();
    assert_eq!(value.field_name(), ProfileFieldName::from("x"));
    let user = OwnedUserId::try_from("@x%41:hs.test").unwrap();
    let request = set_profile_field::v3::Request::new(user, value);
    let answer = asked.homeserver.exchange(request, Call::default()).await;
    assert_eq!(asked.path(answer, before), None);
}

#[tokio::test]
async fn nw_30_a_path_that_leads_elsewhere_is_not_sent() {
    let server = server(|_, _| vec![answer(200, "", b"{}")]).await;
    for path in ["/a/../b", "/a/%2e%2E/b", "/a/./b", "/a/%2e", "/..", "/a\\b"] {
        let error = client()
            .send(get(&format!("{}{path}", server.url())))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Build, "{path}");
    }
    assert_eq!(server.seen().len(), 0);
}
