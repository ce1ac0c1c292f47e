//! Which tokens are valid when.

use std::time::Duration;

use bytes::Bytes;
use ruma::{device_id, user_id};
use serde_json::{Value, json};

use crate::{Homeserver, Invariant};

struct Door {
    server: Homeserver,
    access: String,
    refresh: String,
}

fn ask(server: &Homeserver, method: &str, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://localhost/_matrix/client/v3{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = server.handle(&request.body(Bytes::from(body.to_string())).unwrap());
    (
        answer.status().as_u16(),
        serde_json::from_slice(answer.body()).unwrap_or_default(),
    )
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap().to_owned()
}

impl Door {
    fn new() -> Self {
        let server = Homeserver::new();
        let _user = server.register("alice", "password");
        server.tokens_last(Duration::from_secs(300));
        server.set_clock(1_000_000);
        let body = json!({
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password",
            "device_id": "DEVICE", "refresh_token": true,
        });
        let (_, answer) = ask(&server, "POST", "/login", None, &body);
        assert_eq!(answer["expires_in_ms"], 300_000);
        Self {
            access: text(&answer, "access_token"),
            refresh: text(&answer, "refresh_token"),
            server,
        }
    }

    fn is_valid(&self, access: &str) -> bool {
        ask(&self.server, "GET", "/account/whoami", Some(access), &json!({})).0 == 200
    }

    fn renew(&self, refresh: &str) -> Option<(String, String)> {
        let (status, answer) = ask(
            &self.server,
            "POST",
            "/refresh",
            None,
            &json!({"refresh_token": refresh}),
        );
        (status == 200).then(|| (text(&answer, "access_token"), text(&answer, "refresh_token")))
    }
}

#[test]
fn old_tokens_are_valid_until_the_new_ones_are_used() {
    let door = Door::new();
    let lost = door.renew(&door.refresh).unwrap();
    let (access, refresh) = door.renew(&door.refresh).unwrap();
    assert!(door.is_valid(&door.access), "nothing new was used");
    assert!(!door.is_valid(&lost.0), "only the last renewal counts");
    assert!(door.is_valid(&access));
    assert!(!door.is_valid(&door.access));
    assert!(door.renew(&door.refresh).is_none());
    // A new refresh token that is used says the same as a new access token.
    let (_, second) = door.renew(&refresh).unwrap();
    let (third, _) = door.renew(&second).unwrap();
    assert!(door.renew(&refresh).is_none());
    assert!(!door.is_valid(&access));
    assert!(door.is_valid(&third));
}

#[test]
fn a_token_expires_on_the_homeservers_clock_and_its_refresh_token_does_not() {
    let door = Door::new();
    door.server.set_clock(1_299_999);
    assert!(door.is_valid(&door.access));
    door.server.set_clock(1_300_000);
    let (status, answer) = ask(&door.server, "GET", "/account/whoami", Some(&door.access), &json!({}));
    assert_eq!(
        (status, &answer["errcode"], &answer["soft_logout"]),
        (401, &json!("M_UNKNOWN_TOKEN"), &json!(true))
    );
    let (access, _) = door.renew(&door.refresh).unwrap();
    assert!(door.is_valid(&access));
    assert_eq!(door.server.devices_of(user_id!("@alice:localhost")), ["DEVICE"]);
}

#[test]
fn a_refresh_token_ends_with_its_device_or_when_it_is_revoked() {
    let door = Door::new();
    let (alice, device) = (user_id!("@alice:localhost"), device_id!("DEVICE"));
    door.server.revoke_refresh_token(alice, device, true);
    let (status, answer) = ask(
        &door.server,
        "POST",
        "/refresh",
        None,
        &json!({"refresh_token": door.refresh}),
    );
    assert_eq!((status, &answer["soft_logout"]), (401, &json!(true)));
    let door = Door::new();
    door.server.delete_device(alice, device);
    assert!(door.renew(&door.refresh).is_none());
}

#[test]
fn who_does_not_ask_for_a_refresh_token_has_a_token_that_lasts() {
    let door = Door::new();
    let user = door.server.register("bob", "password");
    let access = door.server.token(&user, "DEVICE");
    door.server.set_clock(u64::MAX);
    assert!(door.is_valid(&access));
}

#[test]
fn a_refresh_token_belongs_into_one_body_and_nowhere_else() {
    let door = Door::new();
    let (_, refresh) = door.renew(&door.refresh).unwrap();
    assert!(door.server.violations().is_empty());
    let shown = format!("{:?}", door.server.log());
    assert!(!shown.contains("-of-the-test-homeserver"), "{shown}");
    for (path, body) in [
        ("/refresh", json!({"refresh_token": refresh, "device": door.access})),
        ("/keys/query", json!({"device_keys": {}, "x": refresh})),
        (&format!("/keys/query?x={refresh}"), json!({"device_keys": {}})),
    ] {
        let before = door.server.violations().len();
        let _answer = ask(&door.server, "POST", path, Some(&door.access), &body);
        let violations = door.server.violations();
        assert!(violations.len() > before, "{path}");
        assert!(violations.iter().all(|violation| violation.invariant == Invariant::I4));
    }
}
