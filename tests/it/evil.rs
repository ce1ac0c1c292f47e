//! An evil peer in a room with a device of ours.

use mx_e2ee::{Event, Message, Options, Rejected, Room};
use mx_test_homeserver::EvilPeer;
use mx_test_homeserver::peer::{MegolmSession, OlmSession};
use serde_json::{Value, json};

use crate::world::{Device, World};

/// Alice is ours; bob is not.
pub(crate) struct Evil {
    pub(crate) server: World,
    pub(crate) alice: Device,
    pub(crate) bob: EvilPeer,
    pub(crate) olm: OlmSession,
    pub(crate) room: Room,
}

/// An encrypted room of alice's with an evil peer, whose devices she knows.
pub(crate) async fn evil() -> Evil {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let mut bob = EvilPeer::new(&server, "bob", "BDEV");
    bob.publish();
    let invited = [bob.user().to_owned()];
    let room = alice.client.create_room(None, &invited).await.unwrap();
    bob.join(room.id());
    room.send_text("hello").await.unwrap();
    bob.receive();
    let olm = bob.olm_session_with(alice.client.user_id(), alice.client.device_id());
    Evil {
        server,
        alice,
        bob,
        olm,
        room,
    }
}

impl Evil {
    /// A Megolm session of bob's whose key alice has been given.
    pub(crate) fn session(&mut self) -> MegolmSession {
        let session = self.bob.megolm_session(self.room.id());
        self.bob.share_room_key(&self.olm, &session);
        session
    }

    /// Put an encrypted event into the room in bob's name.
    pub(crate) fn put(&mut self, content: &Value) -> String {
        self.bob.send_event(self.room.id(), "m.room.encrypted", content)
    }

    /// Alice's process is killed, and starts again.
    pub(crate) async fn kill_alice(self) -> Self {
        self.kill_alice_with(Options::default()).await
    }

    /// The same, and she behaves like this from then on.
    pub(crate) async fn kill_alice_with(self, options: Options) -> Self {
        let Self {
            server,
            alice,
            bob,
            olm,
            room,
        } = self;
        let id = room.id().to_owned();
        drop(room);
        let alice = alice.kill_and_open_with(options).await;
        let room = alice.client.room(&id);
        Self {
            server,
            alice,
            bob,
            olm,
            room,
        }
    }

    /// What alice receives now: messages' bodies.
    pub(crate) async fn bodies(&self) -> Vec<String> {
        self.alice.bodies().await
    }
}

/// An honest payload with a text.
pub(crate) fn text(session: &MegolmSession, body: &str) -> String {
    let content = json!({"msgtype": "m.text", "body": body});
    session.payload("m.room.message", content).to_string()
}

/// The messages among events.
pub(crate) fn messages(events: &[Event]) -> Vec<&Message> {
    events
        .iter()
        .filter_map(|event| {
            if let Event::Message(message) = event {
                Some(message)
            } else {
                None
            }
        })
        .collect()
}

/// What is rejected among events.
pub(crate) fn rejected(events: &[Event]) -> Vec<&Rejected> {
    events
        .iter()
        .filter_map(|event| {
            if let Event::Rejected(rejected) = event {
                Some(rejected)
            } else {
                None
            }
        })
        .collect()
}
