//! Requests to the homeserver that no contender makes: accounts, rooms, members.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use mx_e2ee::{
    ruma::exports::{bytes::Bytes, http},
    transport::{ReqwestTransport, Transport},
};
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "bench-password";

/// The homeserver of a run.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    http: ReqwestTransport,
    names: AtomicU64,
    run: u128,
}

/// An account, and the token of a login.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
}

/// A login that nothing is encrypted with yet.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) token: String,
}

impl Server {
    pub(crate) fn new(url: &str) -> Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            http: ReqwestTransport::builder().build()?,
            names: AtomicU64::new(1),
            run: std::time::UNIX_EPOCH.elapsed()?.as_millis(),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// One request of the client-server API. `path` stands behind `/_matrix/client/v3`.
    pub(crate) async fn call(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
        let uri = format!("{}/_matrix/client/v3{path}", self.url);
        let mut request = http::Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = self.http.send(request.body(Bytes::from(body.to_string()))?).await?;
        let json: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        ensure!(
            answer.status().is_success(),
            "{method} {path}: {} {}",
            answer.status(),
            json["error"]
        );
        Ok(json)
    }

    /// A new account.
    pub(crate) async fn user(&self, name: &str) -> Result<User> {
        let name = format!("{name}{}x{}", self.run, self.names.fetch_add(1, Ordering::Relaxed));
        let body = json!({
            "username": name, "password": PASSWORD, "inhibit_login": true, "auth": {"type": "m.login.dummy"},
        });
        self.call("POST", "/register", None, &body).await?;
        Ok(User { name })
    }

    pub(crate) async fn login(&self, user: &User) -> Result<Login> {
        let identifier = json!({"type": "m.id.user", "user": user.name});
        let body = json!({"type": "m.login.password", "identifier": identifier, "password": PASSWORD});
        let answer = self.call("POST", "/login", None, &body).await?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Ok(Login {
            user: text("user_id"),
            device: text("device_id"),
            token: text("access_token"),
        })
    }
}
