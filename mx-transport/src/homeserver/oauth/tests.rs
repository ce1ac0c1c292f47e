//! An authorization server that is scripted, and how it is asked.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::{AccessToken, Transport, TransportError, TransportErrorKind};

#[derive(Debug, Default)]
struct Server {
    metadata: Mutex<Value>,
    /// What is answered, by path. A status of 0: nothing.
    answers: Mutex<BTreeMap<&'static str, VecDeque<(u16, Value)>>>,
    asked: Mutex<Vec<(Duration, String, String)>>,
    began: Mutex<Option<Instant>>,
}

#[async_trait]
impl Transport for Server {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let path = request.uri().path().to_owned();
        let answer = |status: u16, body: &Value| {
            let answer = http::Response::builder().status(status);
            Ok(answer.body(Bytes::from(body.to_string())).unwrap())
        };
        match path.as_str() {
            "/_matrix/client/versions" => return answer(200, &json!({"versions": ["v1.15"]})),
            "/_matrix/client/v1/auth_metadata" => {
                let metadata = self.metadata.lock().unwrap().clone();
                return answer(if metadata.is_null() { 404 } else { 200 }, &metadata);
            }
            _ => {}
        }
        assert!(request.headers().get("authorization").is_none(), "{path}");
        assert!(request.uri().query().is_none(), "{path}");
        let since = self.began.lock().unwrap().get_or_insert_with(Instant::now).elapsed();
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        self.asked.lock().unwrap().push((since, path.clone(), body));
        let mut answers = self.answers.lock().unwrap();
        match answers.get_mut(path.as_str()).and_then(VecDeque::pop_front) {
            None | Some((0, _)) => Err(TransportError::new(TransportErrorKind::Interrupted)),
            Some((status, body)) => answer(status, &body),
        }
    }
}

fn metadata(more: &Value) -> Value {
    let mut metadata = json!({
        "issuer": "https://auth.test/",
        "authorization_endpoint": "https://auth.test/authorize",
        "token_endpoint": "https://auth.test/token",
        "revocation_endpoint": "https://auth.test/revoke",
        "registration_endpoint": "https://auth.test/register",
        "device_authorization_endpoint": "https://auth.test/device",
        "account_management_uri": "https://auth.test/account",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_CODE],
        "code_challenge_methods_supported": ["S256"],
    });
    for (name, value) in more.as_object().unwrap() {
        metadata[name] = value.clone();
    }
    metadata
}

fn homeserver(metadata: Value, answers: &[(&'static str, u16, Value)]) -> (Homeserver, Arc<Server>) {
    let server = Server::default();
    *server.metadata.lock().unwrap() = metadata;
    for (path, status, body) in answers {
        server
            .answers
            .lock()
            .unwrap()
            .entry(path)
            .or_default()
            .push_back((*status, body.clone()));
    }
    let server = Arc::new(server);
    let homeserver = Homeserver::new("https://hs.test", server.clone()).unwrap();
    homeserver.set_access_token(AccessToken::new("token-of-matrix").unwrap());
    (homeserver, server)
}

fn client() -> OAuthClient {
    OAuthClient::new("https://auth.test/", "me")
}

fn offered() -> Value {
    json!({"device_code": "secret-code", "user_code": "ABCD-EFGH", "verification_uri": "https://auth.test/link",
        "verification_uri_complete": "https://auth.test/link?code=ABCD-EFGH", "expires_in": 600, "interval": 2})
}

fn granted() -> Value {
    json!({"access_token": "access-1", "refresh_token": "refresh-1", "token_type": "Bearer", "expires_in": 300, "scope": "x"})
}

fn says(error: &str) -> Value {
    json!({"error": error, "error_description": "so it is"})
}

#[tokio::test]
async fn metadata_are_taken_from_safe_places_only() {
    let (plain, server) = homeserver(metadata(&json!({})), &[]);
    let named = plain.authorization_server().await.unwrap();
    assert_eq!(named.issuer(), "https://auth.test/");
    assert!(named.offers_device_codes());
    let page = named.device_page("DEVICE".into()).unwrap();
    assert_eq!(
        page.as_str(),
        "https://auth.test/account?action=org.matrix.device_view&device_id=DEVICE"
    );
    drop(server);
    for (more, code) in [
        (json!({"token_endpoint": "http://auth.test/token"}), "oauth_unsafe"),
        (json!({"token_endpoint": "http://127.0.0.1/token"}), "oauth_unsafe"),
        (
            json!({"device_authorization_endpoint": "http://auth.test/device"}),
            "oauth_unsafe",
        ),
        (json!({"account_management_uri": "javascript:alert(1)"}), "oauth_unsafe"),
        (json!({"revocation_endpoint": "https://u:p@auth.test/"}), "oauth_unsafe"),
        (json!({"issuer": "https://auth.test/?x"}), "oauth_unsafe"),
        (json!({"token_endpoint": "nowhere"}), "unreadable_answer"),
        (json!({"issuer": null}), "unreadable_answer"),
    ] {
        let error = homeserver(metadata(&more), &[])
            .0
            .authorization_server()
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{more}");
        assert!(!error.to_string().contains("u:p"));
    }
    let error = homeserver(Value::Null, &[]).0.authorization_server().await.unwrap_err();
    assert_eq!(error.code(), "no_oauth_login");
}

#[tokio::test]
async fn we_are_registered_as_what_we_are() {
    let (homeserver, server) = homeserver(
        metadata(&json!({})),
        &[("/register", 201, json!({"client_id": "me", "x": 1}))],
    );
    let registration = ClientRegistration::new("bot", "https://bot.test/");
    assert_eq!(homeserver.register_oauth_client(&registration).await.unwrap(), client());
    let body: Value = serde_json::from_str(&server.asked.lock().unwrap()[0].2).unwrap();
    assert_eq!(
        (&body["client_name"], &body["client_uri"]),
        (&json!("bot"), &json!("https://bot.test/"))
    );
    assert_eq!(body["grant_types"], json!([DEVICE_CODE, "refresh_token"]));
}

#[tokio::test(start_paused = true)]
async fn a_code_is_waited_for_as_slowly_as_the_server_asks() {
    let pending = || ("/token", 400, says("authorization_pending"));
    let (homeserver, server) = homeserver(
        metadata(&json!({})),
        &[
            ("/device", 200, offered()),
            pending(),
            ("/token", 400, says("slow_down")),
            pending(),
            ("/token", 0, Value::Null),
            ("/token", 503, Value::Null),
            ("/token", 200, granted()),
        ],
    );
    let waiting = homeserver
        .begin_device_authorization(&client(), "DEVICE".into())
        .await
        .unwrap();
    assert_eq!(
        (waiting.user_code.as_str(), waiting.verification_uri.as_str()),
        ("ABCD-EFGH", "https://auth.test/link")
    );
    let shown = format!("{waiting:?}");
    assert!(!shown.contains("secret-code") && !shown.contains("ABCD"), "{shown}");
    let tokens = homeserver
        .finish_device_authorization(&client(), waiting)
        .await
        .unwrap();
    assert_eq!(tokens.access.expose(), "access-1");
    assert_eq!(tokens.refresh.unwrap().expose(), "refresh-1");
    let asked = server.asked.lock().unwrap().clone();
    let at: Vec<u64> = asked.iter().map(|(since, ..)| since.as_secs()).collect();
    assert_eq!(at, [0, 2, 4, 11, 18, 30, 47]);
    assert_eq!(
        asked[0].2,
        "client_id=me&scope=urn%3Amatrix%3Aclient%3Aapi%3A*+urn%3Amatrix%3Aclient%3Adevice%3ADEVICE"
    );
    assert_eq!(
        asked[1].2,
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=secret-code&client_id=me"
    );
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_denied_or_not_typed_is_an_end() {
    for (status, body, code) in [
        (400, says("access_denied"), "login_denied"),
        (400, says("expired_token"), "login_expired"),
        (400, says("invalid_grant"), "homeserver_refused"),
        (
            200,
            json!({"access_token": "not a token", "token_type": "Bearer"}),
            "unreadable_answer",
        ),
        (200, json!({"error": "x"}), "unreadable_answer"),
    ] {
        let (homeserver, _) = homeserver(
            metadata(&json!({})),
            &[("/device", 200, offered()), ("/token", status, body)],
        );
        let waiting = homeserver
            .begin_device_authorization(&client(), "DEVICE".into())
            .await
            .unwrap();
        let error = homeserver
            .finish_device_authorization(&client(), waiting)
            .await
            .unwrap_err();
        assert_eq!(error.code(), code);
        assert!(!format!("{error} {error:?}").contains("not a token"));
    }
    // Nobody comes, and the network is away: it ends with the code.
    let (homeserver, server) = homeserver(metadata(&json!({})), &[("/device", 200, offered())]);
    let waiting = homeserver
        .begin_device_authorization(&client(), "DEVICE".into())
        .await
        .unwrap();
    let error = homeserver
        .finish_device_authorization(&client(), waiting)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "login_expired");
    let asked = server.asked.lock().unwrap();
    assert!(
        asked.len() < 30 && asked.last().unwrap().0 < Duration::from_secs(600),
        "{}",
        asked.len()
    );
}

#[tokio::test]
async fn a_person_is_not_sent_to_what_is_no_page() {
    for (name, value) in [
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("file:///etc")),
        ("user_code", json!("\u{1b}[31m")),
        ("user_code", json!("")),
    ] {
        let mut body = offered();
        body[name] = value;
        let (homeserver, _) = homeserver(metadata(&json!({})), &[("/device", 200, body)]);
        let error = homeserver
            .begin_device_authorization(&client(), "DEVICE".into())
            .await
            .unwrap_err();
        assert_eq!(error.code(), "unreadable_answer", "{name}");
    }
    let without = metadata(&json!({"grant_types_supported": ["authorization_code", "refresh_token"]}));
    let error = homeserver(without, &[])
        .0
        .begin_device_authorization(&client(), "DEVICE".into())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "oauth_unsupported");
}

#[tokio::test]
async fn tokens_are_renewed_and_given_back_under_our_name() {
    let (homeserver, server) = homeserver(
        metadata(&json!({})),
        &[
            (
                "/token",
                200,
                json!({"access_token": "access-2", "token_type": "Bearer"}),
            ),
            ("/revoke", 200, Value::Null),
        ],
    );
    let tokens = homeserver
        .refresh_by_oauth(&client(), RefreshToken::new("refresh 1"))
        .await
        .unwrap();
    assert_eq!(
        tokens.refresh.as_ref().unwrap().expose(),
        "refresh 1",
        "without a new one the old one goes on"
    );
    homeserver.revoke_by_oauth(&client(), &tokens).await.unwrap();
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(
        asked[0].2,
        "grant_type=refresh_token&refresh_token=refresh+1&client_id=me"
    );
    assert_eq!(asked[1].2, "token=refresh+1&token_type_hint=refresh_token&client_id=me");
    let other = OAuthClient::new("https://elsewhere.test/", "me");
    let error = homeserver
        .refresh_by_oauth(&other, RefreshToken::new("x"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "request_invalid");
    assert_eq!(
        server.asked.lock().unwrap().len(),
        2,
        "another server is not shown our tokens"
    );
}
