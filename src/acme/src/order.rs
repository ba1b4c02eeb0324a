//! One order from start to end: account, order, proof, certificate.
//!
//! Source: RFC 8555 §7.

use garage_model::{
    ModelError, RequestContext,
    certificates::{Certificates, NewCertificate},
    rows::certificate::Challenge,
};
use garage_util::config::AcmeChallenge;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use yasna::{ASN1Result, BERReader, Tag, tags::TAG_UTCTIME};

use crate::{
    authority::{Account, Authority, AuthorityError, Order},
    jose::AccountKey,
    limits::STEP_TIMEOUT,
    manager::AcmeOptions,
};

/// Why an order gave no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("the authority: {0}")]
    Authority(#[from] AuthorityError),
    #[error("{0}")]
    Rows(#[from] ModelError),
    #[error("{0}")]
    Other(String),
    #[error("another node has taken the order over")]
    TakenOver,
}

/// The proof to be given, in turn: a host that is reached in one way only gets its certificate at the second try.
pub(crate) fn proof_of_try(failures: u32) -> AcmeChallenge {
    if failures.is_multiple_of(2) { AcmeChallenge::Http01 } else { AcmeChallenge::TlsAlpn01 }
}

/// What the authority calls a proof.
pub(crate) fn kind_of(proof: AcmeChallenge) -> &'static str {
    match proof {
        AcmeChallenge::Http01 => "http-01",
        AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
    }
}

/// An order that this node has begun.
pub(crate) struct Ordering<'a> {
    pub options: &'a AcmeOptions,
    pub certificates: &'a Certificates,
    pub name: &'a str,
    pub id: u64,
    pub proof: &'static str,
}

fn context() -> RequestContext {
    RequestContext::within(STEP_TIMEOUT)
}

impl Ordering<'_> {
    /// Takes the order to its end, and stores the certificate.
    pub(crate) async fn run(&self) -> Result<(), OrderError> {
        let mut authority = Authority::open(self.options.transport.clone(), &self.options.directory_url).await?;
        let account = self.account(&mut authority).await?;
        let order = authority.order(&account, self.name).await?;
        self.prove(&mut authority, &account, &order).await?;
        let order = authority.await_ready(&account, order).await?;
        let (key_pem, csr_der) = certificate_request(self.name).map_err(|error| OrderError::Other(error.to_string()))?;
        let chain_pem = authority.finish(&account, order, &csr_der).await?;
        let (not_before_ms, not_after_ms) = validity_ms(&chain_pem).map_err(OrderError::Other)?;
        let new = NewCertificate { chain_pem, key_pem, not_before_ms, not_after_ms };
        match self.certificates.finish_order(self.name, self.id, new, context()).await? {
            true => Ok(()),
            false => Err(OrderError::TakenOver),
        }
    }

    /// The cluster's account with the authority; made by whoever orders first.
    async fn account(&self, authority: &mut Authority) -> Result<Account, OrderError> {
        let url = &self.options.directory_url;
        let stored = match self.certificates.account(url, context()).await? {
            Some(stored) => stored,
            None => {
                let key = AccountKey::generate().map_err(AuthorityError::Key)?;
                let account = authority.register(key, &self.options.contact).await?;
                self.certificates.keep_account(url, &format!("{} {}", account.url, account.key.to_text()), context()).await?
            }
        };
        let unreadable = || OrderError::Other("the stored account can't be read".into());
        let (account_url, key) = stored.split_once(' ').ok_or_else(unreadable)?;
        Ok(Account { key: AccountKey::from_text(key).map_err(AuthorityError::Key)?, url: account_url.to_owned() })
    }

    /// Stores the proof for all nodes, then tells the authority to look.
    async fn prove(&self, authority: &mut Authority, account: &Account, order: &Order) -> Result<(), OrderError> {
        for offered in authority.wanted(account, order, self.proof).await? {
            let key_authorization = format!("{}.{}", offered.token, account.key.thumbprint());
            let proof = Challenge { token: offered.token.clone(), key_authorization };
            if !self.certificates.set_challenge(self.name, self.id, proof, context()).await? {
                return Err(OrderError::TakenOver);
            }
            authority.look(account, &offered).await?;
        }
        Ok(())
    }
}

/// A fresh private key, PEM, and the request for a certificate on it, DER.
fn certificate_request(name: &str) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// From when to when the first certificate of a chain is valid, in ms since 1970. Errors: a sentence.
pub(crate) fn validity_ms(chain_pem: &str) -> Result<(u64, u64), String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("the authority's certificate can't be read: {error}");
    let der = CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|error| unreadable(&error))?;
    let (begin_s, end_s) = yasna::parse_der(&der, validity_s).map_err(|error| unreadable(&error))?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Ok((ms(begin_s), ms(end_s)))
}

/// RFC 5280 §4.1: the fifth field of what is signed, behind version, serial number, algorithm and issuer.
fn validity_s(certificate: BERReader<'_, '_>) -> ASN1Result<(i64, i64)> {
    certificate.read_sequence(|fields| {
        let validity = fields.next().read_sequence(|fields| {
            fields.read_optional(|version| version.read_tagged(Tag::context(0), |version| version.read_der()))?;
            for _ in 0..3 {
                fields.next().read_der()?;
            }
            let validity = fields.next().read_sequence(|times| Ok((time_s(times.next())?, time_s(times.next())?)));
            while fields.read_optional(|field| field.read_der())?.is_some() {}
            validity
        });
        while fields.read_optional(|field| field.read_der())?.is_some() {}
        validity
    })
}

fn time_s(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    match reader.lookahead_tag()? {
        TAG_UTCTIME => Ok(reader.read_utctime()?.datetime().unix_timestamp()),
        _ => Ok(reader.read_generalized_time()?.datetime().unix_timestamp()),
    }
}

#[cfg(test)]
mod tests {
    use super::{kind_of, proof_of_try, validity_ms};

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(validity_ms(&pem), Ok((1_767_225_600_000, 2_840_140_800_000)));
        assert!(validity_ms("nothing").is_err());
    }

    #[test]
    fn the_other_proof_is_tried_after_a_failure() {
        assert_eq!([0, 1, 2].map(|failures| kind_of(proof_of_try(failures))), ["http-01", "tls-alpn-01", "http-01"]);
    }
}
