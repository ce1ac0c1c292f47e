//! Rooms of many devices that do not run: they have keys, and nobody reads.

use mx_e2ee::{Client, Room};
use mx_test_homeserver::{EvilPeer, Homeserver};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::json;

/// So many users with so many devices each. A device has one one-time key, and the homeserver is told no more of it.
pub(crate) fn crowd(server: &Homeserver, users: usize, devices: usize) -> Vec<EvilPeer> {
    let peer = |user: usize, device: usize| {
        let mut peer = EvilPeer::new(server, &format!("member{user}"), &format!("DEVICE{device}"));
        let (device_keys, one_time_keys) = (peer.device_keys(), peer.one_time_keys(1));
        peer.publish_keys(&json!({"device_keys": device_keys, "one_time_keys": one_time_keys}));
        peer
    };
    (0..users)
        .flat_map(|user| (0..devices).map(move |device| (user, device)))
        .map(|(user, device)| peer(user, device))
        .collect()
}

/// One device of each user.
fn firsts(peers: &[EvilPeer]) -> Vec<&EvilPeer> {
    let mut firsts: Vec<&EvilPeer> = Vec::new();
    for peer in peers {
        if firsts.last().is_none_or(|last| last.user() != peer.user()) {
            firsts.push(peer);
        }
    }
    firsts
}

/// An encrypted room of all of these users, which somebody else is invited to.
pub(crate) fn room_of(peers: &[EvilPeer], guest: &UserId) -> OwnedRoomId {
    let firsts = firsts(peers);
    let (owner, others) = firsts.split_first().unwrap();
    let mut invited: Vec<&UserId> = others.iter().map(|peer| peer.user()).collect();
    invited.push(guest);
    let encryption =
        json!({"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
    let made = owner.ask(
        "POST",
        "/createRoom",
        &json!({"preset": "private_chat", "invite": invited, "initial_state": [encryption]}),
    );
    let room = OwnedRoomId::try_from(made["room_id"].as_str().unwrap()).unwrap();
    for peer in others {
        peer.join(&room);
    }
    room
}

/// A room of `client` that one device of each of these users has joined.
pub(crate) async fn room_with(client: &Client, peers: &[EvilPeer]) -> Room {
    let firsts = firsts(peers);
    let users: Vec<OwnedUserId> = firsts.iter().map(|peer| peer.user().to_owned()).collect();
    let room = client.create_room(None, &users).await.unwrap();
    for peer in firsts {
        peer.join(room.id());
    }
    client.sync().await.unwrap();
    room
}
