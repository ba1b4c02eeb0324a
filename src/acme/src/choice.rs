//! What a website's TLS handshake is answered with: the proof that an authority asks for, the site's certificate, or that of the files.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use garage_api_common::http::tls::{CertificateFiles, Hello, TlsChoice, server_config_of_pem};
use garage_model::{ModelError, RequestContext, rows::certificate::IssuedCertificate};
use parking_lot::Mutex;
use rustls::ServerConfig;

use crate::{
    challenge::proof_config,
    limits::{READY_MAX, STEP_TIMEOUT},
    manager::Acme,
};

/// Chooses for the websites of a cluster.
pub struct WebsiteTls {
    acme: Acme,
    /// For hosts that are no site, and clients that name none.
    files: Option<Arc<CertificateFiles>>,
    ready: Mutex<BTreeMap<String, Ready>>,
}

/// A certificate that is ready to be served.
struct Ready {
    chain_pem: String,
    config: Arc<ServerConfig>,
}

impl WebsiteTls {
    /// Certificates from an authority for sites, those of `files` for everything else.
    pub fn new(acme: Acme, files: Option<Arc<CertificateFiles>>) -> WebsiteTls {
        WebsiteTls { acme, files, ready: Mutex::default() }
    }

    async fn find(&self, hello: &Hello) -> Result<Option<Arc<ServerConfig>>, ModelError> {
        let Some(name) = &hello.server_name else { return Ok(None) };
        if hello.asks_for_proof {
            let challenge = self.acme.certificates().challenge(name, RequestContext::within(STEP_TIMEOUT)).await?;
            let config = challenge.map(|challenge| proof_config(name, &challenge)).transpose();
            return config.map(|config| config.map(Arc::new)).map_err(ModelError::Secret);
        }
        if !self.acme.is_site(name).await? {
            return Ok(None);
        }
        match self.acme.certificate(name).await? {
            Some(issued) => self.ready(name, &issued).map(Some),
            None => Ok(None),
        }
    }

    fn ready(&self, name: &str, issued: &IssuedCertificate) -> Result<Arc<ServerConfig>, ModelError> {
        if let Some(ready) = self.ready.lock().get(name).filter(|ready| ready.chain_pem == issued.chain_pem) {
            return Ok(ready.config.clone());
        }
        let key_pem = self.acme.certificates().key_pem(name, issued)?;
        let config = server_config_of_pem(issued.chain_pem.as_bytes(), key_pem.as_bytes());
        let config = Arc::new(config.map_err(|reason| ModelError::Secret(format!("the certificate of {name} can't be used: {reason}")))?);
        let mut ready = self.ready.lock();
        if READY_MAX <= ready.len() {
            // All of them can be made again; which one goes does not matter.
            ready.clear();
        }
        ready.insert(name.to_owned(), Ready { chain_pem: issued.chain_pem.clone(), config: config.clone() });
        Ok(config)
    }
}

impl TlsChoice for WebsiteTls {
    fn choose(self: Arc<Self>, hello: Hello) -> BoxFuture<'static, Option<Arc<ServerConfig>>> {
        Box::pin(async move {
            let found = self.find(&hello).await.unwrap_or_else(|error| {
                tracing::warn!(name = hello.server_name, %error, "a handshake goes without the site's certificate");
                None
            });
            match (found, &self.files) {
                (None, Some(files)) if !hello.asks_for_proof => files.clone().choose(hello).await,
                (found, _) => found,
            }
        })
    }
}
