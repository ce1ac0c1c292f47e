//! Servers that are honest, absent, and hostile.

use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;
use ruma::server_name;

use super::*;

#[derive(Debug, Default)]
struct Web {
    pages: BTreeMap<&'static str, (u16, String)>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Web {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let url = request.uri().to_string();
        self.asked.lock().unwrap().push(url.clone());
        let Some((status, body)) = self.pages.get(url.as_str()).cloned() else {
            return Err(TransportError::new(TransportErrorKind::Connect));
        };
        let mut answer = http::Response::builder().status(status);
        let mut body = body;
        if (300..400).contains(&status) {
            assert!(request.extensions().get::<ShowRedirects>().is_some());
            answer = answer.header("location", std::mem::take(&mut body));
        }
        Ok(answer.body(Bytes::from(body)).unwrap())
    }
}

const PAGE: &str = "https://hs.test/.well-known/matrix/client";
const VERSIONS: (u16, &str) = (200, r#"{"versions":["v1.11"]}"#);

fn says(base_url: &str) -> String {
    format!(r#"{{"m.homeserver":{{"base_url":"{base_url}"}},"m.identity_server":{{"base_url":"https://is.test"}}}}"#)
}

fn web(pages: &[(&'static str, (u16, &str))]) -> (Discovery, Arc<Web>) {
    let pages = pages
        .iter()
        .map(|(url, (status, body))| (*url, (*status, (*body).to_owned())));
    let web = Arc::new(Web {
        pages: pages.collect(),
        asked: Mutex::default(),
    });
    (Discovery::new(web.clone()), web)
}

#[tokio::test]
async fn a_name_a_user_id_and_an_address_are_found() {
    let said = says("https://matrix.hs.test/");
    let pages = [
        (PAGE, (200, said.as_str())),
        ("https://matrix.hs.test/_matrix/client/versions", VERSIONS),
    ];
    for given in ["hs.test", "@bot:hs.test", " hs.test:8448 "] {
        let found = web(&pages).0.find(given).await.unwrap();
        assert_eq!(found.base_url, "https://matrix.hs.test");
        assert_eq!(found.said_by.unwrap().as_str(), PAGE);
    }
    let (discovery, asked) = web(&[]);
    let found = discovery.find("https://hs.test/at/").await.unwrap();
    assert_eq!(
        (found.base_url.as_str(), found.said_by, found.server_name),
        ("https://hs.test/at", None, None)
    );
    assert!(asked.asked.lock().unwrap().is_empty(), "an address is taken as it is");
    for wrong in [
        "",
        "@bot",
        "not a name",
        "https://u:p@hs.test",
        "ftp://hs.test",
        "hs.test/x?y",
    ] {
        assert_eq!(
            discovery.find(wrong).await.unwrap_err().code(),
            "invalid_homeserver",
            "{wrong:?}"
        );
    }
    assert!(asked.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_page_the_name_is_the_homeserver_if_one_answers() {
    let pages = [
        (PAGE, (404, "")),
        ("https://hs.test:8448/_matrix/client/versions", VERSIONS),
    ];
    let found = web(&pages).0.find("hs.test:8448").await.unwrap();
    assert_eq!((found.base_url.as_str(), found.said_by), ("https://hs.test:8448", None));
    let error = web(&pages).0.find("hs.test").await.unwrap_err();
    assert_eq!(error.code(), "no_homeserver");
    let local = [
        ("http://127.0.0.1:81/.well-known/matrix/client", (404, "")),
        ("http://127.0.0.1:81/_matrix/client/versions", VERSIONS),
    ];
    assert_eq!(
        web(&local).0.find("127.0.0.1:81").await.unwrap().base_url,
        "http://127.0.0.1:81"
    );
}

#[tokio::test]
async fn nw_36_what_is_no_answer_is_an_error_that_says_so() {
    let huge = format!("{}{}", " ".repeat(MAX_BYTES), says("https://matrix.hs.test"));
    for (status, body, code) in [
        (200, "<html>welcome</html>", "discovery_failed"),
        (200, "", "discovery_failed"),
        (200, "{}", "discovery_failed"),
        (200, r#"{"m.homeserver":{"base_url":5}}"#, "discovery_failed"),
        (200, huge.as_str(), "discovery_failed"),
        (500, "", "discovery_failed"),
        (403, "{}", "discovery_failed"),
    ] {
        let (discovery, asked) = web(&[(PAGE, (status, body))]);
        let error = discovery.find_by_name(server_name!("hs.test")).await.unwrap_err();
        assert_eq!(error.code(), code, "{status} {body:.40}");
        assert!(error.to_string().contains("hs.test"), "{error}");
        assert_eq!(*asked.asked.lock().unwrap(), [PAGE], "nothing is guessed");
    }
    assert_eq!(web(&[]).0.find("hs.test").await.unwrap_err().code(), "unreachable");
}

#[tokio::test]
async fn nw_36_an_address_that_is_not_safe_is_shown_and_not_used() {
    for said in [
        "http://matrix.hs.test",
        "http://127.0.0.1",
        "file:///etc",
        "matrix.hs.test",
        "https://u:p@hs.test",
        "https://",
    ] {
        let page = says(said);
        let (discovery, asked) = web(&[(PAGE, (200, page.as_str()))]);
        let error = discovery.find("hs.test").await.unwrap_err();
        assert!(
            ["discovery_failed", "invalid_homeserver"].contains(&error.code()),
            "{said}: {error}"
        );
        assert_eq!(asked.asked.lock().unwrap().len(), 1, "{said}");
    }
    let page = says("https://not-there.test");
    let error = web(&[(PAGE, (200, page.as_str()))])
        .0
        .find("hs.test")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("https://not-there.test"), "{error}");
}

#[tokio::test]
async fn nw_36_a_redirect_is_followed_only_when_asked_for_and_only_to_a_safe_place() {
    let said = says("https://matrix.hs.test");
    let pages = |to: &'static str| {
        [
            (PAGE, (302, to)),
            ("https://other.test/w", (200, said.as_str())),
            ("http://other.test/w", (200, said.as_str())),
            ("https://hs.test/w", (200, said.as_str())),
            ("https://matrix.hs.test/_matrix/client/versions", VERSIONS),
        ]
    };
    let (discovery, asked) = web(&pages("https://other.test/w"));
    let error = discovery.find("hs.test").await.unwrap_err();
    assert_eq!(error.code(), "discovery_redirected");
    assert!(error.to_string().contains("https://other.test"), "{error}");
    assert_eq!(*asked.asked.lock().unwrap(), [PAGE]);
    for (to, by) in [
        ("https://other.test/w", Some("https://other.test/w")),
        ("/w", Some("https://hs.test/w")),
        ("http://other.test/w", None),
        (PAGE, None),
        ("", None),
    ] {
        let found = web(&pages(to)).0.follow_redirects(true).find("hs.test").await;
        assert_eq!(
            found.ok().map(|found| found.said_by.unwrap().to_string()).as_deref(),
            by,
            "{to:?}"
        );
    }
}
