//! Who is measured, and what they are asked to do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Ours,
    Sdk,
}

/// One thing, done in a process of its own.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Log in with an empty store, and publish keys.
    Login,
    /// Ask the homeserver once what is new.
    Sync,
    /// Send so many messages in each of these rooms: one after the other in a room, all rooms at once.
    Send { rooms: Vec<String>, messages: usize },
    /// Ask the homeserver until so many messages were decrypted.
    Receive { messages: usize },
}

/// A task with what it needs, as one process gives it to another.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) who: Contender,
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) directory: PathBuf,
    pub(crate) task: Task,
}

/// What a task came to, beside the time of the whole process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// How many messages, and how long they took without opening the store.
    pub(crate) messages: usize,
    pub(crate) took: Duration,
    /// Of a login.
    pub(crate) token: String,
}

impl Order {
    pub(crate) fn to_json(&self) -> Value {
        let task = match &self.task {
            Task::Login => json!({"do": "login"}),
            Task::Sync => json!({"do": "sync"}),
            Task::Send { rooms, messages } => json!({"do": "send", "rooms": rooms, "messages": messages}),
            Task::Receive { messages } => json!({"do": "receive", "messages": messages}),
        };
        json!({
            "who": if self.who == Contender::Ours { "ours" } else { "sdk" }, "url": self.url, "user": self.user,
            "directory": self.directory, "task": task,
        })
    }

    pub(crate) fn of_json(order: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let task = &order["task"];
        let messages = usize::try_from(task["messages"].as_u64().unwrap_or_default())?;
        Ok(Self {
            who: if order["who"] == "ours" {
                Contender::Ours
            } else {
                Contender::Sdk
            },
            url: text(&order["url"]),
            user: text(&order["user"]),
            directory: text(&order["directory"]).into(),
            task: match task["do"].as_str() {
                Some("login") => Task::Login,
                Some("sync") => Task::Sync,
                Some("send") => {
                    let rooms = task["rooms"].as_array().into_iter().flatten().map(text).collect();
                    Task::Send { rooms, messages }
                }
                Some("receive") => Task::Receive { messages },
                other => bail!("unknown task {other:?}"),
            },
        })
    }
}
