//! A key that was made up under the name of somebody else's session gives way to that session's own, whenever it comes.

use mx_e2ee::Trust;
use mx_test_homeserver::peer::MegolmSession;
use serde_json::{Value, json};
use vodozemac::{base64_decode, base64_encode};

use crate::{
    history::{came_in, what_came},
    history_hostile::{Offer, bundle, entry, offer},
};

fn said(session: &mut MegolmSession, body: &str) -> Value {
    let plain = session.payload("m.room.message", json!({"msgtype": "m.text", "body": body}));
    session.encrypt(plain.to_string())
}

impl Offer {
    fn say(&self, content: Value) {
        self.server
            .inject(&self.room, self.mallory.user(), "m.room.encrypted", content);
    }

    fn give(&mut self, session: &MegolmSession) {
        let olm = self
            .mallory
            .olm_session_with(self.bob.client.user_id(), self.bob.client.device_id());
        self.mallory.share_room_key(&olm, session);
    }
}

#[tokio::test]
async fn a_made_up_key_that_nothing_waited_for_gives_way_to_its_senders_own() {
    for index in [0, 7] {
        let mut offer = offer().await;
        offer.sign();
        let room = offer.room.clone();
        let (mut real, _) = offer.session(&room);
        let mut forged = entry(&mut real, index);
        let mut bytes = base64_decode(forged["session_key"].as_str().unwrap()).unwrap();
        bytes[9] ^= 1;
        forged["session_key"] = base64_encode(bytes).into();
        offer.send(&room, &bundle(&[forged]));
        offer.invite();
        let (read, _) = came_in(&offer.bob, &offer.bob.client.room(&room)).await;
        assert!(read.is_empty());
        let held = offer.bob.room_keys().await;
        assert_eq!((held.len(), held[0].has_been_imported()), (1, true), "it is there");
        real.go_to(0);
        offer.give(&real);
        let content = said(&mut real, "mine");
        offer.say(content);
        let (read, _) = what_came(&offer.bob).await;
        assert_eq!(read.len(), 1, "index {index}");
        assert_eq!(read[0].0, "mine");
        assert_ne!(read[0].1, Trust::Imported);
        let held = offer.bob.room_keys().await;
        assert_eq!((held.len(), held[0].has_been_imported()), (1, false));
    }
}

#[tokio::test]
async fn a_key_that_reaches_further_back_stays_when_its_sender_gives_a_later_one() {
    let mut offer = offer().await;
    offer.sign();
    let room = offer.room.clone();
    let (mut session, key) = offer.session(&room);
    session.go_to(0);
    let early = said(&mut session, "early");
    let late = said(&mut session, "late");
    offer.send(&room, &bundle(&[key]));
    offer.invite();
    came_in(&offer.bob, &offer.bob.client.room(&room)).await;
    session.go_to(1);
    offer.give(&session);
    offer.say(early);
    offer.say(late);
    let (read, _) = what_came(&offer.bob).await;
    let bodies: Vec<_> = read.iter().map(|(body, _)| body.as_str()).collect();
    assert_eq!(bodies, ["early", "late"]);
    assert_eq!(offer.bob.room_keys().await[0].first_known_index(), 0);
}
