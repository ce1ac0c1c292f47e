//! What a sync shows while a send is under way: who left is given nothing more, and who came is not left out.

use mx_e2ee::SendReceipt;
use mx_test_homeserver::EvilPeer;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    keys_cast::Cast,
    keys_gate::Gate,
    send_rotation::{joined, leave, outcome_of},
};

fn begin(cast: &Cast, text: &str) -> JoinHandle<mx_e2ee::Result<SendReceipt>> {
    let room = cast.room.clone();
    let content = json!({"msgtype": "m.text", "body": text, "canary": cast.server.canary()});
    tokio::spawn(async move { room.send("m.room.message", content).await })
}

#[tokio::test]
async fn a_list_that_is_older_than_a_sync_brings_nobody_back() {
    let gate = Gate::new("/members");
    let cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    let mut bob = cast.bob.clone();
    bob.publish();
    let carol = joined(&cast, "carol").await;
    gate.close();
    let sending = begin(&cast, "to bob");
    gate.held(1).await;
    // The list that is on its way shows carol; a sync that ends before it arrives shows that she has left.
    leave(&cast, &carol);
    cast.sync().await;
    gate.open();
    let receipt = sending.await.unwrap().unwrap();
    assert_eq!(outcome_of(&receipt, "CAROLDEV"), None);
    assert_eq!(receipt.readable_by(), 1);
    assert_eq!(cast.send("again").await.readable_by(), 1);
}

#[tokio::test]
async fn who_leaves_while_a_send_is_under_way_is_given_nothing_more() {
    // While one-time keys are claimed, and while the key is delivered.
    for path in ["/keys/claim", "/sendToDevice/"] {
        let gate = Gate::new(path);
        let cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
        let mut bob = cast.bob.clone();
        bob.publish();
        let mut carol = joined(&cast, "carol").await;
        gate.close();
        let sending = begin(&cast, "to bob");
        gate.held(1).await;
        leave(&cast, &carol);
        cast.sync().await;
        gate.open();
        let receipt = sending.await.unwrap().unwrap();
        assert_eq!(outcome_of(&receipt, "CAROLDEV"), None, "{path}");
        assert_eq!(receipt.readable_by(), 1, "{path}");
        assert!(cast.read_by(&mut carol).is_empty(), "{path}");
        assert_eq!(cast.read_by(&mut bob), ["to bob"], "{path}");
    }
}

#[tokio::test]
async fn a_device_that_comes_while_a_send_is_under_way_is_given_the_key() {
    let gate = Gate::new("/keys/claim");
    let cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    let mut bob = cast.bob.clone();
    bob.publish();
    cast.sync().await;
    gate.close();
    let sending = begin(&cast, "to both");
    gate.held(1).await;
    let mut second = EvilPeer::new(&cast.server, "bob", "BSECOND");
    second.publish();
    cast.sync().await;
    gate.open();
    assert_eq!(sending.await.unwrap().unwrap().readable_by(), 2);
    assert_eq!(cast.read_by(&mut second), ["to both"]);
}
