//! TLS to the broker: whom we trust, and by what we show who we are.
//!
//! Owns: reading the files that `amqp.tls_*` name, at each connection anew, so that renewed
//! certificates are taken by the next one; and saying which file a refusal is about.
//! Never: goes on without a file that is named.

use std::error::Error;
use std::fs;
use std::io;

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{AlertDescription, Error as TlsError, RootCertStore};

use super::error::BrokerError;
use crate::settings::Amqp;

/// Whether the files that are named can be used; without TLS none is.
pub fn check(amqp: &Amqp) -> Result<(), BrokerError> {
    let named = [&amqp.tls_ca_file, &amqp.tls_cert_file, &amqp.tls_key_file];
    if named.iter().any(|file| file.is_some()) { connector(amqp).map(drop) } else { Ok(()) }
}

/// Whom the broker's other doors are trusted by: the authorities of `amqp.tls_ca_file` and no
/// others, else those of the machine; each in DER.
pub fn authorities(amqp: &Amqp) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    match &amqp.tls_ca_file {
        Some(file) => certificates("amqp.tls_ca_file", file),
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

/// What makes a connection one of TLS.
pub(super) fn connector(amqp: &Amqp) -> Result<RustlsConnector, BrokerError> {
    let trusted = trusted(amqp)?;
    let (Some(cert), Some(key)) = (&amqp.tls_cert_file, &amqp.tls_key_file) else {
        return trusted.connector_with_no_client_auth().map_err(|error| unusable(&error));
    };
    let chain = certificates("amqp.tls_cert_file", cert)?;
    let bytes = read("amqp.tls_key_file", key)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let text = format!("amqp.tls_key_file: {key} holds no private key in PEM ({error})");
        BrokerError::Certificate { text }
    })?;
    trusted.connector_with_single_cert(chain, private).map_err(|error| {
        let text = format!(
            "amqp.tls_key_file: {key} is not the key of amqp.tls_cert_file, {cert} ({error})"
        );
        BrokerError::Certificate { text }
    })
}

/// The certificates of `amqp.tls_ca_file` and no others, else those of the machine.
fn trusted(amqp: &Amqp) -> Result<RustlsConnectorConfig, BrokerError> {
    const SETTING: &str = "amqp.tls_ca_file";
    let Some(file) = &amqp.tls_ca_file else {
        return RustlsConnectorConfig::new_with_native_certs().map_err(|error| {
            let text = format!(
                "this machine trusts no certificate ({error}): name the one of the broker's CA \
                 in {SETTING}"
            );
            BrokerError::Certificate { text }
        });
    };
    let trusted = certificates(SETTING, file)?;
    // The client library passes over what it cannot parse.
    let mut store = RootCertStore::empty();
    for certificate in &trusted {
        store.add(certificate.clone()).map_err(|error| {
            let text = format!("{SETTING}: {file} holds what is no certificate ({error})");
            BrokerError::Certificate { text }
        })?;
    }
    Ok(RustlsConnectorConfig::default().with_parsable_certificates(trusted))
}

fn certificates(
    setting: &'static str,
    file: &str,
) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let bytes = read(setting, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => {
            let text = format!("{setting}: {file} holds no certificate in PEM");
            Err(BrokerError::Certificate { text })
        }
    }
}

fn read(setting: &'static str, file: &str) -> Result<Vec<u8>, BrokerError> {
    fs::read(file).map_err(|error| {
        let text = format!("{setting}: read {file}: {error}; name a file that keylane may read");
        BrokerError::Certificate { text }
    })
}

fn unusable(error: &io::Error) -> BrokerError {
    BrokerError::Certificate { text: format!("TLS to the broker cannot be set up: {error}") }
}

/// A connection that failed for a certificate says which, and what to do.
pub(super) fn explain(error: &(dyn Error + 'static), amqp: &Amqp) -> Option<BrokerError> {
    let text = tls_error(error).and_then(|tls| reason(tls, amqp))?;
    Some(BrokerError::Certificate { text })
}

/// The error of TLS that is at the bottom of another one.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn reason(error: &TlsError, amqp: &Amqp) -> Option<String> {
    match (error, &amqp.tls_cert_file) {
        (TlsError::InvalidCertificate(why), _) => Some(format!(
            "the broker's certificate is not accepted ({why}): amqp.tls_ca_file must name the CA \
             that has signed it, and amqp.url a host that it is for"
        )),
        (
            TlsError::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
            ),
            None,
        ) => Some(
            "the broker wants a certificate of its clients: set amqp.tls_cert_file and \
             amqp.tls_key_file"
                .to_owned(),
        ),
        (TlsError::AlertReceived(alert), Some(file)) => Some(format!(
            "the broker does not accept the certificate of amqp.tls_cert_file, {file} \
             ({alert:?}): it must be valid, for clients, and by a CA that the broker trusts"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapin::ErrorKind;
    use tokio_rustls::rustls::CertificateError;

    use super::*;

    fn explained(error: TlsError, file: Option<&str>) -> Option<BrokerError> {
        let amqp = Amqp { tls_cert_file: file.map(str::to_owned), ..Amqp::default() };
        let io = Arc::new(io::Error::new(io::ErrorKind::InvalidData, error));
        explain(&lapin::Error::from(ErrorKind::IOError(io)), &amqp)
    }

    #[test]
    fn a_refusal_names_the_file_that_it_is_about() {
        let alert = TlsError::AlertReceived;
        let table = [
            (
                TlsError::InvalidCertificate(CertificateError::UnknownIssuer),
                None,
                "amqp.tls_ca_file must name",
            ),
            (alert(AlertDescription::CertificateRequired), None, "set amqp.tls_cert_file"),
            (alert(AlertDescription::HandshakeFailure), None, "set amqp.tls_cert_file"),
            (alert(AlertDescription::UnknownCA), Some("/a.crt"), "/a.crt (UnknownCA)"),
            (alert(AlertDescription::CertificateExpired), Some("/a.crt"), "(CertificateExpired)"),
        ];
        for (error, file, part) in table {
            let said = explained(error.clone(), file).unwrap();
            assert!(said.to_string().contains(part), "{error:?}: {said}");
            assert!(!said.passes(), "{error:?}");
        }
        assert!(explained(TlsError::HandshakeNotComplete, None).is_none());
    }
}
