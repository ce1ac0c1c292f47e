//! Killed around the renewal of a token: kill point K23, row NW-25.
//!
//! The process has a login whose access token has expired, and sends a message. It is killed before and after each of its
//! operations of the disk and of the network, and where it had an answer to its renewal also with what a file that was
//! being written leaves behind. (What a killed write of the login's file can leave at all is in `mx-e2ee`'s tests of it;
//! `mx` itself, killed with its files, is in `ending.rs`.) The next process goes on without a password.

use std::{fs, path::Path, time::Duration};

use mx_e2ee::{Client, Event};
use mx_test_homeserver::Homeserver;
use ruma::OwnedRoomId;
use tempfile::TempDir;

use crate::{
    disks::{Disk, Line, Moment, Plan, Point, Trouble},
    world::{World, key, seed::tell},
};

const LOGIN: &str = "session.json";

/// A device whose process does not run.
struct Parked {
    disk: Disk,
    directory: TempDir,
}

impl Parked {
    fn new() -> Self {
        Self {
            disk: Disk::default(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn copy(&self) -> Self {
        let copy = Self {
            disk: self.disk.copy(),
            directory: tempfile::tempdir().unwrap(),
        };
        fs::copy(self.path().join(LOGIN), copy.path().join(LOGIN)).unwrap();
        copy
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn builder(&self, server: &Homeserver, plan: &Plan) -> mx_e2ee::ClientBuilder {
        let line = Line {
            inner: server.transport(),
            plan: plan.clone(),
        };
        Client::builder()
            .homeserver("http://localhost")
            .transport(std::sync::Arc::new(line))
            .backend(self.disk.open(plan), key())
            .directory(self.path())
    }

    async fn open(&self, server: &Homeserver, plan: &Plan) -> Client {
        self.builder(server, plan).open().await.unwrap()
    }
}

struct Beginning {
    server: Homeserver,
    alice: Parked,
    bob: Parked,
    room: OwnedRoomId,
}

/// Alice and bob have spoken, and alice's access token expires.
async fn beginning() -> Beginning {
    let server = Homeserver::new();
    let (alice, bob) = (Parked::new(), Parked::new());
    server.tokens_last(Duration::from_secs(300));
    let plan = Plan::default();
    let mut clients = Vec::new();
    for (name, device) in [("alice", &alice), ("bob", &bob)] {
        let _user = server.register(name, "password");
        clients.push(device.builder(&server, &plan).login(name, "password").await.unwrap());
    }
    let invited = [clients[1].user_id().to_owned()];
    let room = clients[0].create_room(None, &invited).await.unwrap().id().to_owned();
    clients[1].join(room.as_str()).await.unwrap();
    clients[0].room(&room).send_text("zero").await.unwrap();
    assert_eq!(texts(&clients[1]).await, ["zero"]);
    server.expire_token(clients[0].user_id(), clients[0].device_id(), true);
    for client in clients {
        client.close().await.unwrap();
    }
    Beginning {
        server,
        alice,
        bob,
        room,
    }
}

async fn texts(client: &Client) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            return texts;
        }
        texts.extend(events.into_iter().filter_map(|event| match event {
            Event::Message(message) => message.body().map(str::to_owned),
            _ => None,
        }));
    }
}

/// What is beside the login when the process is dead.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    /// The file that was to become the login, and was not written to its end.
    Half,
    /// The same, written to its end and without its name.
    Whole,
}

/// Whether it was killed at its `nth` operation, and which one that was.
fn killed(beginning: &Beginning, nth: u64, moment: Moment, left: Left) -> Option<String> {
    tell("", async || {
        let world = World::quiet(beginning.server.fork());
        let (alice, bob) = (beginning.alice.copy(), beginning.bob.copy());
        let plan = Plan::default();
        plan.arm(Point {
            nth,
            moment,
            trouble: Trouble::Kill,
            ..Point::dry(|_, _| true)
        });
        let sending = async {
            let client = alice.open(&world, &plan).await;
            client.room(&beginning.room).send_text("one").await.unwrap();
            client.sync().await.unwrap();
        };
        let done = plan.until_killed(sending).await.is_some();
        let struck = plan.struck();
        assert_ne!(done, struck.is_some());
        leave(alice.path(), left);
        let client = alice.open(&world, &Plan::default()).await;
        client.sync().await.unwrap();
        client.room(&beginning.room).send_text("two").await.unwrap();
        client.close().await.unwrap();
        let bob = bob.open(&world, &Plan::default()).await;
        let read = texts(&bob).await;
        let at = struck.clone().unwrap_or_default();
        assert!(read == ["one", "two"] || (!done && read == ["two"]), "{at}: {read:?}");
        let renewals = world
            .log()
            .iter()
            .filter(|exchange| exchange.path.ends_with("/refresh"))
            .count();
        assert!((1..=2).contains(&renewals), "{at}: renewed {renewals} times");
        assert!(
            !alice.path().join("session.json.new").exists(),
            "{at}: nothing is left over"
        );
        struck
    })
}

fn leave(directory: &Path, left: Left) {
    let login = fs::read(directory.join(LOGIN)).unwrap();
    let staged = match left {
        Left::Nothing => return,
        Left::Half => &login[..login.len() / 2],
        Left::Whole => &login[..],
    };
    fs::write(directory.join("session.json.new"), staged).unwrap();
}

#[test]
fn k23_killed_at_every_operation_around_a_renewal() {
    let beginning = tell("", async || beginning().await);
    let (mut seen, mut before, mut after) = (0, false, false);
    for moment in [Moment::Before, Moment::After] {
        for nth in 1.. {
            let Some(struck) = killed(&beginning, nth, moment, Left::Nothing) else {
                break;
            };
            seen += 1;
            before |= struck.contains("Before Request /_matrix/client/v3/refresh");
            after |= struck.contains("After Request /_matrix/client/v3/refresh");
        }
    }
    assert!(before && after, "the renewal is one of them");
    assert!(seen > 20, "it has {seen} operations");
}

/// Row NW-25: between the answer and the disk, and between the disk and the first use.
#[test]
fn nw_25_killed_between_a_renewal_and_its_use_whatever_its_file_was() {
    let beginning = tell("", async || beginning().await);
    let mut renewals = 0;
    for nth in 1.. {
        // The answer is here, and was not kept.
        let Some(struck) = killed(&beginning, nth, Moment::After, Left::Half) else {
            break;
        };
        if struck.contains("/refresh") {
            renewals += 1;
            killed(&beginning, nth, Moment::After, Left::Whole);
            // It was kept, and not used: the next request does not leave.
            let next = (nth + 1..).find_map(|nth| {
                let struck = killed(&beginning, nth, Moment::Before, Left::Nothing)?;
                struck.contains("Request").then_some(struck)
            });
            assert!(!next.unwrap().contains("/refresh"));
            break;
        }
    }
    assert_eq!(renewals, 1);
}

/// Row NW-25, at a homeserver that takes a refresh token once: the answer that was not kept is gone, the old token is tried once
/// more, and what is said of it is the end of the login, in this process and the next.
#[test]
fn nw_25_an_old_refresh_token_that_is_refused_ends_the_login() {
    for (soft, code) in [(true, "soft_logged_out"), (false, "logged_out")] {
        let beginning = tell("", async || beginning().await);
        beginning.server.refresh_tokens_work_once(soft);
        let struck = (1..).find_map(|nth| {
            tell("", async || {
                let world = World::quiet(beginning.server.fork());
                let alice = beginning.alice.copy();
                let plan = Plan::default();
                plan.arm(Point {
                    nth,
                    moment: Moment::After,
                    trouble: Trouble::Kill,
                    ..Point::dry(|_, _| true)
                });
                let sending = async {
                    let client = alice.open(&world, &plan).await;
                    client.room(&beginning.room).send_text("one").await.unwrap();
                };
                plan.until_killed(sending).await;
                let struck = plan.struck().unwrap();
                if !struck.contains("Request /_matrix/client/v3/refresh") {
                    return None;
                }
                let client = alice.open(&world, &Plan::default()).await;
                world.expire_token(client.user_id(), client.device_id(), soft);
                for _ in 0..2 {
                    assert_eq!(client.sync().await.unwrap_err().code(), code);
                    let error = client.room(&beginning.room).send_text("two").await.unwrap_err();
                    assert_eq!(error.code(), code);
                }
                let log = world.log();
                let renewals = log.iter().filter(|exchange| exchange.path.ends_with("/refresh"));
                let statuses: Vec<_> = renewals.map(|renewal| renewal.status).collect();
                assert_eq!(statuses, [Some(200), Some(401)], "the old one is tried once");
                Some(struck)
            })
        });
        assert!(struck.is_some());
    }
}
