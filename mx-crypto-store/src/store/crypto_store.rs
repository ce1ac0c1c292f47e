//! `impl CryptoStore`: the table of contents. Each method is one line down to its record family.

use std::collections::HashMap;

use async_trait::async_trait;
use matrix_sdk_common::cross_process_lock::CrossProcessLockGeneration;
use matrix_sdk_crypto::{
    Account, DeviceData, GossipRequest, SecretInfo, Session, TrackedUser, UserIdentityData,
    olm::{InboundGroupSession, OlmMessageHash, OutboundGroupSession, PrivateCrossSigningIdentity, SenderDataType},
    store::{
        CryptoStore,
        types::{
            BackupDecryptionKey, BackupKeys, Changes, DehydratedDeviceKey, PendingChanges, RoomKeyCounts,
            RoomKeyWithheldEntry, RoomPendingKeyBundleDetails, RoomSettings, StoredRoomKeyBundleData,
        },
    },
    vodozemac::Curve25519PublicKey,
};
use ruma::{DeviceId, OwnedDeviceId, RoomId, TransactionId, UserId, events::secret::request::SecretName};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{PickleStore, Rows};
use crate::{Result, StoreError, layout::Table};

/// The keys of a backup as they are kept.
#[derive(Default, Serialize, Deserialize)]
struct KeptBackupKeys {
    decryption_key: Option<BackupDecryptionKey>,
    backup_version: Option<String>,
}

impl PickleStore {
    async fn changes(&self, changes: Changes) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        if let Some(identity) = &changes.private_identity {
            self.put_private_identity(&mut rows, identity).await?;
        }
        for session in &changes.sessions {
            self.put_olm_session(&mut rows, session).await?;
        }
        for hash in &changes.message_hashes {
            self.put_message_hash(&mut rows, hash);
        }
        self.put_inbounds(&mut rows, &changes.inbound_group_sessions, None)
            .await?;
        for session in &changes.outbound_group_sessions {
            self.put_outbound(&mut rows, session).await?;
        }
        for request in &changes.key_requests {
            self.put_request(&mut rows, request)?;
        }
        for identity in changes.identities.new.iter().chain(&changes.identities.changed) {
            self.put_identity(&mut rows, identity)?;
        }
        let devices: Vec<_> = changes.devices.new.iter().chain(&changes.devices.changed).collect();
        self.put_devices(&mut rows, &devices)?;
        for device in &changes.devices.deleted {
            self.delete_device(&mut rows, device);
        }
        if let Some(token) = &changes.next_batch_token {
            self.put_next_batch(&mut rows, token)?;
        }
        self.secret_changes(&mut rows, &changes).await?;
        self.room_changes(&mut rows, &changes)?;
        self.write_in(turn, rows).await
    }

    async fn secret_changes(&self, rows: &mut Rows, changes: &Changes) -> Result<()> {
        if changes.backup_decryption_key.is_some() || changes.backup_version.is_some() {
            let mut kept: KeptBackupKeys = self.json(Table::BackupKeys, &[], "").await?.unwrap_or_default();
            kept.decryption_key = changes.backup_decryption_key.clone().or(kept.decryption_key);
            kept.backup_version = changes.backup_version.clone().or(kept.backup_version);
            rows.json(self.row(Table::BackupKeys, &[], ""), &kept)?;
        }
        if let Some(key) = &changes.dehydrated_device_pickle_key {
            rows.json(self.row(Table::DehydratedDeviceKey, &[], ""), key)?;
        }
        let secrets: Vec<_> = changes
            .secrets
            .iter()
            .map(|item| (item.secret_name.clone(), item.secret.clone()))
            .collect();
        self.put_secrets(rows, &secrets).await
    }

    fn room_changes(&self, rows: &mut Rows, changes: &Changes) -> Result<()> {
        for (room, sessions) in &changes.withheld_session_info {
            for (session, entry) in sessions {
                self.put_withheld(rows, room, session, entry)?;
            }
        }
        for (room, settings) in &changes.room_settings {
            self.put_room_settings(rows, room, settings)?;
        }
        for bundle in &changes.received_room_key_bundles {
            self.put_bundle(rows, bundle)?;
        }
        for room in &changes.room_key_backups_fully_downloaded {
            self.put_downloaded(rows, room);
        }
        for (room, details) in &changes.rooms_pending_key_bundle {
            self.put_pending_bundle(rows, room, details.as_ref())?;
        }
        Ok(())
    }
}

#[async_trait]
impl CryptoStore for PickleStore {
    type Error = StoreError;

    async fn load_account(&self) -> Result<Option<Account>> {
        self.account().await
    }

    async fn load_identity(&self) -> Result<Option<PrivateCrossSigningIdentity>> {
        self.private_identity().await
    }

    async fn save_changes(&self, changes: Changes) -> Result<()> {
        let saved = Box::pin(self.changes(changes)).await;
        self.taint(saved)
    }

    async fn save_pending_changes(&self, changes: PendingChanges) -> Result<()> {
        let Some(account) = changes.account else { return Ok(()) };
        let saved = self.save_account(account).await;
        self.taint(saved)
    }

    async fn save_inbound_group_sessions(
        &self,
        sessions: Vec<InboundGroupSession>,
        backed_up_to: Option<&str>,
    ) -> Result<()> {
        let saved = self.save_inbounds(&sessions, backed_up_to).await;
        self.taint(saved)
    }

    async fn get_sessions(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        self.olm_sessions(sender_key).await
    }

    async fn get_inbound_group_session(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<InboundGroupSession>> {
        self.inbound(room_id, session_id).await
    }

    async fn get_withheld_info(&self, room_id: &RoomId, session_id: &str) -> Result<Option<RoomKeyWithheldEntry>> {
        self.withheld(room_id, session_id).await
    }

    async fn get_withheld_sessions_by_room_id(&self, room_id: &RoomId) -> Result<Vec<RoomKeyWithheldEntry>> {
        self.withheld_in(room_id).await
    }

    async fn get_inbound_group_sessions(&self) -> Result<Vec<InboundGroupSession>> {
        self.inbounds().await
    }

    async fn inbound_group_session_counts(&self, backup_version: Option<&str>) -> Result<RoomKeyCounts> {
        self.inbound_counts(backup_version).await
    }

    async fn get_inbound_group_sessions_by_room_id(&self, room_id: &RoomId) -> Result<Vec<InboundGroupSession>> {
        self.inbounds_in(room_id).await
    }

    async fn get_inbound_group_sessions_for_device_batch(
        &self,
        curve_key: Curve25519PublicKey,
        sender_data_type: SenderDataType,
        after_session_id: Option<String>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        self.inbounds_of_device(curve_key, sender_data_type, after_session_id.as_deref(), limit)
            .await
    }

    async fn inbound_group_sessions_for_backup(
        &self,
        backup_version: &str,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        self.inbounds_to_back_up(backup_version, limit).await
    }

    async fn mark_inbound_group_sessions_as_backed_up(
        &self,
        backup_version: &str,
        sessions: &[(&RoomId, &str)],
    ) -> Result<()> {
        let marked = self.mark_backed_up(backup_version, sessions).await;
        self.taint(marked)
    }

    async fn reset_backup_state(&self) -> Result<()> {
        // Which backup has a session is kept with it, so that another version resets nothing.
        Ok(())
    }

    async fn load_backup_keys(&self) -> Result<BackupKeys> {
        let kept: KeptBackupKeys = self.json(Table::BackupKeys, &[], "").await?.unwrap_or_default();
        Ok(BackupKeys {
            decryption_key: kept.decryption_key,
            backup_version: kept.backup_version,
        })
    }

    async fn load_dehydrated_device_pickle_key(&self) -> Result<Option<DehydratedDeviceKey>> {
        self.json(Table::DehydratedDeviceKey, &[], "").await
    }

    async fn delete_dehydrated_device_pickle_key(&self) -> Result<()> {
        let mut rows = Rows::default();
        rows.delete(self.row(Table::DehydratedDeviceKey, &[], ""));
        self.write(rows).await
    }

    async fn get_outbound_group_session(&self, room_id: &RoomId) -> Result<Option<OutboundGroupSession>> {
        self.outbound(room_id).await
    }

    async fn load_tracked_users(&self) -> Result<Vec<TrackedUser>> {
        self.tracked_users().await
    }

    async fn save_tracked_users(&self, users: &[(&UserId, bool)]) -> Result<()> {
        self.put_tracked_users(users).await
    }

    async fn get_device(&self, user_id: &UserId, device_id: &DeviceId) -> Result<Option<DeviceData>> {
        self.device_of(user_id, device_id).await
    }

    async fn get_user_devices(&self, user_id: &UserId) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        self.devices_of(user_id).await
    }

    async fn get_own_device(&self) -> Result<DeviceData> {
        self.own_device().await
    }

    async fn get_user_identity(&self, user_id: &UserId) -> Result<Option<UserIdentityData>> {
        self.identity_of(user_id).await
    }

    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Result<bool> {
        self.knows_message(message_hash).await
    }

    async fn get_outgoing_secret_requests(&self, request_id: &TransactionId) -> Result<Option<GossipRequest>> {
        self.request(request_id).await
    }

    async fn get_secret_request_by_info(&self, secret_info: &SecretInfo) -> Result<Option<GossipRequest>> {
        self.request_for(secret_info).await
    }

    async fn get_unsent_secret_requests(&self) -> Result<Vec<GossipRequest>> {
        self.unsent_requests().await
    }

    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Result<()> {
        self.delete_request(request_id).await
    }

    async fn get_secrets_from_inbox(&self, secret_name: &SecretName) -> Result<Vec<Zeroizing<String>>> {
        self.secrets(secret_name).await
    }

    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Result<()> {
        self.delete_secrets(secret_name).await
    }

    async fn get_room_settings(&self, room_id: &RoomId) -> Result<Option<RoomSettings>> {
        self.room_settings(room_id).await
    }

    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<StoredRoomKeyBundleData>> {
        self.bundle(room_id, user_id).await
    }

    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomPendingKeyBundleDetails>> {
        self.pending_bundle(room_id).await
    }

    async fn get_all_rooms_pending_key_bundles(&self) -> Result<Vec<RoomPendingKeyBundleDetails>> {
        self.pending_bundles().await
    }

    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Result<bool> {
        self.has_downloaded(room_id).await
    }

    async fn get_custom_value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.custom_value(key).await
    }

    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Result<()> {
        self.put_custom_value(key, value).await
    }

    async fn remove_custom_value(&self, key: &str) -> Result<()> {
        self.delete_custom_value(key).await
    }

    async fn try_take_leased_lock(
        &self,
        lease_duration_ms: u32,
        key: &str,
        holder: &str,
    ) -> Result<Option<CrossProcessLockGeneration>> {
        self.lease(lease_duration_ms, key, holder).await
    }

    async fn next_batch_token(&self) -> Result<Option<String>> {
        self.next_batch().await
    }

    async fn close(&self) -> Result<()> {
        // One owner closes the store, with `shutdown`: the engine's handle is one of several.
        Ok(())
    }

    async fn reopen(&self) -> Result<()> {
        Ok(())
    }

    async fn get_size(&self) -> Result<Option<usize>> {
        Ok(self
            .sealed
            .core
            .backend
            .size_bytes()
            .await?
            .and_then(|bytes| usize::try_from(bytes).ok()))
    }
}
