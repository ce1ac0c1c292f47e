//! Row NW-31: what is a secret stands nowhere.

use std::{
    io,
    sync::{Arc, Mutex},
};

use mx_transport::RequestLog;
use ruma::api::client::account::whoami;

use super::{
    http2::{Fate, multiplexed},
    *,
};

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SECRETS: [&str; 6] = [
    TOKEN,
    "!secretroom",
    "secret-body",
    "secret-query",
    "secret-answer",
    "secret-header",
];

#[tokio::test]
async fn nw_31_a_token_is_in_its_header_and_nothing_of_a_request_in_any_log() {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || written.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let server = server(|_, seen| match seen.target() {
        "/_matrix/client/versions" => vec![answer(200, "", br#"{"versions":["v1.11"]}"#)],
        _ => vec![answer(
            403,
            "x: secret-header\r\n",
            br#"{"errcode":"M_FORBIDDEN","error":"secret-answer"}"#,
        )],
    })
    .await;
    let transport = Arc::new(RequestLog::new(Retry::new(RequestLog::new(client()))));
    let homeserver = Homeserver::new(&server.url(), transport.clone()).unwrap();
    homeserver.set_access_token(AccessToken::new(TOKEN).unwrap());
    homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
    let seen = server.seen();
    assert_eq!(
        seen[1].header("authorization"),
        Some(format!("Bearer {TOKEN}").as_str())
    );
    assert!(seen.iter().all(|seen| !seen.target().contains(TOKEN)));

    // What comes without the name of its endpoint is shown by its words.
    let uri = format!(
        "{}/_matrix/client/v3/rooms/!secretroom/send/x/y?q=secret-query",
        server.url()
    );
    let mut request = http::Request::put(&uri)
        .body(Bytes::from_static(b"secret-body"))
        .unwrap();
    request.headers_mut().insert("x", "secret-header".parse().unwrap());
    transport.send(request).await.unwrap();
    transport
        .send(get("http://127.0.0.1:1/!secretroom?q=secret-query"))
        .await
        .unwrap_err();

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
    for shown in [
        "endpoint=/_matrix/client/v3/account/whoami",
        "endpoint=/_matrix/client/v3/rooms/_/send/_/_",
        "outcome=403",
        "outcome=unreachable",
        "bytes_out=11",
        "family=\"send\"",
    ] {
        assert!(text.contains(shown), "{shown} is not in the log:\n{text}");
    }
}

/// What is logged without `tracing`: reqwest, rustls and what they use.
struct Logger(Lines);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        self.0.0.lock().unwrap().extend_from_slice(line.as_bytes());
    }

    fn flush(&self) {}
}

#[tokio::test]
async fn nw_31_nothing_of_a_request_is_in_the_logs_of_what_is_inside() {
    let lines = Lines::default();
    log::set_logger(Box::leak(Box::new(Logger(lines.clone())))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || written.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let secret = |url: &str| {
        let url = format!("{url}_matrix/client/v3/rooms/!secretroom/send/x/y?q=secret-query");
        let request = http::Request::put(url).header("authorization", format!("Bearer {TOKEN}"));
        let request = request.header("x-secret", "secret-header");
        request.body(Bytes::from_static(b"secret-body")).unwrap()
    };
    let server = multiplexed(|_| Fate::Answer).await;
    server.client.send(secret(&server.url)).await.unwrap();
    let proxy = super::server(|_, _| vec![answer(403, "x: secret-header\r\n", b"secret-answer")]).await;
    let address = proxy.url().replace("http://", "http://user:proxy-secret@");
    let builder = ReqwestTransport::builder().proxy(&address).unwrap();
    let through = builder.allow_plain_http(true).build().unwrap();
    through.send(secret("https://hs.test/")).await.unwrap_err();
    through.send(secret("http://hs.test/")).await.unwrap();
    client().send(secret("https://127.0.0.1:1/")).await.unwrap_err();

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in SECRETS.into_iter().chain(["proxy-secret"]) {
        let found = text.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} is in the log: {found:?}");
    }
    for logs in ["reqwest", "rustls", "hyper", "h2"] {
        assert!(text.contains(logs), "{logs} logs nothing");
    }
}

/// Shows what it was given, as who logs requests might.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl Transport for Shown {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, mx_transport::TransportError> {
        self.0.lock().unwrap().push(format!("{request:?}"));
        Ok(http::Response::new(Bytes::from_static(
            br#"{"versions":["v1.11"],"user_id":"@a:hs.test"}"#,
        )))
    }
}

#[tokio::test]
async fn nw_31_a_request_that_is_printed_does_not_show_its_token() {
    let shown = Arc::new(Shown::default());
    let homeserver = Homeserver::new("https://hs.test", shown.clone()).unwrap();
    homeserver.set_access_token(AccessToken::new(TOKEN).unwrap());
    homeserver.send(whoami::v3::Request::new()).await.unwrap();
    let shown = shown.0.lock().unwrap();
    assert!(shown[1].contains("authorization"), "{}", shown[1]);
    assert!(!shown[1].contains(TOKEN), "{}", shown[1]);
}
