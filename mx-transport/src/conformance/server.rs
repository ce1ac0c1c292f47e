//! A server that says exactly what it is told to, byte by byte.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// A request's head is no longer than this here, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The request line and the headers, as they were.
    pub head: String,
    /// The body, without its chunks.
    pub body: Bytes,
}

impl Seen {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The path and the query, as they were.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header. Its name is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }
}

/// What is done with a connection when a request has come.
#[derive(Clone, Debug)]
pub enum Step {
    /// Say this.
    Write(Bytes),
    /// Say this over and over: so many times.
    Repeat(Bytes, usize),
    /// Say this one byte at a time, with a pause after each.
    Trickle(Bytes, Duration),
    /// Say nothing for a while.
    Wait(Duration),
    /// Say nothing more, until the other side ends the connection.
    Silence,
    /// End the connection in good order.
    Close,
    /// End the connection at once, so that the other side sees a reset.
    Reset,
}

type Respond = dyn Fn(usize, &Seen) -> Vec<Step> + Send + Sync;

/// A server on a socket of 127.0.0.1, until it is dropped.
pub struct Server {
    address: std::net::SocketAddr,
    book: Arc<Book>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a server has seen.
#[derive(Debug, Default)]
pub(crate) struct Book {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    ended: AtomicUsize,
    news: Notify,
}

impl Server {
    /// A server that does this with the n-th request, counted from 0 over all connections. A connection stays open after
    /// it, unless a step ends it.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub async fn start(respond: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (book, respond) = (Arc::new(Book::default()), Arc::new(respond));
        let accepting = tokio::spawn({
            let book = Arc::clone(&book);
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (book, respond) = (Arc::clone(&book), Arc::clone(&respond) as Arc<Respond>);
                    tokio::spawn(async move { converse(socket, &book, &*respond).await });
                }
            }
        });
        Ok(Self {
            address,
            book,
            accepting,
        })
    }

    /// Its address, such as `http://127.0.0.1:8008`, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came, in their order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.book.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }

    /// Wait until this many requests have come.
    pub async fn requests(&self, wanted: usize) {
        self.until(|server| server.seen().len() >= wanted).await;
    }

    /// Wait until this many connections have ended.
    pub async fn ended(&self, wanted: usize) {
        self.until(|server| server.book.ended.load(Ordering::SeqCst) >= wanted)
            .await;
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let news = self.book.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if done(self) {
                return;
            }
            news.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn converse(mut socket: TcpStream, book: &Book, respond: &Respond) {
    book.connections.fetch_add(1, Ordering::SeqCst);
    let ended = loop {
        let Ok(Some(seen)) = read_request(&mut socket).await else {
            break false;
        };
        let number = {
            let mut all = book.seen.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(seen.clone());
            all.len() - 1
        };
        book.news.notify_waiters();
        let steps = respond(number, &seen);
        let reset = steps.iter().any(|step| matches!(step, Step::Reset));
        match play(&mut socket, steps).await {
            Ok(true) => {}
            _ => break reset,
        }
    };
    if ended {
        // What is unread at a close makes a reset of it; this does it in every case.
        let _as_is = socket.set_zero_linger();
    }
    drop(socket);
    book.ended.fetch_add(1, Ordering::SeqCst);
    book.news.notify_waiters();
}

/// Do these steps on any connection. `false`: it is to be ended; a reset is for who holds the socket.
///
/// # Errors
/// Of the connection.
pub async fn play(stream: &mut (impl AsyncRead + AsyncWrite + Unpin + Send), steps: Vec<Step>) -> io::Result<bool> {
    for step in steps {
        match step {
            Step::Write(bytes) => stream.write_all(&bytes).await?,
            Step::Repeat(bytes, times) => {
                for _ in 0..times {
                    stream.write_all(&bytes).await?;
                }
            }
            Step::Trickle(bytes, pause) => {
                for byte in bytes {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Step::Wait(pause) => tokio::time::sleep(pause).await,
            Step::Silence => {
                let mut ignored = [0; 1024];
                while stream.read(&mut ignored).await? > 0 {}
                return Ok(false);
            }
            Step::Close => {
                stream.shutdown().await?;
                return Ok(false);
            }
            Step::Reset => return Ok(false),
        }
        stream.flush().await?;
    }
    Ok(true)
}

/// The next request of a connection. `None`: there is none.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let mut seen = Seen {
        head: String::from_utf8_lossy(&head).into_owned(),
        body: Bytes::new(),
    };
    if let Some(length) = seen.header("content-length").and_then(|length| length.parse().ok()) {
        let mut body = Vec::new();
        stream.take(length).read_to_end(&mut body).await?;
        seen.body = body.into();
    } else if seen.header("transfer-encoding").is_some() {
        seen.body = read_chunks(stream).await?;
    }
    Ok(Some(seen))
}

async fn read_chunks(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        let length = String::from_utf8_lossy(&line);
        let length = u64::from_str_radix(length.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut chunk = Vec::new();
        (&mut *stream).take(length + 2).read_to_end(&mut chunk).await?;
        if length == 0 {
            return Ok(body.into());
        }
        chunk.truncate(chunk.len().saturating_sub(2));
        body.append(&mut chunk);
    }
}

/// A whole answer: its status, some headers (`name: value\r\n` each), its length and its body.
#[must_use]
pub fn answer(status: u16, headers: &str, body: &[u8]) -> Step {
    let head = format!(
        "HTTP/1.1 {status} Status\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    Step::Write([head.as_bytes(), body].concat().into())
}
