//! The steps that the exhaustive part puts together: every family of records, so that they meet on the same rows, which
//! are written, written again and removed.

use super::{
    mutation::{Mutation, Piece},
    records::RecordStep,
    reference::Step,
};

/// All of them.
pub(crate) fn alphabet() -> Vec<Step> {
    let saves = saves().into_iter().map(Mutation::Save);
    let records = [RecordStep::Append { value: 1 }, RecordStep::DeleteFirst];
    let engine = saves.chain(calls()).map(Step::Engine);
    engine.chain(records.map(Step::Record)).collect()
}

fn saves() -> [Vec<Piece>; 6] {
    [
        vec![
            Piece::Session(0),
            Piece::MessageHash(0),
            Piece::Inbound(0),
            Piece::NextBatch(1),
        ],
        vec![
            Piece::Session(1),
            Piece::Inbound(1),
            Piece::NextBatch(2),
            Piece::DeviceNew(2),
            Piece::IdentityNew(0),
        ],
        vec![Piece::Outbound(1), Piece::RoomSettings { room: 0, value: 1 }],
        vec![
            Piece::Outbound(3),
            Piece::DeviceDeleted(2),
            Piece::DeviceChanged(1),
            Piece::Withheld(1),
            Piece::Bundle(1),
            Piece::PendingBundle { room: 0, value: None },
        ],
        vec![
            Piece::KeyRequest(2),
            Piece::KeyRequest(4),
            Piece::Secret(0),
            Piece::PrivateIdentity(1),
            Piece::BackupKey(1),
            Piece::BackupVersion(0),
            Piece::DehydratedKey(1),
        ],
        vec![
            Piece::Withheld(0),
            Piece::Bundle(0),
            Piece::Downloaded(0),
            Piece::PendingBundle {
                room: 0,
                value: Some(0),
            },
        ],
    ]
}

fn calls() -> [Mutation; 8] {
    [
        Mutation::Account(Some(1)),
        Mutation::SaveInbound {
            sessions: vec![2, 5],
            version: Some(0),
        },
        Mutation::MarkBackedUp {
            version: 1,
            sessions: vec![0, 1],
        },
        Mutation::DeleteRequest(1),
        Mutation::DeleteDehydratedKey,
        Mutation::Track(vec![(0, true), (1, false)]),
        Mutation::SetCustom(0, 1),
        Mutation::Lease {
            forever: true,
            key: 0,
            holder: 0,
        },
    ]
}
