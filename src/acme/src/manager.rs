//! Who orders a certificate when: at a visitor's first handshake, and again before one ends.
//!
//! Invariants:
//! - no name is ordered that leads to no website, and none again before its time after a failure;
//! - a visitor who waits never holds an order up, and an order never ends because its visitor left.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use garage_model::{
    ModelError, RequestContext,
    buckets::Buckets,
    certificates::{Certificates, NotNow},
    rows::certificate::{CertificateRow, IssuedCertificate},
};
use garage_util::{config::AcmeChallenge, runtime::Runtime};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    limits::{
        HANDSHAKE_WAIT, LOOK_AGAIN, ORDER_TIMEOUT, ORDERS_MAX, RENEWAL_PERIOD, RETRY_MAX, RETRY_MIN, STEP_TIMEOUT, WAITING_NAMES_MAX,
    },
    names::is_site,
    order::{OrderError, Ordering, kind_of, proof_of_try},
    transport::Transport,
};

/// Which authority, and as whom.
pub struct AcmeOptions {
    /// URL of the authority's directory.
    pub directory_url: String,
    /// Mail addresses that the authority may write to.
    pub contact: Vec<String>,
    /// The proof that is given; `None`: one after the other, until one is accepted.
    pub challenge: Option<AcmeChallenge>,
    /// The way to it.
    pub transport: Transport,
    /// The domain under which every website has a host name, with or without a leading dot.
    pub root_domain: Option<String>,
}

/// Certificates from an authority. Cheap to clone.
#[derive(Clone)]
pub struct Acme {
    inner: Arc<Inner>,
}

struct Inner {
    options: AcmeOptions,
    runtime: Runtime,
    buckets: Buckets,
    certificates: Certificates,
    places: Semaphore,
    /// Names that this node orders.
    under_way: Mutex<BTreeSet<String>>,
}

fn context() -> RequestContext {
    RequestContext::within(STEP_TIMEOUT)
}

impl Acme {
    /// Starts to renew certificates, and to order new ones when asked.
    pub fn start(options: AcmeOptions, runtime: Runtime, buckets: Buckets, certificates: Certificates) -> Acme {
        let places = Semaphore::new(ORDERS_MAX);
        let inner = Inner { options, runtime: runtime.clone(), buckets, certificates, places, under_way: Mutex::default() };
        let acme = Acme { inner: Arc::new(inner) };
        let renewer = acme.clone();
        runtime.spawn("renewal of certificates", async move { renewer.renew_for_ever().await });
        acme
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        &self.inner.certificates
    }

    /// Whether a website is served under `name`.
    pub(crate) async fn is_site(&self, name: &str) -> Result<bool, ModelError> {
        is_site(name, self.inner.options.root_domain.as_deref(), &self.inner.buckets, context()).await
    }

    /// The certificate of a site; orders one if there is none that is valid, and waits for it. `None`: not within `HANDSHAKE_WAIT`.
    pub(crate) async fn certificate(&self, name: &str) -> Result<Option<IssuedCertificate>, ModelError> {
        let deadline = Instant::now() + HANDSHAKE_WAIT;
        loop {
            let now_ms = self.inner.runtime.now_ms();
            let row = self.inner.certificates.get(name, context()).await?.unwrap_or_default();
            if let Some(issued) = row.issued.as_ref().filter(|issued| now_ms < issued.not_after_ms) {
                if is_due(issued, now_ms) && row.retry_ms <= now_ms {
                    self.order(name);
                }
                return Ok(row.issued);
            }
            if now_ms < row.retry_ms || deadline <= Instant::now() {
                return Ok(None);
            }
            if !self.order(name) {
                return Ok(None);
            }
            // The order goes on in a task of its own, or on another node; its end shows in the row.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Makes sure that an order for the name is under way. False: too many names wait already.
    fn order(&self, name: &str) -> bool {
        let mut under_way = self.inner.under_way.lock();
        if under_way.contains(name) {
            return true;
        }
        if WAITING_NAMES_MAX <= under_way.len() {
            tracing::warn!(name, "too many names wait for a certificate on this node");
            return false;
        }
        under_way.insert(name.to_owned());
        drop(under_way);
        let (this, name) = (self.clone(), name.to_owned());
        self.inner.runtime.spawn("certificate order", async move {
            if let Ok(_place) = this.inner.places.acquire().await
                && let Err(error) = this.order_now(&name).await
            {
                tracing::warn!(name, %error, "no certificate could be ordered");
            }
            this.inner.under_way.lock().remove(&name);
        });
        true
    }

    async fn order_now(&self, name: &str) -> Result<(), ModelError> {
        let inner = &self.inner;
        let until_ms = inner.runtime.now_ms() + ORDER_TIMEOUT.as_millis() as u64;
        let failures = inner.certificates.get(name, context()).await?.map_or(0, |row| row.failures);
        let id = match inner.certificates.begin_order(name, until_ms, context()).await? {
            Ok(id) => id,
            Err(NotNow::UnderWay(_)) => {
                // Of another node. Its end is seen in the row.
                tokio::time::sleep(LOOK_AGAIN).await;
                return Ok(());
            }
            Err(NotNow::Failed(retry_ms, reason)) => {
                tracing::debug!(name, retry_ms, reason, "the last order failed not long ago");
                return Ok(());
            }
        };
        let proof = kind_of(inner.options.challenge.unwrap_or_else(|| proof_of_try(failures)));
        let ordering = Ordering { options: &inner.options, certificates: &inner.certificates, name, id, proof };
        let ran = tokio::time::timeout(ORDER_TIMEOUT, ordering.run()).await;
        match ran.unwrap_or_else(|_| Err(OrderError::Other(format!("not done within {} s", ORDER_TIMEOUT.as_secs())))) {
            Ok(()) => {
                tracing::info!(name, "a certificate was issued");
                Ok(())
            }
            Err(OrderError::TakenOver) => Ok(()),
            Err(error) => {
                let retry_ms = inner.runtime.now_ms() + retry_after(failures).as_millis() as u64;
                tracing::warn!(name, proof, %error, failures = failures + 1, "the certificate authority issued no certificate");
                inner.certificates.fail_order(name, id, &error.to_string(), retry_ms, context()).await.map(drop)
            }
        }
    }

    async fn renew_for_ever(&self) {
        loop {
            // Not all nodes at the same time: whoever comes first begins the order, the others see it.
            let jitter = Duration::from_millis(self.inner.runtime.random_u64() % RENEWAL_PERIOD.as_millis() as u64);
            tokio::time::sleep(RENEWAL_PERIOD / 2 + jitter).await;
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "certificates could not be looked through for renewal");
            }
        }
    }

    async fn renew(&self) -> Result<(), ModelError> {
        let now_ms = self.inner.runtime.now_ms();
        for (name, row) in self.inner.certificates.list(context()).await? {
            if needs_renewal(&row, now_ms) && self.is_site(&name).await? {
                self.order(&name);
            }
        }
        Ok(())
    }
}

/// A certificate that was given up is not ordered again until a visitor comes.
fn needs_renewal(row: &CertificateRow, now_ms: u64) -> bool {
    row.retry_ms <= now_ms && row.issued.as_ref().is_some_and(|issued| is_due(issued, now_ms) && now_ms < issued.not_after_ms)
}

/// In the last third of its life.
fn is_due(issued: &IssuedCertificate, now_ms: u64) -> bool {
    let life_ms = issued.not_after_ms.saturating_sub(issued.not_before_ms);
    issued.not_after_ms.saturating_sub(life_ms / 3) <= now_ms
}

fn retry_after(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.min(20)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use garage_model::rows::{
        certificate::{CertificateRow, IssuedCertificate},
        key::SealedSecret,
    };

    use super::{RETRY_MAX, RETRY_MIN, is_due, needs_renewal, retry_after};

    const DAY_MS: u64 = 86_400_000;

    fn issued() -> IssuedCertificate {
        let key = SealedSecret { sealing_key_id: [0; 8], nonce: Default::default(), sealed: Default::default() };
        IssuedCertificate { chain_pem: String::new(), key, not_before_ms: 0, not_after_ms: 90 * DAY_MS }
    }

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life_but_not_after_it() {
        let row = |retry_ms| CertificateRow { issued: Some(issued()), retry_ms, ..CertificateRow::default() };
        for (day, expected) in [(0, false), (59, false), (60, true), (89, true)] {
            assert_eq!(is_due(&issued(), day * DAY_MS), expected, "day {day}");
            assert_eq!(needs_renewal(&row(0), day * DAY_MS), expected, "day {day}");
        }
        assert!(!needs_renewal(&row(0), 90 * DAY_MS));
        assert!(!needs_renewal(&row(70 * DAY_MS), 65 * DAY_MS), "the last try failed not long ago");
        assert!(!needs_renewal(&CertificateRow::default(), 0));
    }

    #[test]
    fn failures_are_repeated_ever_more_seldom() {
        assert_eq!(retry_after(0), RETRY_MIN);
        assert_eq!(retry_after(1), RETRY_MIN * 2);
        assert_eq!(retry_after(u32::MAX), RETRY_MAX);
    }
}
