//! Whom to trust: the system's CAs, those the user names, and a client's own certificate.
//!
//! The system's are read when the first https address is asked for, as it costs
//! milliseconds. Where a machine has none (a bare container), Mozilla's list that
//! was compiled in takes their place.

use std::path::{Path, PathBuf};

use ureq::tls::{parse_pem, Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

use crate::TransferError;

/// Certificates to use beside the system's.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM files with more CAs.
    pub ca_files: Vec<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Believe any certificate.
    pub anyone: bool,
}

impl Trust {
    /// The TLS settings; the client certificate is only for the registry itself.
    pub fn tls(&self, is_home: bool) -> Result<TlsConfig, TransferError> {
        let mut builder = TlsConfig::builder().disable_verification(self.anyone);
        if !self.anyone {
            builder = builder.root_certs(self.roots()?);
        }
        if let (true, Some((certificate, key))) = (is_home, &self.client) {
            builder = builder.client_cert(Some(client_certificate(certificate, key)?));
        }
        Ok(builder.build())
    }

    fn roots(&self) -> Result<RootCerts, TransferError> {
        let mut certificates: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        if certificates.is_empty() && self.ca_files.is_empty() {
            return Ok(RootCerts::WebPki);
        }
        for path in &self.ca_files {
            certificates.extend(read_certificates(path)?);
        }
        Ok(RootCerts::new_with_certs(&certificates))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TransferError> {
    std::fs::read(path)
        .map_err(|error| TransferError::Certificate(format!("cannot read `{}`: {error}", path.display())))
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TransferError> {
    let pem = read(path)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(TransferError::Certificate(format!("no certificate in `{}`", path.display())));
    }
    Ok(found)
}

fn client_certificate(certificate: &Path, key: &Path) -> Result<ClientCert, TransferError> {
    let chain = read_certificates(certificate)?;
    let key_pem = read(key)?;
    let private = PrivateKey::from_pem(&key_pem)
        .map_err(|error| TransferError::Certificate(format!("bad key in `{}`: {error}", key.display())))?;
    Ok(ClientCert::new_with_certs(&chain, private))
}
