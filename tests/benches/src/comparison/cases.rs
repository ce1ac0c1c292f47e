//! Every case in one table: what is measured, on which variants, with how much in the store.

use matrix_sdk_crypto::{DeviceData, olm::InboundGroupSession};

use super::{
    inputs,
    opening::Opening,
    reads::{Account, OfDevice, Sessions},
    replays::Replays,
    rounds::{Subject, Subjects},
    sends::{Floor, How, Sends},
    syncs::{Devices, Syncs},
    variant::Variant,
};

/// How many tasks send at once.
const TASKS: u64 = 32;
/// How many devices a large key query has.
const DEVICES: usize = 5_000;
/// How many new keys there are for syncs, before they start over.
const NEW_KEYS: usize = 10_000;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// A directory is called so too.
    pub(crate) name: &'static str,
    kind: Kind,
    /// How many inbound sessions it wants.
    sessions: usize,
    /// Not for a quick look.
    pub(crate) slow: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Account,
    /// How many sessions take turns, and whether the store is opened again before a second turn.
    Sessions(usize, bool),
    OfDevice {
        settled: bool,
    },
    Send(usize, How),
    Sync(usize),
    Devices,
    Open,
    /// How many messages were decrypted before.
    Replays(usize),
}

/// What is made once for all cases.
#[derive(Debug)]
pub(crate) struct Inputs {
    sessions: Vec<InboundGroupSession>,
    devices: Vec<DeviceData>,
}

impl Inputs {
    /// As much as these cases want.
    pub(crate) fn new(cases: &[Case]) -> anyhow::Result<Self> {
        let sessions = cases.iter().map(|case| case.sessions).max().unwrap_or_default();
        let devices = cases.iter().any(|case| matches!(case.kind, Kind::Devices));
        Ok(Self {
            sessions: inputs::inbound_sessions(sessions)?,
            devices: inputs::devices(if devices { DEVICES } else { 0 })?,
        })
    }
}

impl Case {
    #[rustfmt::skip]
    pub(crate) fn all() -> Vec<Self> {
        use Kind as K;
        let case = |name, kind, sessions| Self { name, kind, sessions, slow: false };
        let slow = |name, kind, sessions| Self { name, kind, sessions, slow: true };
        vec![
            case("load account", K::Account, 0),
            case("get session, cold, of 10,000", K::Sessions(10_000, true), 10_000),
            case("get session, warm", K::Sessions(1, false), 10_000),
            case("get session, 1,000 in turn", K::Sessions(1_000, false), 10_000),
            case("save session sent to 10", K::Send(10, How::Save), 0),
            case("save session sent to 1,000", K::Send(1_000, How::Save), 0),
            case("save session sent to 10,000", K::Send(10_000, How::Save), 0),
            case("send to 10", K::Send(10, How::Whole), 0),
            case("send to 1,000", K::Send(1_000, How::Whole), 0),
            case("send to 10,000", K::Send(10_000, How::Whole), 0),
            case("32 tasks send to 10", K::Send(10, How::Tasks(TASKS)), 0),
            case("32 tasks send to 1,000", K::Send(1_000, How::Tasks(TASKS)), 0),
            case("32 queued sends to 10", K::Send(10, How::Queued(TASKS)), 0),
            case("32 queued sends to 1,000", K::Send(1_000, How::Queued(TASKS)), 0),
            case("sync, 1 key", K::Sync(1), NEW_KEYS),
            case("sync, 100 keys", K::Sync(100), NEW_KEYS),
            case("sync, 1,000 keys", K::Sync(1_000), NEW_KEYS),
            case("5,000 devices", K::Devices, 0),
            case("5,000 devices, 10,000 sessions", K::Devices, 10_000),
            case("batch of device, none of 10,000", K::OfDevice { settled: true }, 10_000),
            case("batch of device, 10 of 10,000", K::OfDevice { settled: false }, 10_000),
            case("open, 10,000 sessions", K::Open, 10_000),
            slow("open, 100,000 sessions", K::Open, 100_000),
            case("place of a message, of 1,000", K::Replays(1_000), 0),
            slow("place of a message, of 1,000,000", K::Replays(1_000_000), 0),
        ]
    }

    fn variants(&self) -> Vec<Variant> {
        let stores = Variant::stores();
        match self.kind {
            Kind::Send(..) => [Variant::Floor].into_iter().chain(stores).collect(),
            Kind::Replays(_) => stores
                .into_iter()
                .filter(|variant| matches!(variant, Variant::Ours(_)))
                .collect(),
            Kind::Open => stores.into_iter().chain([Variant::MatrixSqliteKey]).collect(),
            _ => stores,
        }
    }

    /// A store for each variant, or for the one of this name, with what has to be in it.
    pub(crate) async fn prepare(&self, inputs: &Inputs, only: Option<&str>) -> anyhow::Result<Subjects> {
        let sessions = inputs.sessions.get(..self.sessions).unwrap_or(&inputs.sessions);
        let mut subjects = Subjects::new();
        let variants = self.variants().into_iter();
        for variant in variants.filter(|variant| only.is_none_or(|name| name == variant.name())) {
            subjects.push((variant, self.subject(variant, sessions, inputs).await?));
        }
        Ok(subjects)
    }

    async fn subject(
        &self,
        variant: Variant,
        sessions: &[InboundGroupSession],
        inputs: &Inputs,
    ) -> anyhow::Result<Box<dyn Subject>> {
        Ok(match self.kind {
            Kind::Account => Box::new(Account::new(variant).await?),
            Kind::Sessions(turn, cold) => Box::new(Sessions::new(variant, sessions, turn, cold).await?),
            Kind::OfDevice { settled } => Box::new(OfDevice::new(variant, sessions, settled).await?),
            Kind::Send(_, how) if variant == Variant::Floor => Box::new(Floor::new(how)),
            Kind::Send(devices, how) => Box::new(Sends::new(variant, devices, how).await?),
            Kind::Sync(keys) => Box::new(Syncs::new(variant, sessions, keys).await?),
            Kind::Devices => Box::new(Devices::new(variant, sessions, &inputs.devices).await?),
            Kind::Replays(rows) => Box::new(Replays::new(variant, rows).await?),
            Kind::Open => Box::new(Opening::new(variant, sessions).await?),
        })
    }
}
