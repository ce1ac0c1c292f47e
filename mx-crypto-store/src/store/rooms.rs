//! Settings of rooms, and bundles of keys for them.

use matrix_sdk_crypto::store::types::{
    RoomKeyWithheldEntry, RoomPendingKeyBundleDetails, RoomSettings, StoredRoomKeyBundleData,
};
use ruma::{RoomId, UserId};

use super::{PickleStore, Rows};
use crate::{
    Result,
    layout::{self, Table},
};

impl PickleStore {
    pub(super) fn put_room_settings(&self, rows: &mut Rows, room: &RoomId, settings: &RoomSettings) -> Result<()> {
        rows.json(self.row(Table::RoomSettings, &[], room.as_str()), settings)
    }

    pub(super) async fn room_settings(&self, room: &RoomId) -> Result<Option<RoomSettings>> {
        self.json(Table::RoomSettings, &[], room.as_str()).await
    }

    pub(super) fn put_bundle(&self, rows: &mut Rows, bundle: &StoredRoomKeyBundleData) -> Result<()> {
        let row = self.row(
            Table::RoomKeyBundle,
            &[bundle.bundle_data.room_id.as_str()],
            bundle.sender_user.as_str(),
        );
        rows.json(row, bundle)
    }

    pub(super) async fn bundle(&self, room: &RoomId, user: &UserId) -> Result<Option<StoredRoomKeyBundleData>> {
        self.json(Table::RoomKeyBundle, &[room.as_str()], user.as_str()).await
    }

    /// Let go of what is known of a bundle of room keys that this user sent for this room, in the open unit or durably on its
    /// own. One that is absent is `Ok`.
    ///
    /// ```no_run
    /// # async fn example(store: mx_crypto_store::PickleStore) -> mx_crypto_store::Result<()> {
    /// use ruma::{room_id, user_id};
    ///
    /// // It could not be fetched as often as it was tried.
    /// store.forget_key_bundle(room_id!("!alerts:example.org"), user_id!("@boss:example.org")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the engine.
    ///
    /// # Cancel safety
    /// Safe: it goes as a whole or not at all.
    pub async fn forget_key_bundle(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        rows.delete(self.row(Table::RoomKeyBundle, &[room.as_str()], user.as_str()));
        let written = self.write_in(turn, rows).await;
        self.taint(written)
    }

    pub(super) fn put_pending_bundle(
        &self,
        rows: &mut Rows,
        room: &RoomId,
        details: Option<&RoomPendingKeyBundleDetails>,
    ) -> Result<()> {
        let row = self.row(Table::PendingKeyBundle, &[], room.as_str());
        match details {
            Some(details) => rows.json(row, details),
            None => {
                rows.delete(row);
                Ok(())
            }
        }
    }

    pub(super) async fn pending_bundle(&self, room: &RoomId) -> Result<Option<RoomPendingKeyBundleDetails>> {
        self.json(Table::PendingKeyBundle, &[], room.as_str()).await
    }

    pub(super) async fn pending_bundles(&self) -> Result<Vec<RoomPendingKeyBundleDetails>> {
        self.all_json(&layout::table(Table::PendingKeyBundle)).await
    }

    pub(super) fn put_downloaded(&self, rows: &mut Rows, room: &RoomId) {
        rows.bytes(self.row(Table::RoomKeysDownloaded, &[], room.as_str()), Vec::new());
    }

    pub(super) async fn has_downloaded(&self, room: &RoomId) -> Result<bool> {
        Ok(self
            .plain(&self.row(Table::RoomKeysDownloaded, &[], room.as_str()))
            .await?
            .is_some())
    }

    pub(super) fn put_withheld(
        &self,
        rows: &mut Rows,
        room: &RoomId,
        session: &str,
        entry: &RoomKeyWithheldEntry,
    ) -> Result<()> {
        rows.json(self.row(Table::Withheld, &[room.as_str()], session), entry)
    }

    pub(super) async fn withheld(&self, room: &RoomId, session: &str) -> Result<Option<RoomKeyWithheldEntry>> {
        self.json(Table::Withheld, &[room.as_str()], session).await
    }

    pub(super) async fn withheld_in(&self, room: &RoomId) -> Result<Vec<RoomKeyWithheldEntry>> {
        self.all_json(&self.group(Table::Withheld, &[room.as_str()])).await
    }
}
