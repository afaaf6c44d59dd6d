//! TLS by a certificate and a key in files, which may be replaced while the server runs.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use crate::settings::Http;

use super::files::{Files, Look};

/// The certificate in use.
pub(super) struct Tls {
    files: Files,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// `None` without the two files in the settings.
    pub(super) fn load(settings: &Http) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key)) = (&settings.tls_cert_file, &settings.tls_key_file) else {
            return Ok(None);
        };
        let named = vec![
            ("http.tls_cert_file", PathBuf::from(cert)),
            ("http.tls_key_file", PathBuf::from(key)),
        ];
        let (files, acceptor) = Files::open(named, parse)?;
        Ok(Some(Self { files, acceptor }))
    }

    /// For the next connection; those that are there keep theirs.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Takes new files, if there are any and they are good.
    pub(super) async fn look(&mut self) {
        match self.files.look(parse).await {
            Look::Same => {}
            Look::New(acceptor) => {
                self.acceptor = acceptor;
                info!("New connections are given the new certificate");
            }
            Look::Broken(error) => warn!("The old certificate stays in use: {error:#}"),
        }
    }
}

fn parse(read: &[Vec<u8>]) -> anyhow::Result<TlsAcceptor> {
    let [chain, key] = read else { anyhow::bail!("two files are read") };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .context("read the certificates as PEM")?;
    ensure!(!chain.is_empty(), "the first file holds no certificate in PEM");
    let key = PrivateKeyDer::from_pem_slice(key).context("read the private key as PEM")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choose the versions of TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("put certificate and key together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
