//! The kill points: what the process does, what happens before, and which operations count.

use mx_e2ee::Client;

use super::of_disk;
use crate::{
    crash_history::{Parked, Scene},
    disks::{Counts, Moment, Operation, Plan, Point, Trouble},
};

/// What the process is doing when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Login,
    Sync,
    Receive,
    /// Asks for more, which acknowledges what it was given.
    Acknowledge,
    Send,
    /// Says something twice: the second time, nothing is new.
    SendTwice,
}

/// What happens before, beside messages of alice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The next message has another key.
    CarolTurns,
    CarolHasAnotherDevice,
    /// One can be given the key, and another is told that it cannot: two requests.
    CarolHasTwoMoreDevices,
    /// Everybody whom the next message is for has its key.
    WeHaveSpoken,
    /// Our one-time keys are gone.
    KeysAreGone,
}

/// A kill point of the catalogue.
pub(super) struct KillPoint {
    pub(super) name: &'static str,
    pub(super) act: Act,
    before: Before,
    after: Option<Counts>,
    counts: Counts,
    pub(super) moments: &'static [Moment],
}

const BOTH: &[Moment] = &[Moment::Before, Moment::After];
const UPLOAD: Counts = |_, path| path.ends_with("/keys/upload");
const CLAIM: Counts = |_, path| path.ends_with("/keys/claim");
const TO_DEVICE: Counts = |_, path| path.contains("/sendToDevice/");
const EVENT: Counts = |_, path| path.contains("/send/m.room.encrypted/");
const QUERY: Counts = |_, path| path.ends_with("/keys/query");
const DISK: Counts = |operation, _| of_disk(operation);
const COMMIT: Counts = |operation, _| operation == Operation::Commit;
const READS: Counts = |operation, _| matches!(operation, Operation::Get | Operation::Scan);
const ANY: Counts = |_, _| true;

const fn point(name: &'static str, act: Act, before: Before, counts: Counts) -> KillPoint {
    KillPoint {
        name,
        act,
        before,
        after: None,
        counts,
        moments: BOTH,
    }
}

const POINTS: [KillPoint; 20] = [
    point("k1", Act::Login, Before::Nothing, ANY),
    point("k3", Act::Sync, Before::CarolHasAnotherDevice, DISK),
    point("k4", Act::Sync, Before::CarolTurns, READS),
    point("k5", Act::Sync, Before::CarolTurns, COMMIT),
    KillPoint {
        after: Some(COMMIT),
        ..point("k6", Act::Receive, Before::CarolTurns, ANY)
    },
    KillPoint {
        moments: &[Moment::Before],
        ..point("k7", Act::Sync, Before::KeysAreGone, UPLOAD)
    },
    KillPoint {
        moments: &[Moment::After],
        ..point("k8", Act::Sync, Before::KeysAreGone, UPLOAD)
    },
    KillPoint {
        after: Some(UPLOAD),
        ..point("k9", Act::Sync, Before::KeysAreGone, COMMIT)
    },
    KillPoint {
        after: Some(QUERY),
        ..point("k19", Act::Sync, Before::CarolHasAnotherDevice, DISK)
    },
    KillPoint {
        moments: &[Moment::After],
        ..point("k10", Act::Send, Before::CarolHasAnotherDevice, CLAIM)
    },
    KillPoint {
        after: Some(CLAIM),
        ..point("k11", Act::Send, Before::CarolHasAnotherDevice, COMMIT)
    },
    point("k12", Act::Send, Before::CarolTurns, READS),
    KillPoint {
        moments: &[Moment::Before],
        ..point("k13", Act::Send, Before::CarolTurns, TO_DEVICE)
    },
    point("k14", Act::Send, Before::CarolHasTwoMoreDevices, TO_DEVICE),
    KillPoint {
        after: Some(TO_DEVICE),
        ..point("k15", Act::Send, Before::CarolHasTwoMoreDevices, COMMIT)
    },
    KillPoint {
        moments: &[Moment::Before],
        ..point("k16", Act::SendTwice, Before::WeHaveSpoken, COMMIT)
    },
    KillPoint {
        moments: &[Moment::Before],
        ..point("k17", Act::SendTwice, Before::WeHaveSpoken, EVENT)
    },
    KillPoint {
        moments: &[Moment::After],
        ..point("k18", Act::SendTwice, Before::WeHaveSpoken, EVENT)
    },
    point("k21", Act::Send, Before::CarolTurns, ANY),
    point("k24", Act::Acknowledge, Before::Nothing, ANY),
];

impl KillPoint {
    pub(super) fn named(name: &str) -> Option<Self> {
        POINTS.into_iter().find(|point| point.name == name)
    }

    pub(super) fn at(&self, nth: u64, moment: Moment) -> Point {
        Point {
            after: self.after,
            counts: self.counts,
            nth,
            moment,
            trouble: Trouble::Kill,
        }
    }

    pub(super) async fn prepare(&self, scene: &mut Scene, client: &Client, messages: u64) {
        match self.before {
            Before::Nothing => {}
            Before::CarolTurns => scene.carol_turns().await,
            Before::CarolHasAnotherDevice => {
                scene.carol_is_here().await;
                // Who speaks in a room follows the devices of those who are in it.
                while scene.bob_reads(client).await.unwrap() {}
                scene.bob_says(client).await.unwrap();
                let _device = scene.carol_logs_in_again().await;
            }
            Before::CarolHasTwoMoreDevices => {
                scene.carol_is_here().await;
                while scene.bob_reads(client).await.unwrap() {}
                scene.bob_says(client).await.unwrap();
                scene.carol_logs_in_twice().await;
            }
            Before::WeHaveSpoken | Before::KeysAreGone => {}
        }
        for _ in 0..messages {
            scene.alice_says().await;
        }
        if self.before == Before::KeysAreGone {
            // Only now, so that alice has a session with us.
            scene.server.exhaust_keys(client.user_id(), client.device_id());
        }
        if self.act == Act::Send && self.before != Before::CarolTurns {
            // The send finds it out by itself only a second after the last sync.
            client.sync().await.unwrap();
        }
        if self.before == Before::WeHaveSpoken {
            while scene.bob_reads(client).await.unwrap() {}
            scene.bob_says(client).await.unwrap();
        }
        if self.act == Act::Acknowledge {
            assert!(scene.bob_reads(client).await.unwrap());
        }
    }
}

impl Act {
    /// Do it, to the end. It may never come.
    pub(super) async fn done(
        self,
        scene: &mut Scene,
        device: &Parked,
        client: Option<Client>,
        plan: &Plan,
    ) -> mx_e2ee::Result<Client> {
        let Some(client) = client else {
            return device.login(&scene.server, plan).await;
        };
        match self {
            Self::Login | Self::Sync => client.sync().await?,
            Self::Receive | Self::Acknowledge => drop(scene.bob_reads(&client).await?),
            Self::Send => scene.bob_says(&client).await?,
            Self::SendTwice => {
                scene.bob_says(&client).await?;
                scene.bob_says(&client).await?;
            }
        }
        Ok(client)
    }
}
