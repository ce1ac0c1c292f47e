//! CR-C4: one process does everything at once, and every operation of its disk and its line takes another time in each
//! round: another order of everything that holds a lock. Nobody waits for ever, nothing is asked twice at a time, nothing
//! is lost.
//!
//! # Why not a model checker of threads
//! The locks of the orchestrator are held across requests and units of work, and what can go wrong with them is the order
//! of those, not of single instructions: a runtime of one thread on which every operation gives way reaches it, with the
//! real code, and repeats it from a seed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use mx_e2ee::{Client, Event, Room};
use mx_test_homeserver::Homeserver;
use mx_transport::{Transport, TransportError};

use crate::{
    crash_history::Parked,
    disks::Plan,
    world::{
        Device, World,
        seed::{Seed, rounds, tell},
    },
};

const ROUNDS: u64 = 25;

/// An endpoint, and whom a request to it is about.
type Subject = (String, BTreeSet<String>);

/// A line that notes which requests are under way beside each other and must not be.
#[derive(Debug)]
struct OneAtATime {
    inner: Arc<dyn Transport>,
    under_way: Arc<Mutex<Vec<Subject>>>,
    doubled: Arc<Mutex<Vec<String>>>,
}

impl OneAtATime {
    /// Whom a request is about: two for the same are one too many. `None`: it may be repeated as one likes.
    fn subject(request: &http::Request<Bytes>) -> Option<Subject> {
        let path = request.uri().path();
        if path.contains("/send/") || path.contains("/sendToDevice/") {
            return Some(("PUT".to_owned(), BTreeSet::from([path.to_owned()])));
        }
        let endpoint = ["/keys/upload", "/keys/claim", "/keys/query"]
            .into_iter()
            .find(|endpoint| path.ends_with(endpoint))?;
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let named = |field: &str| body[field].as_object().map(|users| users.keys().cloned().collect());
        let whom = match endpoint {
            "/keys/upload" => Some(BTreeSet::from(["our keys".to_owned()])),
            "/keys/claim" => named("one_time_keys"),
            _ => named("device_keys"),
        };
        Some((endpoint.to_owned(), whom.unwrap()))
    }
}

#[async_trait]
impl Transport for OneAtATime {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let lock = || self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(subject) = Self::subject(&request) else {
            return self.inner.send(request).await;
        };
        {
            let mut under_way = lock();
            let same = |other: &&Subject| other.0 == subject.0 && !other.1.is_disjoint(&subject.1);
            if let Some(other) = under_way.iter().find(same) {
                let mut doubled = self.doubled.lock().unwrap_or_else(PoisonError::into_inner);
                doubled.push(format!("{} for {:?} and {:?}", subject.0, other.1, subject.1));
            }
            under_way.push(subject.clone());
        }
        let answer = self.inner.send(request).await;
        let mut under_way = lock();
        let place = under_way.iter().position(|other| *other == subject).unwrap();
        under_way.remove(place);
        answer
    }
}

/// The process that does everything at once.
struct Busy {
    plan: Plan,
    client: Client,
    doubled: Arc<Mutex<Vec<String>>>,
    _device: Parked,
}

impl Busy {
    async fn new(server: &Homeserver) -> Self {
        server.register("bob", "password");
        let plan = Plan::default();
        let doubled: Arc<Mutex<Vec<String>>> = Arc::default();
        let device = Parked::new("bob");
        let over = |inner| -> Arc<dyn Transport> {
            Arc::new(OneAtATime {
                inner,
                under_way: Arc::default(),
                doubled: Arc::clone(&doubled),
            })
        };
        let client = device.login_over(server, &plan, over).await.unwrap();
        Self {
            plan,
            client,
            doubled,
            _device: device,
        }
    }
}

/// Say so many things, one after the other, whatever else happens.
async fn says(room: Room, name: &'static str) {
    for number in 0..3 {
        room.send_text(format!("{name} {number}")).await.unwrap();
    }
}

/// What arrived, without what arrives later.
async fn reads(client: &Client) -> Vec<String> {
    let mut read = Vec::new();
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            return read;
        }
        read.extend(events.into_iter().filter_map(|event| match event {
            Event::Message(message) => message.body().map(str::to_owned),
            _ => None,
        }));
    }
}

/// What `name` said, in the order in which it was read.
fn of<'a>(read: &'a [String], name: &str) -> Vec<&'a str> {
    read.iter()
        .filter(|text| text.starts_with(name))
        .map(String::as_str)
        .collect()
}

fn all_of(name: &str) -> Vec<String> {
    (0..3).map(|number| format!("{name} {number}")).collect()
}

async fn round(name: &str) {
    let server = World::quiet(Homeserver::new());
    let bob = Busy::new(&server).await;
    let alice = Device::new(&server, "alice").await;
    let carol = Device::new(&server, "carol").await;
    let everybody = [alice.client.user_id().to_owned(), carol.client.user_id().to_owned()];
    let both = bob.client.create_room(None, &everybody).await.unwrap();
    let other = bob.client.create_room(None, &everybody).await.unwrap();
    for device in [&alice, &carol] {
        for room in [&both, &other] {
            device.client.join(room.id().as_str()).await.unwrap();
        }
    }
    alice.client.room(both.id()).send_text("hello").await.unwrap();
    // His keys run out, and somebody has a new device: there is something to do for everyone.
    server.exhaust_keys(bob.client.user_id(), bob.client.device_id());
    let again = Device::new(&server, "carol").await;
    bob.plan.stagger(Seed::new(name));
    let listening = async {
        let mut heard = Vec::new();
        for _ in 0..6 {
            heard.extend(reads(&bob.client).await);
        }
        heard
    };
    let tending = async {
        for _ in 0..3 {
            bob.client.publish_keys().await.unwrap();
            bob.client.sync().await.unwrap();
        }
    };
    let sending = join_all([
        says(both.clone(), "first"),
        says(both.clone(), "second"),
        says(other.clone(), "third"),
    ]);
    let answering = says(alice.client.room(both.id()), "alice");
    let (_, mut heard, (), ()) = tokio::join!(sending, listening, tending, answering);
    heard.extend(reads(&bob.client).await);
    assert_eq!(of(&heard, "alice"), all_of("alice"), "{name}");
    for device in [&alice, &carol, &again] {
        let read = device.bodies().await;
        for who in ["first", "second", "third"] {
            assert_eq!(of(&read, who), all_of(who), "{name}: {}", device.client.device_id());
        }
    }
    let doubled = bob.doubled.lock().unwrap().clone();
    assert!(doubled.is_empty(), "{name}: {}", doubled.join("\n"));
    bob.client.close().await.unwrap();
}

/// One round again, as `cargo xtask replay` asks for it.
pub(crate) fn replay(name: &str) {
    tell(name, async || Box::pin(round(name)).await);
}

#[test]
fn cr_c4_everything_at_once_in_any_order() {
    for number in 0..rounds().unwrap_or(ROUNDS) {
        replay(&format!("order-{number}"));
    }
}
