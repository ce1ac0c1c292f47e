//! Who is there, in which rooms, and what they can be made to do.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{Dice, book::Fate};
use crate::{
    peer::{Kind, Peer},
    proxy::{Proxy, Weather},
    stage::{self, Stage},
};

/// Everybody of ours stands behind a proxy of their own.
pub(super) struct Cast {
    pub(super) ours: Vec<(Peer, Arc<Proxy>)>,
    pub(super) theirs: Vec<Peer>,
    /// A room and its members: first ours, then theirs, by their numbers.
    rooms: Vec<(String, Vec<usize>)>,
    storms: JoinSet<()>,
}

impl Cast {
    pub(super) async fn assemble(stage: &Stage<'_>) -> Result<Self> {
        let mut ours = Vec::new();
        for _ in 0..3 {
            let proxy = Arc::new(Proxy::before(stage.server.url()).await?);
            let peer = stage.peer_on(&stage.server, &proxy.url(), Kind::Ours, "ours").await?;
            ours.push((peer, proxy));
        }
        let theirs = vec![stage.peer(Kind::Js, "js").await?, stage.peer(Kind::Nio, "nio").await?];
        let mut cast = Self {
            ours,
            theirs,
            rooms: Vec::new(),
            storms: JoinSet::new(),
        };
        for members in [vec![0, 1, 2, 3, 4], vec![0, 1, 3], vec![2, 1, 4], vec![0, 2]] {
            let all: Vec<&Peer> = members.iter().filter_map(|who| cast.peer(*who)).collect();
            let (owner, others) = all.split_first().context("an empty room")?;
            let room = stage.room(owner, others).await?;
            stage.talk(&room, &all).await?;
            cast.rooms.push((room, members));
        }
        Ok(cast)
    }

    fn peer(&self, who: usize) -> Option<&Peer> {
        match self.ours.get(who) {
            Some((peer, _)) => Some(peer),
            None => self.theirs.get(who - self.ours.len()),
        }
    }

    pub(super) const fn is_ours(&self, who: usize) -> bool {
        who < self.ours.len()
    }

    pub(super) fn id(&self, who: usize) -> String {
        self.peer(who).map(|peer| peer.device.clone()).unwrap_or_default()
    }

    pub(super) fn ours_id(&self, who: usize) -> String {
        self.id(who)
    }

    pub(super) fn everybody(&self) -> Vec<&Peer> {
        self.ours.iter().map(|(peer, _)| peer).chain(&self.theirs).collect()
    }

    /// The members of a room.
    pub(super) fn readers(&self, room: &str) -> Vec<&Peer> {
        let found = self.rooms.iter().find(|(id, _)| id == room);
        found
            .into_iter()
            .flat_map(|(_, members)| members)
            .filter_map(|who| self.peer(*who))
            .collect()
    }

    /// Every room, with somebody who is in it.
    pub(super) fn rooms(&self) -> Vec<(String, &Peer)> {
        let first = |members: &Vec<usize>| members.first().and_then(|who| self.peer(*who));
        self.rooms
            .iter()
            .filter_map(|(room, members)| Some((room.clone(), first(members)?)))
            .collect()
    }

    /// One of ours that may be restarted and killed. The last runs through: what leaks shows there.
    pub(super) fn mortal(&self, dice: &mut Dice) -> usize {
        dice.roll(self.ours.len().saturating_sub(1))
    }

    /// A room that somebody of ours is in.
    pub(super) fn room_of(&self, who: usize, dice: &mut Dice) -> String {
        let rooms: Vec<&String> = self
            .rooms
            .iter()
            .filter(|(_, members)| members.contains(&who))
            .map(|(room, _)| room)
            .collect();
        rooms
            .get(dice.roll(rooms.len()))
            .map(|room| (*room).clone())
            .unwrap_or_default()
    }

    /// Somebody in some room.
    pub(super) fn speaker(&self, dice: &mut Dice) -> (usize, String) {
        let Some((room, members)) = self.rooms.get(dice.roll(self.rooms.len())) else {
            return (0, String::new());
        };
        let who = members.get(dice.roll(members.len())).copied().unwrap_or_default();
        (who, room.clone())
    }

    /// All speak at the same time.
    pub(super) async fn say_all(&self, planned: &[(usize, String, String)]) -> Vec<(Fate, Duration)> {
        let one = |(who, room, text): &(usize, String, String)| {
            let (peer, room, text) = (self.peer(*who), room.clone(), text.clone());
            async move {
                let started = Instant::now();
                let fate = match peer {
                    Some(peer) => told(peer.say(&room, &text).await),
                    None => Fate::Refused("nobody".to_owned()),
                };
                (fate, started.elapsed())
            }
        };
        futures_util::future::join_all(planned.iter().map(one)).await
    }

    /// Close and open.
    pub(super) async fn restart(&mut self, who: usize) -> Result<()> {
        let (peer, _) = self.ours.get_mut(who).context("nobody")?;
        peer.close().await?;
        peer.open().await
    }

    pub(super) async fn restart_peer(&mut self, who: usize) -> Result<()> {
        let peer = self.theirs.get_mut(who).context("nobody")?;
        peer.close().await?;
        peer.open().await
    }

    pub(super) async fn rotate(&self, who: usize, room: &str) -> Result<()> {
        let peer = self.peer(who).context("nobody")?;
        peer.ask(json!({"do": "rotate", "room": room})).await.map(drop)
    }

    /// SIGKILL when so many sends were answered, and open again.
    pub(super) async fn kill_while_sending(
        &mut self,
        who: usize,
        room: &str,
        texts: &[String],
        after: usize,
    ) -> Result<Vec<Fate>> {
        let (peer, _) = self.ours.get_mut(who).context("nobody")?;
        let (done, mut answered) = tokio::sync::watch::channel(0_usize);
        let fates = {
            let peer = &*peer;
            let one = |text: &String| {
                let (text, done) = (text.clone(), &done);
                async move {
                    let sent = peer.say(room, &text).await;
                    done.send_modify(|count| *count += 1);
                    sent
                }
            };
            let all = futures_util::future::join_all(texts.iter().map(one));
            let killing = async {
                answered.wait_for(|count| *count >= after).await?;
                peer.sigkill()
            };
            let (fates, killed) = tokio::join!(all, killing);
            killed?;
            fates
        };
        peer.kill().await?;
        peer.open().await?;
        Ok(fates.into_iter().map(told).collect())
    }

    /// Bad weather for one of ours, which ends by itself.
    pub(super) fn storm(&mut self, who: usize, weather: Weather, lasts: Duration) {
        let Some((_, proxy)) = self.ours.get(who) else { return };
        let proxy = Arc::clone(proxy);
        proxy.weather(weather);
        self.storms.spawn(async move {
            tokio::time::sleep(lasts).await;
            proxy.weather(Weather::Fair);
        });
    }

    /// No more storms.
    pub(super) async fn calm(&mut self) -> Result<()> {
        while let Some(ended) = self.storms.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Everybody of ours says one more thing in each room, which takes with it what waits.
    pub(super) async fn flush(&self, stage: &Stage<'_>) -> Result<()> {
        for (room, members) in &self.rooms {
            let all: Vec<&Peer> = members.iter().filter_map(|who| self.peer(*who)).collect();
            stage::ready(room, &all).await?;
            stage.talk(room, &all).await?;
        }
        Ok(())
    }
}

/// What a sender was told.
fn told(sent: Result<String>) -> Fate {
    match sent {
        Ok(event) => Fate::Accepted(event),
        Err(error) => {
            let text = format!("{error:#}");
            if text.contains("[send_pending]") {
                Fate::Pending
            } else if text.contains("the process ended") || text.contains("it does not run") {
                Fate::Interrupted
            } else {
                let code = text
                    .rsplit_once('[')
                    .map_or(text.as_str(), |(_, code)| code.trim_end_matches(']'));
                Fate::Refused(code.to_owned())
            }
        }
    }
}
