//! What is remembered of a room: that it is encrypted, how, and who may read its history.
//!
//! # Why
//! Encryption is latched: once seen, nothing that a homeserver says later makes the room plaintext again, changes its
//! algorithm or lets a key live longer. A stricter rotation is taken over.

mod encryption;

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use mx_transport::{Call, RequestError};
use ruma::{
    OwnedRoomId, RoomId,
    api::client::state::get_state_event_for_key,
    events::{StateEventType, room::history_visibility::HistoryVisibility},
};
use serde::{Deserialize, Serialize};

pub use self::encryption::EncryptionChange;
use self::encryption::latch;
pub(crate) use self::encryption::{MEGOLM, RoomEncryption};
use crate::{
    EncryptionTampered, Error, Event, Orchestrator, Result, RoomPolicy,
    machine::Ending,
    receive::inbox,
    send::{
        policy,
        rotation::{Due, KeyRecord},
    },
};

const ROOMS: Family = Family::guarded("rooms");

/// What is remembered of a room.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct RoomRecord {
    /// Set once the room was seen as encrypted, and never taken back.
    pub(crate) encryption: Option<RoomEncryption>,
    /// As the room's state says. `None`: not seen yet.
    pub(crate) history_visibility: Option<HistoryVisibility>,
    /// When we joined it first, in the homeserver's milliseconds since the Unix epoch.
    #[serde(default)]
    pub(crate) joined_ms: Option<u64>,
    /// How the homeserver shows the encryption, where that is not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tampered: Option<EncryptionChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tombstone: Option<Tombstone>,
    /// For whom messages may be, as our own user said.
    #[serde(default, skip_serializing_if = "policy::is_default")]
    pub(crate) policy: RoomPolicy,
    /// The key that the room uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyRecord>,
    /// Why the next send makes a new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<Due>,
}

/// A room was replaced by another one.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// Where people went, where the room says so.
    pub(crate) replacement: Option<OwnedRoomId>,
}

impl RoomRecord {
    /// Take over what a room's state event says, as far as the latch allows. Returns what is news and not followed.
    #[must_use]
    pub(crate) fn apply(&mut self, event_type: &str, content: &serde_json::Value) -> Option<EncryptionChange> {
        match event_type {
            "m.room.encryption" => {
                let refused = latch(&mut self.encryption, RoomEncryption::from_content(content));
                return self.note_refused(refused);
            }
            "m.room.history_visibility" => {
                if let Some(visibility) = content.get("history_visibility").and_then(|value| value.as_str()) {
                    self.history_visibility = Some(visibility.into());
                }
            }
            "m.room.tombstone" => {
                let replacement = content.get("replacement_room").and_then(|value| value.as_str());
                self.tombstone = Some(Tombstone {
                    replacement: replacement.and_then(|room| OwnedRoomId::try_from(room).ok()),
                });
            }
            _ => {}
        }
        None
    }

    /// As [`apply`](Self::apply). `None`: the homeserver says that there is no such state.
    fn take(&mut self, event_type: &str, content: Option<&serde_json::Value>) -> Option<EncryptionChange> {
        match content {
            Some(content) => self.apply(event_type, content),
            None => self.deny(),
        }
    }

    /// The homeserver says that the room is not encrypted. Returns whether that is news and not followed.
    #[must_use]
    fn deny(&mut self) -> Option<EncryptionChange> {
        let refused = self.encryption.is_some().then_some(EncryptionChange::Denied);
        self.note_refused(refused)
    }

    fn note_refused(&mut self, refused: Option<EncryptionChange>) -> Option<EncryptionChange> {
        let news = refused.clone().filter(|_| refused != self.tampered);
        if let Some(news) = &news {
            tracing::warn!(change = news.describe(), "what a homeserver says is not followed");
        }
        self.tampered = refused;
        news
    }

    fn id(room: &RoomId) -> RecordId {
        RecordId::named(ROOMS, &[], room.as_str())
    }

    /// As a unit of work sees it.
    pub(crate) async fn load(unit: &Unit, room: &RoomId) -> Result<Self> {
        Ok(unit.get(&Self::id(room)).await?.unwrap_or_default())
    }

    /// As it is on the disk.
    pub(crate) async fn committed(store: &PickleStore, room: &RoomId) -> Result<Self> {
        Ok(store.record(&Self::id(room)).await?.unwrap_or_default())
    }

    pub(crate) fn save(&self, unit: &Unit, room: &RoomId) -> Result<()> {
        Ok(unit.put(&Self::id(room), self)?)
    }
}

impl Orchestrator {
    /// How the room is encrypted: as remembered, else as the homeserver says, which is remembered then.
    pub(crate) async fn room_encryption(&self, room: &RoomId) -> Result<RoomEncryption> {
        if let Some(encryption) = RoomRecord::committed(self.store(), room).await?.encryption {
            return Ok(encryption);
        }
        let content = self.state_content(room, StateEventType::RoomEncryption).await?;
        self.remember(room, "m.room.encryption", content)
            .await?
            .encryption
            .ok_or_else(|| Error::RoomNotEncrypted { room: room.to_owned() })
    }

    /// Ask how the homeserver shows the encryption of a room that is known as encrypted: what it takes back is reported.
    ///
    /// # Errors
    /// [`Error::NotInRoom`]; of the store. A homeserver that fails is none: what is remembered holds.
    pub(crate) async fn look_at_encryption(&self, room: &RoomId) -> Result<()> {
        match self.state_content(room, StateEventType::RoomEncryption).await {
            Ok(content) => self.remember(room, "m.room.encryption", content).await.map(drop),
            Err(Error::Request(_) | Error::MalformedSync { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// [`Error::RoomTombstoned`] where the room was replaced; of the store.
    pub(crate) async fn refuse_tombstoned(&self, room: &RoomId) -> Result<()> {
        match RoomRecord::committed(self.store(), room).await?.tombstone {
            None => Ok(()),
            Some(tombstone) => Err(Error::RoomTombstoned {
                room: room.to_owned(),
                replacement: tombstone.replacement,
            }),
        }
    }

    /// Whether events of the room are encrypted.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::Error;
    ///
    /// match device.is_encrypted(room).await {
    ///     Ok(encrypted) => println!("{encrypted}"),
    ///     // Whoever is not in a room is not shown its state.
    ///     Err(Error::NotInRoom { .. }) => println!("join it first"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotInRoom`]; of the request; of the store.
    pub async fn is_encrypted(&self, room: &RoomId) -> Result<bool> {
        match self.room_encryption(room).await {
            Ok(_) => Ok(true),
            Err(Error::RoomNotEncrypted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Who may read the room's history; `shared` where the room does not say, as the specification has it.
    pub(crate) async fn history_visibility(&self, room: &RoomId) -> Result<HistoryVisibility> {
        if let Some(visibility) = RoomRecord::committed(self.store(), room).await?.history_visibility {
            return Ok(visibility);
        }
        let content = self.state_content(room, StateEventType::RoomHistoryVisibility).await?;
        let content = content.unwrap_or_else(|| serde_json::json!({"history_visibility": "shared"}));
        let record = self.remember(room, "m.room.history_visibility", Some(content)).await?;
        Ok(record.history_visibility.unwrap_or(HistoryVisibility::Shared))
    }

    /// Take over the content of a state event, or that there is none. Nothing is written where nothing changes.
    async fn remember(
        &self,
        room: &RoomId,
        event_type: &'static str,
        content: Option<serde_json::Value>,
    ) -> Result<RoomRecord> {
        let known = RoomRecord::committed(self.store(), room).await?;
        let mut record = known.clone();
        if record.take(event_type, content.as_ref()).is_none() && record == known {
            return Ok(known);
        }
        let room = room.to_owned();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    let mut record = RoomRecord::load(unit, &room).await?;
                    let refused = record.take(event_type, content.as_ref());
                    record.save(unit, &room)?;
                    if let Some(change) = refused {
                        let event = Event::EncryptionTampered(EncryptionTampered { room_id: room, change });
                        inbox::append(unit, &[event]).await?;
                    }
                    Ok(Ending::Commit(record))
                })
            })
            .await
    }

    async fn state_content(&self, room: &RoomId, kind: StateEventType) -> Result<Option<serde_json::Value>> {
        let request = get_state_event_for_key::v3::Request::new(room.to_owned(), kind, String::new());
        match self.homeserver().exchange(request, Call::repeatable()).await {
            Ok(answer) => serde_json::from_slice(answer.body())
                .map(Some)
                .map_err(|_| Error::MalformedSync {
                    reason: "a state event is not JSON".to_owned(),
                }),
            Err(RequestError::Api {
                status, ref errcode, ..
            }) if status.as_u16() == 404 && errcode.as_deref() == Some("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(not_in_room(error, room)),
        }
    }
}

/// A homeserver answers 403 (and some 404) for rooms that we are not in, and for rooms that there are not.
pub(crate) fn is_not_in_room(error: &RequestError) -> bool {
    error
        .status()
        .is_some_and(|status| matches!(status.as_u16(), 403 | 404))
}

fn not_in_room(error: RequestError, room: &RoomId) -> Error {
    if is_not_in_room(&error) {
        return Error::NotInRoom { room: room.to_owned() };
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_refused_is_news_once_and_over_when_it_is_taken_back() {
        let mut room = RoomRecord::default();
        let honest = json!({"algorithm": MEGOLM, "rotation_period_msgs": 50});
        assert_eq!(room.deny(), None, "a room that was never encrypted may be plaintext");
        assert_eq!(room.apply("m.room.encryption", &honest), None);
        let evil = json!({"algorithm": "org.evil.none"});
        let change = EncryptionChange::Algorithm {
            algorithm: "org.evil.none".to_owned(),
        };
        assert_eq!(room.apply("m.room.encryption", &evil), Some(change.clone()));
        assert_eq!(room.apply("m.room.encryption", &evil), None, "no news");
        assert_eq!(room.tampered, Some(change));
        assert_eq!(room.deny(), Some(EncryptionChange::Denied));
        assert_eq!(room.apply("m.room.encryption", &json!({})), None, "empty is denied");
        assert_eq!(room.apply("m.room.encryption", &honest), None);
        assert_eq!(room.tampered, None);
    }

    #[test]
    fn a_record_of_an_earlier_version_reads_as_before() {
        let old = json!({"encryption": null, "history_visibility": "joined", "joined_ms": 7});
        let read: RoomRecord = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(read.joined_ms, Some(7));
        assert_eq!(serde_json::to_value(read).unwrap(), old, "and is written as before");
    }
}
