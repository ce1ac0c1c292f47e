//! Rows NW-15, NW-19 and NW-34: what is sent again when a connection broke, and what is not.

use std::{collections::BTreeMap, time::Duration};

use mx_transport::{Call, Phase, RequestError};
use ruma::{
    OwnedTransactionId,
    api::client::{
        account::register,
        keys::{claim_keys, upload_keys},
        session::login::v3::{LoginInfo, Password, Request as Login},
        to_device::send_event_to_device,
        uiaa::UserIdentifier,
    },
};

use super::*;

/// A homeserver that has taken a request, and whose connection is reset before it can say so, once.
async fn forgetful(body: &'static str) -> (Homeserver, Server) {
    let times = std::sync::atomic::AtomicUsize::new(0);
    homeserver(move |_| match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => vec![Step::Reset],
        _ => vec![answer(200, "", body.as_bytes())],
    })
    .await
}

fn is_interrupted(error: &RequestError) -> bool {
    matches!(error, RequestError::Transport(error) if error.kind() == Kind::Interrupted && error.may_have_been_processed())
}

#[tokio::test]
async fn nw_15_what_carries_a_transaction_id_is_sent_again_as_the_same_bytes() {
    let (homeserver, server) = forgetful("{}").await;
    let request = send_event_to_device::v3::Request::new_raw(
        "m.room.encrypted".into(),
        OwnedTransactionId::from("txn1"),
        BTreeMap::new(),
    );
    homeserver.send(request).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!((seen[1].target(), &seen[1].body), (seen[2].target(), &seen[2].body));
    assert!(seen[1].target().ends_with("/txn1"));
}

#[tokio::test]
async fn nw_15_an_upload_of_keys_is_sent_again_as_the_same_bytes() {
    let (homeserver, server) = forgetful(r#"{"one_time_key_counts":{}}"#).await;
    homeserver
        .send_with(upload_keys::v3::Request::new(), Call::repeatable())
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[1].body), (3, &seen[2].body));
}

#[tokio::test]
async fn nw_15_claims_logins_and_registrations_are_not_sent_again() {
    let (homeserver, server) = forgetful("{}").await;
    let claim = claim_keys::v3::Request::new(BTreeMap::new());
    let error = homeserver.send(claim).await.unwrap_err();
    assert!(is_interrupted(&error), "{error:?}");
    assert_eq!(server.seen().len(), 2);

    let (homeserver, server) = forgetful("{}").await;
    let user = UserIdentifier::Matrix(ruma::api::client::uiaa::MatrixUserIdentifier::new("a".to_owned()));
    let login = Login::new(LoginInfo::Password(Password::new(user, "secret-password".to_owned())));
    let error = homeserver.send(login).await.unwrap_err();
    assert!(is_interrupted(&error), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret-password"));
    assert_eq!(server.seen().len(), 2);

    // An account may have been made: the next attempt would say that the name is taken.
    let mut request = register::v3::Request::new();
    request.username = Some("a".to_owned());
    request.password = Some("secret-password".to_owned());
    let (homeserver, server) = forgetful(r#"{"user_id":"@a:hs.test"}"#).await;
    let error = homeserver.send(request.clone()).await.unwrap_err();
    assert!(is_interrupted(&error), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret-password"));
    assert_eq!(server.seen().len(), 2);
    // With questions about who asks it is the same.
    let (homeserver, server) = forgetful(r#"{"user_id":"@a:hs.test"}"#).await;
    let error = homeserver.ask(request).await.unwrap_err();
    assert!(is_interrupted(&error), "{error:?}");
    assert_eq!(server.seen().len(), 2);
    let (homeserver, server) = forgetful(r#"{"user_id":"@a:hs.test"}"#).await;
    let token = AccessToken::new("as-token").unwrap();
    let error = homeserver.register_by_appservice(&token, "a").await.unwrap_err();
    assert!(is_interrupted(&error), "{error:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn nw_34_a_connection_that_was_closed_between_requests_is_not_missed() {
    let server = server(|_, _| vec![answer(200, "", b"{}"), Step::Close]).await;
    let client = client();
    for number in 1..=5 {
        let request = http::Request::put(server.url())
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        client.send(request).await.unwrap();
        server.ended(number).await;
    }
    assert_eq!(server.seen().len(), 5, "each arrived once");
}

#[tokio::test]
async fn nw_34_a_connection_is_kept_and_used_again() {
    let server = server(|_, _| vec![answer(200, "", b"{}")]).await;
    let client = client();
    for _ in 0..5 {
        client.send(get(&server.url())).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn nw_34_a_connection_that_breaks_under_a_request_costs_a_retry_or_an_error() {
    // Open until the second request has come.
    let respond = |number: usize, _: &Seen| match number {
        1 => vec![Step::Close],
        _ => vec![answer(200, "", b"{}")],
    };
    for (method, expected, error) in [("PUT", 3, None), ("POST", 2, Some(Kind::Interrupted))] {
        let server = server(respond).await;
        let client = Retry::new(client()).pauses(Duration::ZERO, Duration::ZERO);
        client.send(get(&server.url())).await.unwrap();
        let request = http::Request::builder().method(method).uri(server.url());
        let answer = client.send(request.body(Bytes::new()).unwrap()).await;
        assert_eq!(answer.err().map(|error| error.kind()), error, "{method}");
        assert_eq!(server.seen().len(), expected);
    }
}

#[tokio::test]
async fn nw_19_a_name_that_nobody_knows_is_no_connection() {
    let client = ReqwestTransport::builder()
        .connect_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let error = client.send(get("https://no-such-host.invalid/")).await.unwrap_err();
    // Where the name service itself is silent it is our patience that ends.
    assert!(
        matches!(error.kind(), Kind::Connect | Kind::Timeout(Phase::Connect)),
        "{error:?}"
    );
    assert!(error.is_transient() && !error.may_have_been_processed());
}

#[tokio::test]
async fn nw_19_ipv6_is_an_address_like_any_other() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        return; // This machine has none.
    };
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _read = tokio::io::AsyncReadExt::read(&mut socket, &mut request).await.unwrap();
        mx_transport::conformance::play(&mut socket, vec![answer(200, "", b"six"), Step::Silence]).await
    });
    assert_eq!(client().send(get(&url)).await.unwrap().body(), "six");
    serving.abort();
    // Where nobody is, nothing was sent, in either family.
    let error = client().send(get("http://[::1]:1/")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
}
