//! Rows NW-31 and NW-40: over TLS through a proxy, and what the platform trusts.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinHandle,
};

use super::{
    tls::{Authority, Secure, secure, trusting},
    *,
};

/// A proxy whose tunnels all lead to one server.
struct Tunnels {
    address: SocketAddr,
    /// Every byte that a client has written.
    seen: Arc<Mutex<Vec<u8>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Tunnels {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let book = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, server, Arc::clone(&book)));
            }
        });
        Self {
            address,
            seen,
            accepting,
        }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }
}

/// Take a `CONNECT`, and carry bytes from then on.
async fn tunnel(mut client: TcpStream, server: SocketAddr, book: Arc<Mutex<Vec<u8>>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    book.lock().unwrap().extend_from_slice(&head);
    let server = TcpStream::connect(server).await.ok()?;
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
        .ok()?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(
        carry(from_client, to_server, Some(book)),
        carry(from_server, to_client, None)
    );
    Some(())
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, book: Option<Arc<Mutex<Vec<u8>>>>) -> Option<()> {
    let mut bytes = [0; 4096];
    loop {
        let read = from.read(&mut bytes).await.ok()?;
        if read == 0 {
            return to.shutdown().await.ok();
        }
        if let Some(book) = &book {
            book.lock().unwrap().extend_from_slice(&bytes[..read]);
        }
        to.write_all(&bytes[..read]).await.ok()?;
    }
}

fn with_token(url: &str) -> http::Request<Bytes> {
    let mut request = get(url);
    let value = format!("Bearer {TOKEN}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

fn seen_by(server: &Secure) -> String {
    server.seen.lock().unwrap().concat()
}

#[tokio::test]
async fn nw_40_a_request_goes_through_a_proxy_which_sees_where_to_and_nothing_of_it() {
    let authority = Authority::new("of the tests");
    let server = secure(authority.certify("hs.test", |_| ()).config(None)).await;
    let proxy = Tunnels::to(server.address).await;
    let through = |builder: mx_transport::ReqwestTransportBuilder| {
        let address = format!("http://user:proxy-secret@{}", proxy.address);
        let builder = builder.user_agent("agent-of-the-tests/7").proxy(&address).unwrap();
        builder.build().unwrap()
    };
    let request = || with_token("https://hs.test/_matrix/client/v3/sync?since=secret-query");
    let answer = through(trusting(&authority)).send(request()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"{}"[..]));

    let asked = seen_by(&server);
    assert!(
        asked.starts_with("GET /_matrix/client/v3/sync?since=secret-query HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains(&format!("authorization: Bearer {TOKEN}\r\n")), "{asked}");
    assert!(asked.contains("user-agent: agent-of-the-tests/7\r\n"), "{asked}");
    assert!(!asked.to_lowercase().contains("proxy-authorization"), "{asked}");
    let told = proxy.seen();
    assert!(told.starts_with("CONNECT hs.test:443 HTTP/1.1\r\n"), "{told}");
    assert!(told.to_lowercase().contains("proxy-authorization: basic "), "{told}");
    for secret in [TOKEN, "secret-query", "/_matrix/", "Bearer", "proxy-secret"] {
        assert!(!told.contains(secret), "{secret}");
    }

    // Whom the proxy leads to is verified as anybody is.
    let error = through(trusting(&Authority::new("another"))).send(request()).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Tls);
    assert_eq!(server.seen.lock().unwrap().len(), 1, "it was asked once");
}

#[tokio::test]
async fn a_client_says_who_it_is() {
    let server = server(|_, _| vec![answer(200, "", b"{}")]).await;
    client().send(get(&server.url())).await.unwrap();
    let ours = concat!("mx-e2ee/", env!("CARGO_PKG_VERSION"));
    assert_eq!(server.seen()[0].header("user-agent"), Some(ours));
}

/// Set in the process that a test starts of itself: the address of a server.
const CHILD: &str = "MX_WIRE_CHILD_TRUSTS";

/// What the platform trusts is what a client trusts who was told nothing: in a process whose platform has this one root, and
/// in one whose platform has another.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roots_of_the_platform_are_trusted_and_no_others() {
    if let Ok(address) = std::env::var(CHILD) {
        let address: SocketAddr = address.parse().unwrap();
        let client = ReqwestTransport::builder().resolve("hs.test", address).build().unwrap();
        let answer = client.send(get(&format!("https://hs.test:{}/", address.port()))).await;
        let said = answer.map_or_else(
            |error| format!("{:?}", error.kind()),
            |answer| answer.status().to_string(),
        );
        eprintln!("the child says: {said}.");
        return;
    }
    let (authority, another) = (Authority::new("of the tests"), Authority::new("another"));
    let server = secure(authority.certify("hs.test", |_| ()).config(None)).await;
    let directory = tempfile::tempdir().unwrap();
    for (root, expected) in [
        (&authority, "the child says: 200 OK."),
        (&another, "the child says: Tls."),
    ] {
        let file = directory.path().join("root.pem");
        std::fs::write(&file, root.pem()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "tunnels::the_roots_of_the_platform_are_trusted_and_no_others";
        command
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, server.address.to_string())
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR");
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(
        server.seen.lock().unwrap().len(),
        1,
        "who is not trusted is asked nothing"
    );
}
