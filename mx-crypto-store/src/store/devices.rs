//! Devices, identities, and whose devices are kept up to date.

use std::collections::HashMap;

use matrix_sdk_crypto::{DeviceData, TrackedUser, UserIdentityData};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::{PickleStore, Rows};
use crate::{
    Result, StoreError,
    layout::{self, Row, Table},
};

impl PickleStore {
    pub(super) fn put_devices(&self, rows: &mut Rows, devices: &[&DeviceData]) -> Result<()> {
        if devices.is_empty() {
            return Ok(());
        }
        // Our own device's keys may have been decoded before a signature was added.
        rows.keep(|kept| kept.device_keys = None);
        rows.of_many(self.sealed.core.sealer.spread(), devices, |device, encoded| {
            encoded.json(self.device_row(device.user_id(), device.device_id()), device)
        })
    }

    fn device_row(&self, user: &UserId, device: &DeviceId) -> Row {
        self.row(Table::Device, &[user.as_str()], device.as_str())
    }

    pub(super) fn delete_device(&self, rows: &mut Rows, device: &DeviceData) {
        rows.delete(self.device_row(device.user_id(), device.device_id()));
    }

    pub(super) async fn device_of(&self, user: &UserId, device: &DeviceId) -> Result<Option<DeviceData>> {
        self.json(Table::Device, &[user.as_str()], device.as_str()).await
    }

    pub(super) async fn devices_of(&self, user: &UserId) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let devices: Vec<DeviceData> = self.all_json(&self.group(Table::Device, &[user.as_str()])).await?;
        Ok(devices
            .into_iter()
            .map(|device| (device.device_id().to_owned(), device))
            .collect())
    }

    pub(super) async fn own_device(&self) -> Result<DeviceData> {
        let account = self.static_account().await?;
        match self.device_of(&account.user_id, &account.device_id).await? {
            Some(device) => Ok(device),
            None => self.taint(Err(StoreError::Corrupt {
                what: "our own device, which is missing",
            })),
        }
    }

    pub(super) fn put_identity(&self, rows: &mut Rows, identity: &UserIdentityData) -> Result<()> {
        let row = self.row(Table::Identity, &[], identity.user_id().as_str());
        let known = row.clone();
        rows.keep(move |kept| {
            kept.no_identity.remove(&known);
        });
        rows.json(row, identity)
    }

    pub(super) async fn identity_of(&self, user: &UserId) -> Result<Option<UserIdentityData>> {
        let row = self.row(Table::Identity, &[], user.as_str());
        // An identity itself is not kept: the engine changes it in place and holds it against the one before.
        if self.kept().no_identity.get(&row).is_some() {
            return Ok(None);
        }
        let stamp = self.stamp();
        let identity: Option<UserIdentityData> = self.json(Table::Identity, &[], user.as_str()).await?;
        if identity.is_none() {
            self.keep(stamp, |kept| kept.no_identity.insert(row, ()));
        }
        Ok(identity)
    }

    pub(super) async fn tracked_users(&self) -> Result<Vec<TrackedUser>> {
        self.all_json(&layout::table(Table::TrackedUser)).await
    }

    pub(super) async fn put_tracked_users(&self, users: &[(&UserId, bool)]) -> Result<()> {
        let mut rows = Rows::default();
        for (user, dirty) in users {
            let tracked = TrackedUser {
                user_id: (*user).to_owned(),
                dirty: *dirty,
            };
            rows.json(self.row(Table::TrackedUser, &[], user.as_str()), &tracked)?;
        }
        self.write(rows).await
    }
}
