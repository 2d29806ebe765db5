//! Whom a client trusts when it talks TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// TLS for HTTP/2. Trusted is who is in `ca_file`, else in `$EVENER_CA_FILE`, else whom the system trusts.
pub(crate) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let named = std::env::var_os("EVENER_CA_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let roots = match ca_file.map(Path::to_owned).or(named) {
        Some(path) => from_file(&path)?,
        None => from_system()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring knows the usual versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn from_file(path: &Path) -> Result<RootCertStore, Error> {
    let unfit = |why: String| Error::Connect(format!("cannot use the certificates in {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unfit(error.to_string()))? {
        let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unfit("there are none in it (it should hold PEM blocks)".to_owned()));
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // Systems ship certificates that no one can use any more; those are left out.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::Connect(
            "no certificate authorities were found on this system; set EVENER_CA_FILE to a file of certificates (PEM)"
                .to_owned(),
        ));
    }
    Ok(roots)
}
