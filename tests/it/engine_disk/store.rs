//! The disk as the engine's store: each call is noted, may fail, and goes on to the `MemoryStore`.

use std::{collections::HashMap, sync::atomic::Ordering};

use async_trait::async_trait;
use matrix_sdk_common::cross_process_lock::CrossProcessLockGeneration;
use matrix_sdk_crypto::{
    Account, CryptoStoreError, DeviceData, GossipRequest, SecretInfo, Session, TrackedUser, UserIdentityData,
    olm::{
        Curve25519PublicKey, InboundGroupSession, OlmMessageHash, OutboundGroupSession, PrivateCrossSigningIdentity,
        SenderDataType,
    },
    store::{
        CryptoStore,
        types::{
            BackupKeys, Changes, DehydratedDeviceKey, PendingChanges, RoomKeyCounts, RoomKeyWithheldEntry,
            RoomPendingKeyBundleDetails, RoomSettings, StoredRoomKeyBundleData,
        },
    },
};
use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, RoomId, TransactionId, UserId,
    events::secret::request::SecretName,
};
use zeroize::Zeroizing;

use super::{Answer, Disk, parts};

#[async_trait]
impl CryptoStore for Disk {
    type Error = CryptoStoreError;

    async fn load_account(&self) -> Answer<Option<Account>> {
        self.read("load_account")?;
        let Some(account) = self.inner.load_account().await? else {
            return Ok(None);
        };
        let mut pickle = account.pickle();
        if let Some(time) = &mut pickle.fallback_key_creation_timestamp {
            let aged = i64::from(time.get()) - 1000 * self.age.load(Ordering::SeqCst);
            *time = MilliSecondsSinceUnixEpoch(ruma::UInt::try_from(aged).unwrap());
        }
        Ok(Some(Account::from_pickle(pickle)?))
    }
    async fn load_identity(&self) -> Answer<Option<PrivateCrossSigningIdentity>> {
        self.read("load_identity")?;
        self.inner.load_identity().await.map_err(Into::into)
    }
    async fn save_changes(&self, changes: Changes) -> Answer<()> {
        self.write(&format!("save_changes{}", parts(&changes)))?;
        self.inner.save_changes(changes).await.map_err(Into::into)
    }
    async fn save_pending_changes(&self, changes: PendingChanges) -> Answer<()> {
        let account = if changes.account.is_some() { " account" } else { "" };
        self.write(&format!("save_pending_changes{account}"))?;
        self.inner.save_pending_changes(changes).await.map_err(Into::into)
    }
    async fn save_inbound_group_sessions(
        &self,
        sessions: Vec<InboundGroupSession>,
        backed_up_to_version: Option<&str>,
    ) -> Answer<()> {
        self.write("save_inbound_group_sessions")?;
        self.inner
            .save_inbound_group_sessions(sessions, backed_up_to_version)
            .await
            .map_err(Into::into)
    }
    async fn get_sessions(&self, sender_key: &str) -> Answer<Option<Vec<Session>>> {
        self.read("get_sessions")?;
        let mut sessions = self.inner.get_sessions(sender_key).await?;
        for session in sessions.iter_mut().flatten() {
            session.creation_time = self.aged(session.creation_time);
        }
        Ok(sessions)
    }
    async fn get_inbound_group_session(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Answer<Option<InboundGroupSession>> {
        self.read("get_inbound_group_session")?;
        self.inner
            .get_inbound_group_session(room_id, session_id)
            .await
            .map_err(Into::into)
    }
    async fn get_withheld_info(&self, room_id: &RoomId, session_id: &str) -> Answer<Option<RoomKeyWithheldEntry>> {
        self.read("get_withheld_info")?;
        self.inner
            .get_withheld_info(room_id, session_id)
            .await
            .map_err(Into::into)
    }
    async fn get_withheld_sessions_by_room_id(&self, room_id: &RoomId) -> Answer<Vec<RoomKeyWithheldEntry>> {
        self.read("get_withheld_sessions_by_room_id")?;
        self.inner
            .get_withheld_sessions_by_room_id(room_id)
            .await
            .map_err(Into::into)
    }
    async fn get_inbound_group_sessions(&self) -> Answer<Vec<InboundGroupSession>> {
        self.read("get_inbound_group_sessions")?;
        self.inner.get_inbound_group_sessions().await.map_err(Into::into)
    }
    async fn inbound_group_session_counts(&self, backup_version: Option<&str>) -> Answer<RoomKeyCounts> {
        self.read("inbound_group_session_counts")?;
        self.inner
            .inbound_group_session_counts(backup_version)
            .await
            .map_err(Into::into)
    }
    async fn get_inbound_group_sessions_by_room_id(&self, room_id: &RoomId) -> Answer<Vec<InboundGroupSession>> {
        self.read("get_inbound_group_sessions_by_room_id")?;
        self.inner
            .get_inbound_group_sessions_by_room_id(room_id)
            .await
            .map_err(Into::into)
    }
    async fn get_inbound_group_sessions_for_device_batch(
        &self,
        curve_key: Curve25519PublicKey,
        sender_data_type: SenderDataType,
        after_session_id: Option<String>,
        limit: usize,
    ) -> Answer<Vec<InboundGroupSession>> {
        self.read("get_inbound_group_sessions_for_device_batch")?;
        self.inner
            .get_inbound_group_sessions_for_device_batch(curve_key, sender_data_type, after_session_id, limit)
            .await
            .map_err(Into::into)
    }
    async fn inbound_group_sessions_for_backup(
        &self,
        backup_version: &str,
        limit: usize,
    ) -> Answer<Vec<InboundGroupSession>> {
        self.read("inbound_group_sessions_for_backup")?;
        self.inner
            .inbound_group_sessions_for_backup(backup_version, limit)
            .await
            .map_err(Into::into)
    }
    async fn mark_inbound_group_sessions_as_backed_up(
        &self,
        backup_version: &str,
        room_and_session_ids: &[(&RoomId, &str)],
    ) -> Answer<()> {
        self.write("mark_inbound_group_sessions_as_backed_up")?;
        self.inner
            .mark_inbound_group_sessions_as_backed_up(backup_version, room_and_session_ids)
            .await
            .map_err(Into::into)
    }
    async fn reset_backup_state(&self) -> Answer<()> {
        self.write("reset_backup_state")?;
        self.inner.reset_backup_state().await.map_err(Into::into)
    }
    async fn load_backup_keys(&self) -> Answer<BackupKeys> {
        self.read("load_backup_keys")?;
        self.inner.load_backup_keys().await.map_err(Into::into)
    }
    async fn load_dehydrated_device_pickle_key(&self) -> Answer<Option<DehydratedDeviceKey>> {
        self.read("load_dehydrated_device_pickle_key")?;
        self.inner.load_dehydrated_device_pickle_key().await.map_err(Into::into)
    }
    async fn delete_dehydrated_device_pickle_key(&self) -> Answer<()> {
        self.write("delete_dehydrated_device_pickle_key")?;
        self.inner
            .delete_dehydrated_device_pickle_key()
            .await
            .map_err(Into::into)
    }
    async fn get_outbound_group_session(&self, room_id: &RoomId) -> Answer<Option<OutboundGroupSession>> {
        self.read("get_outbound_group_session")?;
        let session = self.inner.get_outbound_group_session(room_id).await?;
        self.aged_outbound(session).await
    }
    async fn load_tracked_users(&self) -> Answer<Vec<TrackedUser>> {
        self.read("load_tracked_users")?;
        self.inner.load_tracked_users().await.map_err(Into::into)
    }
    async fn save_tracked_users(&self, users: &[(&UserId, bool)]) -> Answer<()> {
        self.write("save_tracked_users")?;
        self.inner.save_tracked_users(users).await.map_err(Into::into)
    }
    async fn get_device(&self, user_id: &UserId, device_id: &DeviceId) -> Answer<Option<DeviceData>> {
        self.read("get_device")?;
        self.inner.get_device(user_id, device_id).await.map_err(Into::into)
    }
    async fn get_user_devices(&self, user_id: &UserId) -> Answer<HashMap<OwnedDeviceId, DeviceData>> {
        self.read("get_user_devices")?;
        self.inner.get_user_devices(user_id).await.map_err(Into::into)
    }
    async fn get_own_device(&self) -> Answer<DeviceData> {
        self.read("get_own_device")?;
        self.inner.get_own_device().await.map_err(Into::into)
    }
    async fn get_user_identity(&self, user_id: &UserId) -> Answer<Option<UserIdentityData>> {
        self.read("get_user_identity")?;
        self.inner.get_user_identity(user_id).await.map_err(Into::into)
    }
    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Answer<bool> {
        self.read("is_message_known")?;
        self.inner.is_message_known(message_hash).await.map_err(Into::into)
    }
    async fn get_outgoing_secret_requests(&self, request_id: &TransactionId) -> Answer<Option<GossipRequest>> {
        self.read("get_outgoing_secret_requests")?;
        self.inner
            .get_outgoing_secret_requests(request_id)
            .await
            .map_err(Into::into)
    }
    async fn get_secret_request_by_info(&self, secret_info: &SecretInfo) -> Answer<Option<GossipRequest>> {
        self.read("get_secret_request_by_info")?;
        self.inner
            .get_secret_request_by_info(secret_info)
            .await
            .map_err(Into::into)
    }
    async fn get_unsent_secret_requests(&self) -> Answer<Vec<GossipRequest>> {
        self.read("get_unsent_secret_requests")?;
        self.inner.get_unsent_secret_requests().await.map_err(Into::into)
    }
    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Answer<()> {
        self.write("delete_outgoing_secret_requests")?;
        self.inner
            .delete_outgoing_secret_requests(request_id)
            .await
            .map_err(Into::into)
    }
    async fn get_secrets_from_inbox(&self, secret_name: &SecretName) -> Answer<Vec<Zeroizing<String>>> {
        self.read("get_secrets_from_inbox")?;
        self.inner.get_secrets_from_inbox(secret_name).await.map_err(Into::into)
    }
    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Answer<()> {
        self.write("delete_secrets_from_inbox")?;
        self.inner
            .delete_secrets_from_inbox(secret_name)
            .await
            .map_err(Into::into)
    }
    async fn get_room_settings(&self, room_id: &RoomId) -> Answer<Option<RoomSettings>> {
        self.read("get_room_settings")?;
        self.inner.get_room_settings(room_id).await.map_err(Into::into)
    }
    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Answer<Option<StoredRoomKeyBundleData>> {
        self.read("get_received_room_key_bundle_data")?;
        self.inner
            .get_received_room_key_bundle_data(room_id, user_id)
            .await
            .map_err(Into::into)
    }
    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Answer<Option<RoomPendingKeyBundleDetails>> {
        self.read("get_pending_key_bundle_details_for_room")?;
        self.inner
            .get_pending_key_bundle_details_for_room(room_id)
            .await
            .map_err(Into::into)
    }
    async fn get_all_rooms_pending_key_bundles(&self) -> Answer<Vec<RoomPendingKeyBundleDetails>> {
        self.read("get_all_rooms_pending_key_bundles")?;
        self.inner.get_all_rooms_pending_key_bundles().await.map_err(Into::into)
    }
    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Answer<bool> {
        self.read("has_downloaded_all_room_keys")?;
        self.inner
            .has_downloaded_all_room_keys(room_id)
            .await
            .map_err(Into::into)
    }
    async fn get_custom_value(&self, key: &str) -> Answer<Option<Vec<u8>>> {
        self.read("get_custom_value")?;
        self.inner.get_custom_value(key).await.map_err(Into::into)
    }
    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Answer<()> {
        self.write("set_custom_value")?;
        self.inner.set_custom_value(key, value).await.map_err(Into::into)
    }
    async fn remove_custom_value(&self, key: &str) -> Answer<()> {
        self.write("remove_custom_value")?;
        self.inner.remove_custom_value(key).await.map_err(Into::into)
    }
    async fn try_take_leased_lock(
        &self,
        lease_duration_ms: u32,
        key: &str,
        holder: &str,
    ) -> Answer<Option<CrossProcessLockGeneration>> {
        self.read("try_take_leased_lock")?;
        self.inner
            .try_take_leased_lock(lease_duration_ms, key, holder)
            .await
            .map_err(Into::into)
    }
    async fn next_batch_token(&self) -> Answer<Option<String>> {
        self.read("next_batch_token")?;
        self.inner.next_batch_token().await.map_err(Into::into)
    }
    async fn close(&self) -> Answer<()> {
        self.read("close")?;
        self.inner.close().await.map_err(Into::into)
    }
    async fn reopen(&self) -> Answer<()> {
        self.read("reopen")?;
        self.inner.reopen().await.map_err(Into::into)
    }
    async fn get_size(&self) -> Answer<Option<usize>> {
        self.read("get_size")?;
        self.inner.get_size().await.map_err(Into::into)
    }
}
