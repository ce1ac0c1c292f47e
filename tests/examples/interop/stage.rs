//! Where a cell plays: homeservers, peers, rooms, and what must be true of every room.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use vodozemac::megolm::MegolmMessage;

use crate::{
    inexcusable::Inexcusable,
    peer::{Kind, Peer, Program},
    plan::Plan,
    server::{Server, encoded},
};

pub(crate) const PASSWORD: &str = "interop-password";

/// What all cells share.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) server: Server,
    /// In every plaintext of this run, and in nothing else.
    marker: String,
    names: AtomicU64,
    directory: TempDir,
}

impl<'a> Stage<'a> {
    pub(crate) async fn new(plan: &'a Plan) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        Ok(Self {
            plan,
            server: Server::start(plan.server("main")?).await?,
            marker: format!("eagle{now}"),
            names: AtomicU64::new(1),
            directory: tempfile::tempdir()?,
        })
    }

    fn number(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    /// A plaintext that was not sent before.
    pub(crate) fn text(&self, what: &str) -> String {
        format!("{} {} {what}", self.marker, self.number())
    }

    pub(crate) fn program(&self, kind: Kind) -> Result<Program> {
        Ok(match kind {
            Kind::Ours => Program::Ours,
            Kind::Nio => Program::Driven(kind, self.plan.driver("nio")?),
            Kind::Js => Program::Driven(kind, self.plan.driver("js")?),
        })
    }

    /// A directory for a device, gone with the stage.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().join(self.number().to_string())
    }

    /// A new user on a homeserver: the local name.
    pub(crate) async fn user(&self, server: &Server, name: &str) -> Result<String> {
        let user = format!("{name}{}", self.number());
        server.register(&user, PASSWORD).await?;
        Ok(user)
    }

    /// A new user with a device, on the homeserver without limits.
    pub(crate) async fn peer(&self, kind: Kind, name: &str) -> Result<Peer> {
        self.peer_on(&self.server, self.server.url(), kind, name).await
    }

    /// The same on another homeserver, or through a proxy.
    pub(crate) async fn peer_on(&self, server: &Server, url: &str, kind: Kind, name: &str) -> Result<Peer> {
        let user = self.user(server, name).await?;
        let peer = Peer::login(self.program(kind)?, url, &user, PASSWORD, self.directory()).await?;
        keys_published(server, &peer).await?;
        Ok(peer)
    }

    /// Another device of a peer's user.
    pub(crate) async fn another(&self, peer: &Peer) -> Result<Peer> {
        self.another_of(peer.kind(), peer).await
    }

    /// Another device of a peer's user, of this implementation.
    pub(crate) async fn another_of(&self, kind: Kind, peer: &Peer) -> Result<Peer> {
        let local = peer.user.trim_start_matches('@');
        let local = local.split(':').next().unwrap_or(local);
        let program = self.program(kind)?;
        let another = Peer::login(program, self.server.url(), local, PASSWORD, self.directory()).await?;
        keys_published(&self.server, &another).await?;
        Ok(another)
    }

    /// A room of `owner`, which everybody else joins, and which everybody knows.
    pub(crate) async fn room(&self, owner: &Peer, others: &[&Peer]) -> Result<String> {
        room_on(&self.server, owner, others).await
    }

    /// Everybody knows the room, its members and their devices.
    pub(crate) async fn ready(&self, room: &str, all: &[&Peer]) -> Result<()> {
        ready(room, all).await
    }

    /// One after the other says something, and all others read it.
    pub(crate) async fn talk(&self, room: &str, all: &[&Peer]) -> Result<()> {
        for speaker in all {
            let text = self.text("talk");
            let event = speaker.say(room, &text).await?;
            for listener in all.iter().filter(|one| one.device != speaker.device) {
                let read = listener.reads(&event).await?;
                ensure!(
                    read["content"]["body"] == text.as_str(),
                    "{} read something else",
                    listener.name()
                );
                ensure!(read["encrypted"] == true, "{} read plaintext", listener.name());
            }
        }
        Ok(())
    }

    /// Nothing that was ever said is on a homeserver's disk.
    pub(crate) fn only_ciphertext(&self, server: &Server) -> Result<()> {
        ensure!(!server.holds(&self.marker)?, "the homeserver holds a plaintext");
        Ok(())
    }
}

/// The device's keys and one-time keys are on the homeserver: a peer publishes them after its first sync.
async fn keys_published(server: &Server, peer: &Peer) -> Result<()> {
    for _ in 0..400 {
        let counts = server
            .call("POST", "/keys/upload", Some(&peer.token().await), Some(json!({})))
            .await?;
        let query = json!({"device_keys": {&peer.user: [&peer.device]}});
        let keys = server
            .call("POST", "/keys/query", Some(&peer.token().await), Some(query))
            .await?;
        let keys = &keys["device_keys"][&peer.user][&peer.device];
        if keys.is_object() && counts["one_time_key_counts"]["signed_curve25519"].as_u64() >= Some(1) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    bail!("{} published no keys", peer.name())
}

pub(crate) async fn create(server: &Server, owner: &Peer) -> Result<String> {
    let body = json!({
        "preset": "private_chat",
        "initial_state": [{
            "type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"},
        }],
    });
    let made = server
        .call("POST", "/createRoom", Some(&owner.token().await), Some(body))
        .await?;
    made["room_id"].as_str().map(str::to_owned).context("no room id")
}

/// Something about somebody's membership: `invite`, `kick`.
pub(crate) async fn membership(server: &Server, what: &str, room: &str, by: &Peer, whom: &Peer) -> Result<()> {
    let path = format!("/rooms/{}/{what}", encoded(room));
    let body = json!({"user_id": whom.user});
    server
        .call("POST", &path, Some(&by.token().await), Some(body))
        .await
        .map(drop)
}

/// `join` or `leave`.
pub(crate) async fn go(server: &Server, what: &str, room: &str, who: &Peer) -> Result<()> {
    let path = format!("/rooms/{}/{what}", encoded(room));
    server
        .call("POST", &path, Some(&who.token().await), Some(json!({})))
        .await
        .map(drop)
}

pub(crate) async fn room_on(server: &Server, owner: &Peer, others: &[&Peer]) -> Result<String> {
    let room = create(server, owner).await?;
    for other in others {
        membership(server, "invite", &room, owner, other).await?;
        go(server, "join", &room, other).await?;
    }
    let mut all = vec![owner];
    all.extend(others);
    ready(&room, &all).await?;
    Ok(room)
}

pub(crate) async fn ready(room: &str, all: &[&Peer]) -> Result<()> {
    let members: Vec<_> = all.iter().map(|peer| &peer.user).collect();
    let devices: Vec<_> = all.iter().map(|peer| (&peer.user, &peer.device)).collect();
    for peer in all {
        let command = json!({"do": "ready", "room": room, "members": members, "devices": devices});
        peer.ask(command).await?;
    }
    Ok(())
}

/// What a room holds: every message encrypted, and no index of a session used twice. Returns how many messages there are.
pub(crate) async fn sound(server: &Server, room: &str, member: &Peer) -> Result<usize> {
    let mut used = BTreeMap::new();
    for event in server.history(room, &member.token().await).await? {
        let id = event["event_id"].as_str().unwrap_or_default().to_owned();
        if event["type"] == "m.room.message" {
            return Err(Inexcusable(format!("{id} is plaintext")).into());
        }
        let Some((session, index)) = place(&event) else {
            continue;
        };
        if let Some(first) = used.insert((session, index), id.clone()) {
            let both = format!("{first} and {id} use the same index {index} of a session");
            return Err(Inexcusable(both).into());
        }
    }
    Ok(used.len())
}

/// Which session, and which index of it, an encrypted event uses.
fn place(event: &Value) -> Option<(String, u32)> {
    let content = &event["content"];
    let message = MegolmMessage::from_base64(content["ciphertext"].as_str()?).ok()?;
    Some((content["session_id"].as_str()?.to_owned(), message.message_index()))
}

/// The session that encrypted an event.
pub(crate) async fn session_of(server: &Server, room: &str, event: &str, member: &Peer) -> Result<String> {
    let path = format!("/rooms/{}/event/{}", encoded(room), encoded(event));
    let event = server.call("GET", &path, Some(&member.token().await), None).await?;
    place(&event).map(|(session, _)| session).context("it is not encrypted")
}
