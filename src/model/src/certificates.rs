//! Certificates of websites, shared by all nodes: whoever gets one stores it here, and any node answers with it, or for it.
//!
//! Invariants:
//! - at most one node has an order for a name under way, until its time is up;
//! - what a node does with a row, it does by compare-and-set, so that an order that was taken over can't end another's;
//! - private keys are sealed, each for its name.

use futures::{FutureExt, future::BoxFuture};
use garage_rpc::register::WriteId;
use garage_table::{
    SortKey,
    control::{Control, Effect},
    group::{Decision, RequestContext, Updated},
    message::HeldRow,
};
use garage_util::{encoding::Stored, runtime::Runtime};

use crate::{
    error::ModelError,
    rows::{
        ACME_ACCOUNT, CERTIFICATE,
        certificate::{AcmeAccountRow, CertificateOrder, CertificateRow, Challenge, IssuedCertificate},
    },
    seal::Sealer,
};

/// Certificates and accounts. Cheap to clone.
#[derive(Clone)]
pub struct Certificates {
    control: Control,
    sealer: Sealer,
    runtime: Runtime,
}

/// A new certificate, not yet stored.
pub struct NewCertificate {
    /// The certificate and those above it, PEM.
    pub chain_pem: String,
    /// The private key, PEM.
    pub key_pem: String,
    /// When it begins to be valid, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// When it ends.
    pub not_after_ms: u64,
}

/// Why no order can be begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotNow {
    /// Another order for the name is under way, at most until then (ms since 1970).
    UnderWay(u64),
    /// The last one failed; not before then (ms since 1970), for this reason.
    Failed(u64, String),
}

fn sort_key(name: &str) -> SortKey {
    SortKey(name.as_bytes().to_vec())
}

/// What a private key is sealed for: never the same as for a secret of another kind.
fn owner_of_key(name: &str) -> String {
    format!("certificate {name}")
}
fn owner_of_account(directory_url: &str) -> String {
    format!("account {directory_url}")
}

impl Certificates {
    /// Certificates over the control tables, their keys sealed by `sealer`.
    pub fn new(control: Control, sealer: Sealer, runtime: Runtime) -> Certificates {
        Certificates { control, sealer, runtime }
    }

    /// What is known of a name, with what marks this state of the row.
    pub async fn get(&self, name: &str, context: RequestContext) -> Result<Option<CertificateRow>, ModelError> {
        read(self.control.get(CERTIFICATE, &sort_key(name), context).await?)
    }

    /// What the authority is told of a name now, by quorum: the order may have begun on another node a moment ago.
    pub async fn challenge(&self, name: &str, context: RequestContext) -> Result<Option<Challenge>, ModelError> {
        let row: Option<CertificateRow> = read(self.control.get_by_quorum(CERTIFICATE, &sort_key(name), context).await?)?;
        Ok(row.and_then(|row| row.order).and_then(|order| order.challenge))
    }

    /// All names with what is known of them.
    pub async fn list(&self, context: RequestContext) -> Result<Vec<(String, CertificateRow)>, ModelError> {
        let rows = self.control.list(CERTIFICATE, context).await?.into_iter();
        rows.map(|(key, row)| Ok((String::from_utf8_lossy(&key.0).into_owned(), CertificateRow::from_stored(&row.content)?))).collect()
    }

    /// The private key of a certificate, PEM.
    pub fn key_pem(&self, name: &str, issued: &IssuedCertificate) -> Result<String, ModelError> {
        self.sealer.open(&owner_of_key(name), &issued.key)
    }

    /// Begins an order that this node holds until `until_ms`; gives its id.
    pub async fn begin_order(&self, name: &str, until_ms: u64, context: RequestContext) -> Result<Result<u64, NotNow>, ModelError> {
        let (id, now_ms) = (self.runtime.random_u64(), self.runtime.now_ms());
        let begun = self.change(name, context, |row| {
            if let Some(order) = row.order.as_ref().filter(|order| now_ms < order.until_ms) {
                return Err(NotNow::UnderWay(order.until_ms));
            }
            if now_ms < row.retry_ms {
                return Err(NotNow::Failed(row.retry_ms, row.last_error.clone().unwrap_or_default()));
            }
            row.order = Some(CertificateOrder { id, until_ms, challenge: None });
            Ok(())
        });
        Ok(begun.await?.map(|()| id))
    }

    /// Makes every node answer a challenge. False: the order was taken over.
    pub async fn set_challenge(&self, name: &str, id: u64, challenge: Challenge, context: RequestContext) -> Result<bool, ModelError> {
        self.change_order(name, id, context, |row| {
            if let Some(order) = &mut row.order {
                order.challenge = Some(challenge.clone());
            }
        })
        .await
    }

    /// Ends an order with its certificate. False: the order was taken over.
    pub async fn finish_order(&self, name: &str, id: u64, new: NewCertificate, context: RequestContext) -> Result<bool, ModelError> {
        let issued = IssuedCertificate {
            key: self.sealer.seal(&self.runtime, &owner_of_key(name), &new.key_pem),
            chain_pem: new.chain_pem,
            not_before_ms: new.not_before_ms,
            not_after_ms: new.not_after_ms,
        };
        self.change_order(name, id, context, |row| *row = CertificateRow { issued: Some(issued.clone()), ..CertificateRow::default() })
            .await
    }

    /// Ends an order that failed; there is none for this name before `retry_ms`. False: the order was taken over.
    pub async fn fail_order(&self, name: &str, id: u64, reason: &str, retry_ms: u64, context: RequestContext) -> Result<bool, ModelError> {
        self.change_order(name, id, context, |row| {
            row.order = None;
            row.failures = row.failures.saturating_add(1);
            row.retry_ms = retry_ms;
            row.last_error = Some(reason.to_owned());
        })
        .await
    }

    async fn change_order(
        &self,
        name: &str,
        id: u64,
        context: RequestContext,
        mut change: impl FnMut(&mut CertificateRow) + Send,
    ) -> Result<bool, ModelError> {
        let changed = self.change(name, context, |row| {
            if row.order.as_ref().is_none_or(|order| order.id != id) {
                return Err(());
            }
            change(row);
            Ok(())
        });
        Ok(changed.await?.is_ok())
    }

    async fn change<E: Send>(
        &self,
        name: &str,
        context: RequestContext,
        mut change: impl FnMut(&mut CertificateRow) -> Result<(), E> + Send,
    ) -> Result<Result<(), E>, ModelError> {
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<Result<E, ModelError>>> {
            let decided = read::<CertificateRow>(held).map_err(Err).and_then(|row| {
                let mut row = row.unwrap_or_default();
                change(&mut row).map_err(Ok)?;
                Ok(row)
            });
            std::future::ready(decision(decided)).boxed()
        };
        written(self.control.update(CERTIFICATE, sort_key(name), Effect::Grants, context, decide).await?)
    }

    /// The credentials of the account with the authority of `directory_url`, JSON.
    pub async fn account(&self, directory_url: &str, context: RequestContext) -> Result<Option<String>, ModelError> {
        let row: Option<AcmeAccountRow> = read(self.control.get(ACME_ACCOUNT, &sort_key(directory_url), context).await?)?;
        row.map(|row| self.sealer.open(&owner_of_account(directory_url), &row.credentials)).transpose()
    }

    /// Stores an account unless another node was first. Gives the credentials that count.
    pub async fn keep_account(&self, directory_url: &str, credentials: &str, context: RequestContext) -> Result<String, ModelError> {
        let row = AcmeAccountRow { credentials: self.sealer.seal(&self.runtime, &owner_of_account(directory_url), credentials) };
        let decide = |_: WriteId, held: Option<HeldRow>| -> BoxFuture<'_, Decision<Result<AcmeAccountRow, ModelError>>> {
            let decided = match read::<AcmeAccountRow>(held) {
                Ok(None) => Ok(row.clone()),
                Ok(Some(held)) => Err(Ok(held)),
                Err(error) => Err(Err(error)),
            };
            std::future::ready(decision(decided)).boxed()
        };
        match written(self.control.update(ACME_ACCOUNT, sort_key(directory_url), Effect::Grants, context, decide).await?)? {
            Ok(()) => Ok(credentials.to_owned()),
            Err(held) => self.sealer.open(&owner_of_account(directory_url), &held.credentials),
        }
    }
}

fn read<R: Stored>(row: Option<HeldRow>) -> Result<Option<R>, ModelError> {
    Ok(row.map(|row| R::from_stored(&row.content)).transpose()?)
}

fn decision<R: Stored, E>(decided: Result<R, E>) -> Decision<E> {
    match decided {
        Ok(row) => Decision::Write { content: row.to_stored(), companions: Vec::new() },
        Err(error) => Decision::Refuse(error),
    }
}

/// A refusal is either the caller's, or a row that can't be read.
fn written<E>(updated: Updated<Result<E, ModelError>>) -> Result<Result<(), E>, ModelError> {
    match updated {
        Updated::Written(_) => Ok(Ok(())),
        Updated::Refused(Ok(refusal)) => Ok(Err(refusal)),
        Updated::Refused(Err(error)) => Err(error),
    }
}
