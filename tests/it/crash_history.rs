//! A history with many ends: three devices and a room, what was said so far, and copies of all of it.
//!
//! A [`History`] is made once from a seed. Each [`Scene`] begins where it stopped, on a homeserver and on disks of its own,
//! so that hundreds of ends cost one beginning.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mx_e2ee::{Client, Event, Options};
use mx_test_homeserver::Homeserver;
use mx_transport::Transport;
use ruma::OwnedRoomId;
use tempfile::TempDir;

use crate::{
    disks::{Disk, Line, Plan},
    world::{World, inbox::Inbox, key, seed::Seed},
};

/// A device whose process does not run: its disk, and the directory with its login.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    name: &'static str,
    pub(crate) disk: Disk,
    directory: Arc<TempDir>,
    pub(crate) options: Options,
}

impl Parked {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            disk: Disk::default(),
            directory: Arc::new(tempfile::tempdir().unwrap()),
            options: Options::default(),
        }
    }

    pub(crate) fn copy(&self) -> Self {
        Self {
            disk: self.disk.copy(),
            ..self.clone()
        }
    }

    fn builder(&self, server: &Homeserver, plan: &Plan) -> mx_e2ee::ClientBuilder {
        self.builder_over(Self::line(server, plan), plan)
    }

    fn line(server: &Homeserver, plan: &Plan) -> Arc<dyn Transport> {
        Arc::new(Line {
            inner: server.transport(),
            plan: plan.clone(),
        })
    }

    fn builder_over(&self, line: Arc<dyn Transport>, plan: &Plan) -> mx_e2ee::ClientBuilder {
        Client::builder()
            .homeserver("http://localhost")
            .transport(line)
            .options(self.options.clone())
            .backend(self.disk.open(plan), key())
            .directory(self.directory.path())
    }

    /// A process begins with the login that is there.
    pub(crate) async fn open(&self, server: &Homeserver, plan: &Plan) -> mx_e2ee::Result<Client> {
        self.builder(server, plan).open().await
    }

    /// A process begins with a password.
    pub(crate) async fn login(&self, server: &Homeserver, plan: &Plan) -> mx_e2ee::Result<Client> {
        self.builder(server, plan).login(self.name, "password").await
    }

    /// The same, with somebody on the line.
    pub(crate) async fn login_over(
        &self,
        server: &Homeserver,
        plan: &Plan,
        over: impl FnOnce(Arc<dyn Transport>) -> Arc<dyn Transport>,
    ) -> mx_e2ee::Result<Client> {
        let line = over(Self::line(server, plan));
        self.builder_over(line, plan).login(self.name, "password").await
    }

    /// A process begins in whatever way the last one left open.
    pub(crate) async fn open_or_login(&self, server: &Homeserver, plan: &Plan) -> mx_e2ee::Result<Client> {
        match self.open(server, plan).await {
            Err(error) if matches!(error.code(), "not_logged_in" | "store_lost") => self.login(server, plan).await,
            opened => opened,
        }
    }
}

/// What a reader was told, and must have been told in the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    pub(crate) inbox: Inbox,
    /// What was confirmed to be said to it, in order.
    pub(crate) said: Vec<String>,
    /// What was meant to be, whether it was confirmed or not.
    tried: Vec<String>,
}

impl Reader {
    /// All that was confirmed was read, and what was read was said; each once, in order.
    fn has_read_everything(&self) {
        let read = self.inbox.texts();
        let place = |text| self.tried.iter().position(|tried| tried == text);
        let places = read.iter().map(place);
        assert!(
            places.clone().all(|place| place.is_some()) && places.is_sorted(),
            "read {read:?}, tried {:?}",
            self.tried
        );
        for text in &self.said {
            assert!(
                read.contains(text),
                "I7: {text:?} is missing: read {read:?}, said {:?}",
                self.said
            );
        }
        let mut sent = BTreeMap::new();
        for event in &self.inbox.others {
            let is_so = match event {
                Event::Invite(_) => true,
                // What a killed process left, or a dropped call: one event, whoever sends it and however often.
                Event::Sent(one) => *sent.entry(&one.transaction_id).or_insert(&one.event_id) == &one.event_id,
                _ => false,
            };
            assert!(is_so, "{event:?}");
        }
    }
}

/// A beginning.
pub(crate) struct History {
    pub(crate) server: Homeserver,
    alice: Parked,
    pub(crate) bob: Parked,
    carol: Parked,
    room: OwnedRoomId,
    told: Told,
}

/// What was said, and who was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    bob: Reader,
    alice: Reader,
    number: u32,
    carol_is_in: bool,
}

impl Told {
    fn text(&mut self, who: &str) -> String {
        self.number += 1;
        format!("{} of {who}", self.number)
    }
}

/// Let everybody read what there is, and keep the book.
pub(crate) async fn read(client: &Client, inbox: &mut Inbox) -> mx_e2ee::Result<bool> {
    inbox.acknowledging();
    let events = client.receive(Duration::ZERO).await?;
    inbox.acknowledged();
    inbox.given(&events);
    Ok(!events.is_empty())
}

impl History {
    /// Some turns of everything that can happen before.
    pub(crate) async fn of(seed: &mut Seed) -> Self {
        let turns = seed.below(7);
        Self::begin(seed, turns).await
    }

    /// Three devices in a room, and nothing was said.
    pub(crate) async fn new() -> Self {
        Self::begin(&mut Seed::new(""), 0).await
    }

    async fn begin(seed: &mut Seed, turns: u64) -> Self {
        let server = Homeserver::new();
        let plan = Plan::default();
        let parked = ["alice", "bob", "carol"].map(Parked::new);
        let mut clients = Vec::new();
        for device in &parked {
            let _user = server.register(device.name, "password");
            clients.push(device.login(&server, &plan).await.unwrap());
        }
        let [alice, bob, carol] = parked;
        let others: Vec<_> = clients
            .iter()
            .skip(1)
            .map(|client| client.user_id().to_owned())
            .collect();
        let room = clients[0].create_room(None, &others).await.unwrap().id().to_owned();
        for client in &clients[1..] {
            client.join(room.as_str()).await.unwrap();
        }
        let told = Told {
            carol_is_in: true,
            ..Told::default()
        };
        let mut history = Self {
            server,
            alice,
            bob,
            carol,
            room,
            told,
        };
        for _ in 0..turns {
            history.turn(seed, &clients).await;
        }
        for client in clients {
            client.close().await.unwrap();
        }
        history.told.bob.inbox.restarted();
        history.told.alice.inbox.restarted();
        history
    }

    async fn turn(&mut self, seed: &mut Seed, clients: &[Client]) {
        let [alice, bob, carol] = clients else { return };
        match seed.below(6) {
            0 => self.say(alice, "alice").await,
            1 if self.told.carol_is_in => self.say(carol, "carol").await,
            2 => self.say(bob, "bob").await,
            3 => while read(bob, &mut self.told.bob.inbox).await.unwrap() {},
            4 => {
                self.server.exhaust_keys(bob.user_id(), bob.device_id());
                bob.sync().await.unwrap();
            }
            _ => {
                turn_carol(alice, carol, &self.room, self.told.carol_is_in).await;
                self.told.carol_is_in = !self.told.carol_is_in;
            }
        }
    }

    async fn say(&mut self, client: &Client, who: &str) {
        let text = self.told.text(who);
        client.room(&self.room).send_text(text.clone()).await.unwrap();
        for (reader, name) in [(&mut self.told.bob, "bob"), (&mut self.told.alice, "alice")] {
            if name != who {
                reader.tried.push(text.clone());
                reader.said.push(text.clone());
            }
        }
    }

    /// Go on from here, on a homeserver and disks of its own.
    pub(crate) async fn scene(&self) -> Scene {
        let server = self.server.fork();
        let alice = self.alice.copy().open(&server, &Plan::default()).await.unwrap();
        Scene {
            world: World::quiet(server.clone()),
            alice,
            bob: self.bob.copy(),
            carol: self.carol.copy(),
            room: self.room.clone(),
            told: self.told.clone(),
            server,
        }
    }
}

/// Carol goes, or comes back: either way the next message has another key.
async fn turn_carol(alice: &Client, carol: &Client, room: &OwnedRoomId, is_in: bool) {
    if is_in {
        carol.room(room).leave().await.unwrap();
    } else {
        alice.room(room).invite(carol.user_id()).await.unwrap();
        carol.join(room.as_str()).await.unwrap();
    }
}

/// One end of a history. Bob's process is the one that suffers.
pub(crate) struct Scene {
    world: World,
    pub(crate) server: Homeserver,
    pub(crate) alice: Client,
    pub(crate) bob: Parked,
    carol: Parked,
    pub(crate) room: OwnedRoomId,
    told: Told,
}

impl Scene {
    /// Alice says something.
    pub(crate) async fn alice_says(&mut self) {
        self.alice_tries_to_say().await.unwrap();
    }

    /// Alice says something, if nothing stops her.
    pub(crate) async fn alice_tries_to_say(&mut self) -> mx_e2ee::Result<()> {
        let text = self.told.text("alice");
        self.told.bob.tried.push(text.clone());
        self.alice.sync().await?;
        self.world.say(&self.alice.room(&self.room), &text).await?;
        self.told.bob.said.push(text);
        Ok(())
    }

    /// Alice reads once. False: there was nothing.
    pub(crate) async fn alice_reads(&mut self) -> mx_e2ee::Result<bool> {
        read(&self.alice, &mut self.told.alice.inbox).await
    }

    /// Bob says something, from this process. Only what is confirmed has to arrive.
    pub(crate) async fn bob_says(&mut self, bob: &Client) -> mx_e2ee::Result<()> {
        let text = self.told.text("bob");
        self.told.alice.tried.push(text.clone());
        self.world.say(&bob.room(&self.room), &text).await?;
        self.told.alice.said.push(text);
        Ok(())
    }

    /// Bob reads once. False: there was nothing.
    pub(crate) async fn bob_reads(&mut self, bob: &Client) -> mx_e2ee::Result<bool> {
        read(bob, &mut self.told.bob.inbox).await
    }

    /// Carol goes or comes back.
    pub(crate) async fn carol_turns(&mut self) {
        let carol = self.carol.open(&self.server, &Plan::default()).await.unwrap();
        turn_carol(&self.alice, &carol, &self.room, self.told.carol_is_in).await;
        self.told.carol_is_in = !self.told.carol_is_in;
        carol.close().await.unwrap();
    }

    /// Carol goes, if nothing stops her.
    pub(crate) async fn carol_tries_to_leave(&mut self) -> mx_e2ee::Result<()> {
        let carol = self.carol.open(&self.server, &Plan::default()).await?;
        carol.room(&self.room).leave().await
    }

    /// What fails when something happened that never may.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Carol is in the room.
    pub(crate) async fn carol_is_here(&mut self) {
        if !self.told.carol_is_in {
            self.carol_turns().await;
        }
    }

    /// Carol has another device from now on. Its id.
    pub(crate) async fn carol_logs_in_again(&self) -> ruma::OwnedDeviceId {
        let another = Parked::new("carol")
            .login(&self.server, &Plan::default())
            .await
            .unwrap();
        let device = another.device_id().to_owned();
        another.close().await.unwrap();
        device
    }

    /// Carol has two more devices, and one of them has no one-time keys left.
    pub(crate) async fn carol_logs_in_twice(&self) {
        let without_keys = self.carol_logs_in_again().await;
        self.server
            .exhaust_keys(ruma::user_id!("@carol:localhost"), &without_keys);
        self.carol_logs_in_again().await;
    }

    /// A process of bob's has ended, wherever it was.
    pub(crate) fn bob_ended(&mut self) {
        self.told.bob.inbox.restarted();
        self.bob_was_interrupted();
    }

    /// What bob's process was doing was dropped: it may have encrypted something that it has not put.
    pub(crate) fn bob_was_interrupted(&self) {
        let user = ruma::user_id!("@bob:localhost");
        for device in self.server.devices_of(user) {
            self.server.expect_late_event(user, device.as_str().into());
        }
    }

    /// Everything works again: nothing is missing, nothing came twice, and both sides go on. The invariants of the wire are
    /// checked when the scene goes.
    pub(crate) async fn ends_well(mut self, bob: Client) {
        self.alice_says().await;
        while self.bob_reads(&bob).await.unwrap() {}
        self.bob_says(&bob).await.unwrap();
        self.alice_says().await;
        while self.bob_reads(&bob).await.unwrap() {}
        while self.alice_reads().await.unwrap() {}
        self.told.bob.has_read_everything();
        self.told.alice.has_read_everything();
        bob.close().await.unwrap();
        drop(self.world);
    }
}
