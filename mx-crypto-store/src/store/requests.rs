//! Requests for keys and secrets that we made, and the secrets that came.

use matrix_sdk_crypto::{GossipRequest, SecretInfo};
use ruma::{OwnedTransactionId, TransactionId, events::secret::request::SecretName};
use zeroize::Zeroizing;

use super::{PickleStore, Rows};
use crate::{
    Result,
    layers::View,
    layout::{self, Table},
};

impl PickleStore {
    pub(super) fn put_request(&self, rows: &mut Rows, request: &GossipRequest) -> Result<()> {
        rows.json(
            self.row(Table::SecretRequest, &[], request.request_id.as_str()),
            request,
        )?;
        rows.json(self.info_row(&request.info), &request.request_id)
    }

    fn info_row(&self, info: &SecretInfo) -> Vec<u8> {
        match info {
            SecretInfo::KeyRequest(key) => {
                let algorithm = key.algorithm().to_string();
                self.row(
                    Table::SecretRequestByInfo,
                    &["key", key.room_id().as_str(), &algorithm],
                    key.session_id(),
                )
            }
            SecretInfo::SecretRequest(name) => self.row(Table::SecretRequestByInfo, &["secret"], name.as_str()),
        }
    }

    pub(super) async fn request(&self, id: &TransactionId) -> Result<Option<GossipRequest>> {
        self.json(Table::SecretRequest, &[], id.as_str()).await
    }

    pub(super) async fn request_for(&self, info: &SecretInfo) -> Result<Option<GossipRequest>> {
        let Some(value) = self.plain(&self.info_row(info)).await? else {
            return Ok(None);
        };
        let id: OwnedTransactionId = self.taint(crate::record::decode(&value))?;
        self.request(&id).await
    }

    pub(super) async fn unsent_requests(&self) -> Result<Vec<GossipRequest>> {
        let all: Vec<GossipRequest> = self.all_json(&layout::table(Table::SecretRequest)).await?;
        Ok(all.into_iter().filter(|request| !request.sent_out).collect())
    }

    pub(super) async fn delete_request(&self, id: &TransactionId) -> Result<()> {
        let turn = self.turn().await?;
        let Some(request) = self.request(id).await? else {
            return Ok(());
        };
        let mut rows = Rows::default();
        rows.delete(self.row(Table::SecretRequest, &[], id.as_str()));
        rows.delete(self.info_row(&request.info));
        self.write_in(turn, rows).await
    }

    pub(super) async fn secrets(&self, name: &SecretName) -> Result<Vec<Zeroizing<String>>> {
        Ok(self.json(Table::Secret, &[], name.as_str()).await?.unwrap_or_default())
    }

    pub(super) async fn put_secrets(&self, rows: &mut Rows, new: &[(SecretName, Zeroizing<String>)]) -> Result<()> {
        let mut names: Vec<&SecretName> = new.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            let mut secrets = self.secrets(name).await?;
            secrets.extend(
                new.iter()
                    .filter(|(other, _)| other == name)
                    .map(|(_, secret)| secret.clone()),
            );
            rows.json(self.row(Table::Secret, &[], name.as_str()), &secrets)?;
        }
        Ok(())
    }

    pub(super) async fn delete_secrets(&self, name: &SecretName) -> Result<()> {
        let mut rows = Rows::default();
        rows.delete(self.row(Table::Secret, &[], name.as_str()));
        self.write(rows).await
    }

    /// How many rows of a table there are.
    pub(super) async fn count(&self, table: Table) -> Result<usize> {
        Ok(self
            .sealed
            .core
            .rows(&layout::table(table), None, usize::MAX, View::Unit)
            .await?
            .len())
    }
}
