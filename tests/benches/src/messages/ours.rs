//! A device of ours, on SQLite, as an app has it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use mx_olm_orchestrator::{Options, Orchestrator, Outgoing};
use mx_transport::{AccessToken, Homeserver};
use ruma::RoomId;
use serde_json::json;

use super::line::Line;
use crate::comparison::variant::{Home, Variant, device, user};

/// A device and where it lives.
pub(crate) struct Ours {
    pub(crate) device: Orchestrator,
    pub(crate) line: Line,
    _home: Home,
}

impl Ours {
    /// A new device whose keys are published.
    pub(crate) async fn new(line: Line) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = Variant::BASE.open(&home).await?;
        let store = store.into_ours().context("it is a store of ours")?;
        let homeserver = Homeserver::new("http://localhost", Arc::new(line.clone()))?;
        homeserver.set_access_token(AccessToken::new("token")?);
        let opened = Orchestrator::open(homeserver, store, user(), device(), Options::default()).await?;
        opened.publish_keys().await?;
        opened.sync(Duration::ZERO).await?;
        Ok(Self {
            device: opened,
            line,
            _home: home,
        })
    }

    /// Send a message of 100 bytes.
    pub(crate) async fn say(&self, room: &RoomId) -> anyhow::Result<()> {
        let outgoing = Outgoing {
            room_id: room.to_owned(),
            event_type: "m.room.message".to_owned(),
            content: json!({"msgtype": "m.text", "body": "x".repeat(100)}),
            recipients: None,
            into_tombstoned: false,
        };
        self.device.send(outgoing).await?;
        Ok(())
    }
}
