//! The account, its private identity, and Olm sessions.

use matrix_sdk_crypto::{
    Account, Session,
    olm::{OlmMessageHash, PickledAccount, PickledSession, PrivateCrossSigningIdentity, StaticAccountData},
    types::DeviceKeys,
};

use super::{PickleStore, Rows, damaged, unpickle};
use crate::{Result, StoreError, layers::View, layout::Table};

impl PickleStore {
    pub(super) async fn account(&self) -> Result<Option<Account>> {
        let stamp = self.stamp();
        let Some(value) = self.plain(&self.row(Table::Account, &[], "account")).await? else {
            return Ok(None);
        };
        let pickle: PickledAccount = self.taint(unpickle(&value))?;
        let account = self.taint(Account::from_pickle(pickle).map_err(|_| damaged()))?;
        let known = account.static_data().clone();
        self.keep(stamp, |kept| kept.account = Some(known));
        Ok(Some(account))
    }

    pub(super) async fn put_account(&self, rows: &mut Rows, account: Account) -> Result<()> {
        let given = (account.user_id().to_owned(), account.device_id().to_owned());
        let name = |owner: &(ruma::OwnedUserId, ruma::OwnedDeviceId)| format!("{} device {}", owner.0, owner.1);
        let found: Option<(ruma::OwnedUserId, ruma::OwnedDeviceId)> = self.json(Table::Account, &[], "owner").await?;
        if let Some(found) = found.filter(|found| *found != given) {
            return self.taint(Err(StoreError::AnotherAccount {
                found: name(&found),
                given: name(&given),
            }));
        }
        rows.json(self.row(Table::Account, &[], "owner"), &given)?;
        rows.pickle(self.row(Table::Account, &[], "account"), &account.pickle())?;
        let known = account.static_data().clone();
        rows.keep(|kept| kept.account = Some(known));
        Ok(())
    }

    pub(super) async fn save_account(&self, account: Account) -> Result<()> {
        let turn = self.turn().await?;
        let mut rows = Rows::default();
        self.put_account(&mut rows, account).await?;
        self.write_in(turn, rows).await
    }

    /// What never changes of our account.
    pub(super) async fn static_account(&self) -> Result<StaticAccountData> {
        let known = self.kept().account.clone();
        if let Some(known) = known {
            return Ok(known);
        }
        match self.account().await? {
            Some(account) => Ok(account.static_data().clone()),
            None => self.taint(Err(StoreError::Corrupt {
                what: "the account, which is missing",
            })),
        }
    }

    pub(super) async fn private_identity(&self) -> Result<Option<PrivateCrossSigningIdentity>> {
        let pickle = self.json(Table::PrivateIdentity, &[], "").await?;
        let identity = pickle.map(|pickle| PrivateCrossSigningIdentity::from_pickle(pickle).map_err(|_| damaged()));
        self.taint(identity.transpose())
    }

    pub(super) async fn put_private_identity(
        &self,
        rows: &mut Rows,
        identity: &PrivateCrossSigningIdentity,
    ) -> Result<()> {
        rows.json(self.row(Table::PrivateIdentity, &[], ""), &identity.pickle().await)
    }

    pub(super) async fn put_olm_session(&self, rows: &mut Rows, session: &Session) -> Result<()> {
        let pickle = session.pickle().await;
        let row = self.row(
            Table::OlmSession,
            &[&pickle.sender_key.to_base64()],
            session.session_id(),
        );
        rows.pickle(row, &pickle)
    }

    pub(super) async fn olm_sessions(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        let prefix = self.group(Table::OlmSession, &[sender_key]);
        let rows = self.sealed.core.rows(&prefix, None, usize::MAX, View::Unit).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let keys = self.own_device_keys().await?;
        let open = |value: &[u8]| {
            let pickle: PickledSession = unpickle(value)?;
            Session::from_pickle(keys.clone(), pickle).map_err(|_| damaged())
        };
        self.taint(
            rows.iter()
                .map(|(_, value)| open(value))
                .collect::<Result<_>>()
                .map(Some),
        )
    }

    async fn own_device_keys(&self) -> Result<DeviceKeys> {
        let known = self.kept().device_keys.clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let stamp = self.stamp();
        let keys = self.own_device().await?.as_device_keys().clone();
        self.keep(stamp, |kept| kept.device_keys = Some(keys.clone()));
        Ok(keys)
    }

    pub(super) fn put_message_hash(&self, rows: &mut Rows, hash: &OlmMessageHash) {
        rows.bytes(
            self.row(Table::OlmMessageHash, &[&hash.sender_key], &hash.hash),
            Vec::new(),
        );
    }

    pub(super) async fn knows_message(&self, hash: &OlmMessageHash) -> Result<bool> {
        Ok(self
            .plain(&self.row(Table::OlmMessageHash, &[&hash.sender_key], &hash.hash))
            .await?
            .is_some())
    }
}
