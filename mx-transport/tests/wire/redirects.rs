//! Row NW-16: a redirect is told and not followed, whatever it is and wherever it leads.

use mx_transport::RequestError;
use ruma::api::client::{account::whoami, keys::claim_keys};

use super::*;

#[tokio::test]
async fn nw_16_a_token_stays_with_its_homeserver_and_a_body_is_not_posted_again() {
    let elsewhere = server(|_, _| vec![answer(200, "", b"{}")]).await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let location = format!("location: {}/_matrix?x=1\r\n", elsewhere.url());
        let (homeserver, server) = homeserver(move |_| vec![answer(status, &location, b"")]).await;
        let host = elsewhere.url().replace("http://", "");
        for error in [
            homeserver.send(whoami::v3::Request::new()).await.unwrap_err(),
            homeserver
                .send(claim_keys::v3::Request::new(Default::default()))
                .await
                .unwrap_err(),
        ] {
            let RequestError::Transport(error) = error else {
                panic!("{error:?}")
            };
            assert_eq!(
                (error.kind(), error.redirect_host()),
                (Kind::Redirect, Some(host.as_str()))
            );
            assert!(
                error.to_string().contains(&host) && !error.to_string().contains("x=1"),
                "{error}"
            );
        }
        assert_eq!(server.seen().len(), 3, "its versions, and each request once");
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn nw_16_a_redirect_to_itself_to_http_or_to_nowhere_is_one_too() {
    for (location, host) in [
        ("location: /\r\n", Some("127.0.0.1")),
        ("location: http://hs.test/\r\n", Some("hs.test")),
        (
            "location: https://user:secret@hs.test:8448/?q=secret\r\n",
            Some("hs.test:8448"),
        ),
        ("location: mailto:secret@hs.test\r\n", None),
        ("location: \r\n", Some("127.0.0.1")),
        ("", None),
    ] {
        let server = server(move |_, _| vec![answer(302, location, b"")]).await;
        let error = client().send(get(&server.url())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Redirect);
        let told = error.redirect_host().map(|host| host.split(':').next().unwrap());
        assert_eq!(told, host.map(|host| host.split(':').next().unwrap()), "{location}");
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert_eq!(server.seen().len(), 1);
    }
}
