//! Single sign-on: a browser comes back with a token, to a listener of this very machine.

use std::{io, net::Ipv4Addr, time::Duration};

use mx_transport::Homeserver;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;
use zeroize::Zeroizing;

use super::kinds::kinds;
use crate::{ClientBuilder, Error, Result};

/// No request of a browser that comes back is longer, in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// A connection that says nothing is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const DONE: &str = "You are logged in. This page can be closed.";
const NOT_HERE: &str = "There is nothing here.";

/// Where a browser comes back to after single sign-on: an address of this machine that nobody else knows, until it is dropped.
///
/// ```no_run
/// # async fn example() -> mx_e2ee::Result<()> {
/// use mx_e2ee::{Client, SsoListener};
/// use std::time::Duration;
///
/// let listener = SsoListener::start().await?;
/// let builder = || Client::builder().homeserver("example.org").directory("/var/lib/mybot");
/// println!("open {}", builder().sso_page(listener.address()).await?);
/// let token = listener.token(Duration::from_secs(300)).await?;
/// let client = builder().login_with_login_token(&token).await?;
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SsoListener {
    listener: TcpListener,
    address: Url,
}

impl SsoListener {
    /// Listen on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the operating system gives no port.
    pub async fn start() -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::Configuration {
            what: format!("no browser can come back to this machine ({error}): paste the login token instead"),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(|error| failed(&error))?;
        let port = listener.local_addr().map_err(|error| failed(&error))?.port();
        // Pages of others cannot guess it, and so cannot log us in as somebody else.
        let secret = ruma::TransactionId::new();
        let address = Url::parse(&format!("http://127.0.0.1:{port}/{secret}")).map_err(|error| failed(&error))?;
        Ok(Self { listener, address })
    }

    /// The address to come back to.
    #[must_use]
    pub const fn address(&self) -> &Url {
        &self.address
    }

    /// Wait for the browser, and take the login token that it brings.
    ///
    /// # Errors
    /// [`Error::NobodyCameBack`].
    ///
    /// # Cancel safety
    /// Safe until the browser came.
    pub async fn token(&self, patience: Duration) -> Result<Zeroizing<String>> {
        let coming = async {
            loop {
                let Ok((stream, _)) = self.listener.accept().await else {
                    tokio::time::sleep(PATIENCE).await;
                    continue;
                };
                // Browsers ask for icons, too, and open connections that they do not use.
                let spoken = tokio::time::timeout(PATIENCE, self.speak(stream)).await;
                if let Ok(Ok(Some(token))) = spoken {
                    return token;
                }
            }
        };
        tokio::time::timeout(patience, coming)
            .await
            .map_err(|_| Error::NobodyCameBack)
    }

    async fn speak(&self, mut stream: TcpStream) -> io::Result<Option<Zeroizing<String>>> {
        let mut request = Zeroizing::new(Vec::new());
        let target = loop {
            if request.len() >= MAX_REQUEST_BYTES || stream.read_buf(&mut *request).await? == 0 {
                return Ok(None);
            }
            match target(&request) {
                Ok(Some(target)) => break target,
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
        };
        let token = self.token_in(&target);
        let (status, text) = if token.is_some() {
            ("200 OK", DONE)
        } else {
            ("404 Not Found", NOT_HERE)
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\
             cache-control: no-store\r\nreferrer-policy: no-referrer\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        Ok(token)
    }

    fn token_in(&self, target: &str) -> Option<Zeroizing<String>> {
        let url = self.address.join(target).ok()?;
        let is_ours = url.origin() == self.address.origin() && url.path() == self.address.path();
        let mut tokens = url.query_pairs().filter(|(name, _)| name == "loginToken");
        let token = tokens.next().filter(|_| is_ours)?.1.into_owned();
        (!token.is_empty()).then(|| Zeroizing::new(token))
    }
}

/// What a request asks for. `None`: it is not complete yet.
fn target(request: &[u8]) -> Result<Option<Zeroizing<String>>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut headers);
    Ok(match parsed.parse(request)? {
        httparse::Status::Complete(_) if parsed.method == Some("GET") => {
            Some(Zeroizing::new(parsed.path.unwrap_or_default().to_owned()))
        }
        httparse::Status::Complete(_) => Some(Zeroizing::new(String::new())),
        httparse::Status::Partial => None,
    })
}

impl ClientBuilder {
    /// The page where a person signs in, from which a browser comes back to `address` with a login token
    /// ([`login_with_login_token`](Self::login_with_login_token)).
    ///
    /// ```no_run
    /// # async fn example(address: url::Url) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, Error};
    ///
    /// match Client::builder().homeserver("example.org").sso_page(&address).await {
    ///     Ok(page) => println!("open {page}: it comes back to {address} with a login token"),
    ///     Err(Error::LoginNotOffered { offered, .. }) => println!("no single sign-on; there is {}", offered.join(", ")),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::LoginNotOffered`]; of the request.
    pub async fn sso_page(&self, address: &Url) -> Result<Url> {
        let found = self.discover().await?;
        let homeserver = Homeserver::new(&found.base_url, self.way()?)?;
        let kinds = kinds(&homeserver).await?;
        if !kinds.sso {
            return Err(Error::LoginNotOffered {
                wanted: "single sign-on",
                offered: kinds.names,
            });
        }
        let page = format!("{}/_matrix/client/v3/login/sso/redirect", homeserver.base_url());
        let mut page = Url::parse(&page).map_err(|error| Error::Configuration {
            what: error.to_string(),
        })?;
        page.query_pairs_mut().append_pair("redirectUrl", address.as_str());
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(listener: &SsoListener, request: &str) -> (Option<String>, String) {
        let authority = (Ipv4Addr::LOCALHOST, listener.address.port().unwrap());
        let asking = async {
            let mut stream = TcpStream::connect(authority).await.unwrap();
            // Who is not listened to is cut off while it speaks.
            let mut answer = Vec::new();
            let _cut_off = stream.write_all(request.as_bytes()).await;
            let _cut_off = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        };
        let (answer, served) = tokio::join!(asking, async {
            let (stream, _) = listener.listener.accept().await.unwrap();
            listener.speak(stream).await.unwrap()
        });
        (served.map(|token| token.to_string()), answer)
    }

    #[tokio::test]
    async fn a_browser_that_comes_back_brings_a_token() {
        let listener = SsoListener::start().await.unwrap();
        let path = listener.address.path().to_owned();
        let (token, answer) = get(
            &listener,
            &format!("GET {path}?a=b&loginToken=x%2By HTTP/1.1\r\nHost: h\r\n\r\n"),
        )
        .await;
        assert_eq!(token.as_deref(), Some("x+y"));
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with(DONE) && !answer.contains("x+y"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn nobody_else_is_taken_for_it() {
        let listener = SsoListener::start().await.unwrap();
        let path = listener.address.path().to_owned();
        for request in [
            "GET /?loginToken=x HTTP/1.1\r\n\r\n".to_owned(),
            "GET /favicon.ico HTTP/1.1\r\n\r\n".to_owned(),
            format!("GET {path} HTTP/1.1\r\n\r\n"),
            format!("GET {path}?loginToken= HTTP/1.1\r\n\r\n"),
            format!("POST {path}?loginToken=x HTTP/1.1\r\n\r\n"),
            format!("GET http://evil.test{path}?loginToken=x HTTP/1.1\r\n\r\n"),
        ] {
            let (token, answer) = get(&listener, &request).await;
            assert_eq!(token, None, "{request}");
            assert!(answer.starts_with("HTTP/1.1 404"), "{request}");
        }
        assert_eq!(get(&listener, "nonsense\r\n\r\n").await.0, None);
        let endless = format!("GET {path}?{}", "x".repeat(2 * MAX_REQUEST_BYTES));
        assert_eq!(get(&listener, &endless).await.0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer_than_allowed() {
        let listener = SsoListener::start().await.unwrap();
        let error = listener.token(Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.code(), "login_expired");
    }
}
