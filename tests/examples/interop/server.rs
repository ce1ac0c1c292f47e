//! A real Synapse: started, stopped, started again; and requests to it as anybody.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use mx_transport::{ReqwestTransport, Transport};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::Instant,
};

use crate::plan::Configured;

/// A first start takes six seconds on an idle machine.
const READY: Duration = Duration::from_secs(90);

/// A homeserver that runs as long as this is held.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) configured: Configured,
    child: Mutex<Option<Child>>,
    http: ReqwestTransport,
    transactions: AtomicU64,
}

/// Who a request comes from: the token of a login, or nobody.
pub(crate) type Token<'a> = Option<&'a str>;

impl Server {
    pub(crate) async fn start(configured: Configured) -> Result<Self> {
        let server = Self {
            configured,
            child: Mutex::default(),
            http: ReqwestTransport::builder().build()?,
            transactions: AtomicU64::new(1),
        };
        server.up().await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> &str {
        &self.configured.url
    }

    /// Start it, and wait until it answers.
    pub(crate) async fn up(&self) -> Result<()> {
        let mut child = Command::new(&self.configured.python)
            .args(["-m", "synapse.app.homeserver", "-c"])
            .arg(&self.configured.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start synapse")?;
        let end = Instant::now() + READY;
        while self.call("GET", "/versions", None, None).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("synapse ended with {status} while it started");
            }
            ensure!(Instant::now() < end, "synapse did not answer within {READY:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        *self.child.lock().await = Some(child);
        Ok(())
    }

    /// End it as a service manager does, or at once.
    pub(crate) async fn down(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// One request of the client-server API. `path` stands behind `/_matrix/client/v3`.
    pub(crate) async fn call(&self, method: &str, path: &str, token: Token<'_>, body: Option<Value>) -> Result<Value> {
        let version = if path == "/versions" { "" } else { "/v3" };
        let uri = format!("{}/_matrix/client{version}{path}", self.url());
        let mut request = http::Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let answer = self.http.send(request.body(body)?).await?;
        let json: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let short = path.split('?').next().unwrap_or(path);
        ensure!(
            answer.status().is_success(),
            "{method} {short}: {} {} {}",
            answer.status(),
            json["errcode"],
            json["error"]
        );
        Ok(json)
    }

    /// A transaction id that was not used.
    pub(crate) fn transaction(&self) -> String {
        format!("m{}", self.transactions.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn register(&self, user: &str, password: &str) -> Result<()> {
        let body =
            json!({"username": user, "password": password, "inhibit_login": true, "auth": {"type": "m.login.dummy"}});
        self.call("POST", "/register", None, Some(body)).await.map(drop)
    }

    /// Everything of a room that a member may see, oldest first.
    pub(crate) async fn history(&self, room: &str, token: &str) -> Result<Vec<Value>> {
        let (mut events, mut from) = (Vec::new(), String::new());
        loop {
            let path = format!("/rooms/{}/messages?dir=b&limit=500{from}", encoded(room));
            let page = self.call("GET", &path, Some(token), None).await?;
            let chunk = page["chunk"].as_array().context("no chunk")?;
            events.extend(chunk.iter().cloned());
            match page["end"].as_str() {
                Some(end) if !chunk.is_empty() => from = format!("&from={}", encoded(end)),
                _ => break,
            }
        }
        events.reverse();
        Ok(events)
    }

    /// Whether any file of the server holds this text.
    pub(crate) fn holds(&self, text: &str) -> Result<bool> {
        search(&self.configured.data, text.as_bytes())
    }
}

fn search(directory: &Path, text: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            search(&path, text)?
        } else {
            // A journal may be gone again by now.
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A piece of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
