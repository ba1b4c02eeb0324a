//! The authority's protocol: directory, account, orders. One client for one order.
//!
//! Source: RFC 8555 §6, §7.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    jose::{AccountKey, KeyError, Sender},
    limits::{POLL_PERIOD, POLLS_MAX, STALE_NONCES_MAX},
    transport::{Answer, SendError, Transport},
};

/// Why the authority gave no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("it can't be asked: {0}")]
    Send(#[from] SendError),
    #[error("{0}")]
    Key(#[from] KeyError),
    /// It says why.
    #[error("it refuses: {detail} ({kind}, status {status})")]
    Refused { kind: String, detail: String, status: u16 },
    #[error("its answer can't be read: {0}")]
    Unreadable(String),
    #[error("it did not get further in time: the order is {0}")]
    Unfinished(String),
}

/// Where the authority takes what.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
}

/// How a request failed; RFC 7807.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
}

/// An order for a certificate.
#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    status: String,
    #[serde(default)]
    authorizations: Vec<String>,
    finalize: String,
    certificate: Option<String>,
    error: Option<Problem>,
    /// Where it is asked for.
    #[serde(skip)]
    url: String,
}

/// The question whether a name leads to whoever orders.
#[derive(Debug, Deserialize)]
struct Authorization {
    status: String,
    #[serde(default)]
    challenges: Vec<Offered>,
}

/// A way to answer it.
#[derive(Debug, Deserialize)]
pub(crate) struct Offered {
    #[serde(rename = "type")]
    kind: String,
    url: String,
    /// By which the proof is asked for.
    #[serde(default)]
    pub token: String,
    #[serde(default)]
    error: Option<Problem>,
}

/// An account as it is kept: the key, and the URL under which the authority knows it.
pub(crate) struct Account {
    pub key: AccountKey,
    pub url: String,
}

/// A client of one authority. Requests follow each other.
pub(crate) struct Authority {
    transport: Transport,
    directory: Directory,
    nonce: Option<String>,
}

impl Authority {
    /// Reads the directory.
    pub(crate) async fn open(transport: Transport, directory_url: &str) -> Result<Authority, AuthorityError> {
        let answer = transport.send(Method::GET, directory_url, None).await?;
        if answer.status != StatusCode::OK {
            return Err(refused(&answer));
        }
        Ok(Authority { directory: read(&answer)?, transport, nonce: None })
    }

    /// Makes an account, or finds the one that the key has. The operator has accepted the terms in the configuration.
    pub(crate) async fn register(&mut self, key: AccountKey, contact: &[String]) -> Result<Account, AuthorityError> {
        let contact: Vec<String> = contact.iter().map(|address| format!("mailto:{address}")).collect();
        let payload = json!({ "termsOfServiceAgreed": true, "contact": contact });
        let url = self.directory.new_account.clone();
        let answer = self.post(&key, Sender::Key, &url, Some(&payload)).await?;
        let url = header(&answer.headers, "location").ok_or_else(|| AuthorityError::Unreadable("the account has no URL".into()))?;
        Ok(Account { key, url })
    }

    /// Orders a certificate for a name.
    pub(crate) async fn order(&mut self, account: &Account, name: &str) -> Result<Order, AuthorityError> {
        let payload = json!({ "identifiers": [{ "type": "dns", "value": name }] });
        let url = self.directory.new_order.clone();
        let answer = self.post_as(account, &url, Some(&payload)).await?;
        let url = header(&answer.headers, "location").ok_or_else(|| AuthorityError::Unreadable("the order has no URL".into()))?;
        Ok(Order { url, ..read(&answer)? })
    }

    /// The proofs of kind `kind` that are still wanted for an order. Errors: the authority takes none of that kind.
    pub(crate) async fn wanted(&mut self, account: &Account, order: &Order, kind: &str) -> Result<Vec<Offered>, AuthorityError> {
        let mut wanted = Vec::new();
        for url in &order.authorizations {
            let authorization: Authorization = read(&self.post_as(account, url, None).await?)?;
            if authorization.status == "valid" {
                continue;
            }
            let offered = authorization.challenges.into_iter().find(|offered| offered.kind == kind);
            wanted.push(offered.ok_or_else(|| AuthorityError::Unreadable(format!("it takes no proof by {kind}")))?);
        }
        Ok(wanted)
    }

    /// Says that a proof can be looked at.
    pub(crate) async fn look(&mut self, account: &Account, offered: &Offered) -> Result<(), AuthorityError> {
        self.post_as(account, &offered.url, Some(&json!({}))).await.map(drop)
    }

    /// Waits until the proofs were accepted.
    pub(crate) async fn await_ready(&mut self, account: &Account, order: Order) -> Result<Order, AuthorityError> {
        let order = self.poll(account, order, &["ready", "valid"]).await?;
        if order.status != "invalid" {
            return Ok(order);
        }
        // The order itself only says that a proof failed.
        for url in &order.authorizations {
            let authorization: Authorization = read(&self.post_as(account, url, None).await?)?;
            if let Some(problem) = authorization.challenges.into_iter().find_map(|offered| offered.error) {
                return Err(problem.into());
            }
        }
        Err(order.error.unwrap_or_default().into())
    }

    /// Hands the request for the certificate in, and fetches the certificate with those above it, PEM.
    pub(crate) async fn finish(&mut self, account: &Account, order: Order, csr_der: &[u8]) -> Result<String, AuthorityError> {
        let payload = json!({ "csr": URL_SAFE_NO_PAD.encode(csr_der) });
        let answer = self.post_as(account, &order.finalize, Some(&payload)).await?;
        let order = Order { url: order.url, ..read(&answer)? };
        let order = self.poll(account, order, &["valid"]).await?;
        let Some(url) = order.certificate else { return Err(order.error.unwrap_or_default().into()) };
        let answer = self.post_as(account, &url, None).await?;
        String::from_utf8(answer.body.to_vec()).map_err(|_| AuthorityError::Unreadable("the certificate is not text".into()))
    }

    /// Asks for an order until it has one of the wanted states, or is invalid.
    async fn poll(&mut self, account: &Account, mut order: Order, wanted: &[&str]) -> Result<Order, AuthorityError> {
        for _ in 0..POLLS_MAX {
            if order.status == "invalid" || wanted.contains(&order.status.as_str()) {
                return Ok(order);
            }
            tokio::time::sleep(POLL_PERIOD).await;
            let answer = self.post_as(account, &order.url, None).await?;
            if let Some(seconds) = header(&answer.headers, "retry-after").and_then(|value| value.parse::<u64>().ok()) {
                tokio::time::sleep(Duration::from_secs(seconds.min(10))).await;
            }
            order = Order { url: order.url, ..read(&answer)? };
        }
        Err(AuthorityError::Unfinished(order.status))
    }

    async fn post_as(&mut self, account: &Account, url: &str, payload: Option<&Value>) -> Result<Answer, AuthorityError> {
        self.post(&account.key, Sender::Account(&account.url), url, payload).await
    }

    /// A signed request. A nonce that has grown old is exchanged, as RFC 8555 §6.5 expects.
    async fn post(&mut self, key: &AccountKey, sender: Sender<'_>, url: &str, payload: Option<&Value>) -> Result<Answer, AuthorityError> {
        let mut stale_count = 0;
        loop {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.fresh_nonce().await?,
            };
            let body = key.sign(sender, url, &nonce, payload)?;
            let answer = self.transport.send(Method::POST, url, Some(body)).await?;
            self.nonce = header(&answer.headers, "replay-nonce");
            if answer.status.is_success() {
                return Ok(answer);
            }
            let error = refused(&answer);
            let is_stale = matches!(&error, AuthorityError::Refused { kind, .. } if kind.ends_with(":badNonce"));
            stale_count += 1;
            if !is_stale || STALE_NONCES_MAX < stale_count {
                return Err(error);
            }
        }
    }

    async fn fresh_nonce(&mut self) -> Result<String, AuthorityError> {
        let answer = self.transport.send(Method::HEAD, &self.directory.new_nonce, None).await?;
        header(&answer.headers, "replay-nonce").ok_or_else(|| AuthorityError::Unreadable("it gives no nonce".into()))
    }
}

impl From<Problem> for AuthorityError {
    fn from(problem: Problem) -> AuthorityError {
        AuthorityError::Refused { kind: problem.kind, detail: problem.detail, status: 200 }
    }
}

fn refused(answer: &Answer) -> AuthorityError {
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    AuthorityError::Refused { kind: problem.kind, detail: problem.detail, status: answer.status.as_u16() }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, AuthorityError> {
    serde_json::from_slice(&answer.body).map_err(|error| AuthorityError::Unreadable(error.to_string()))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
