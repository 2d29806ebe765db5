//! Opening the sockets that a service listens on.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use evener_doors::BoundListener;
use evener_supervisor::runtime_dir::RuntimeDir;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::config::{Listener, Tls};

/// A socket that could not be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address} for `{door}`: {why}{}", elsewhere(door, why))]
    Address {
        /// What is to be served there: `http` or `api`.
        door: &'static str,
        /// The address, or the path of a Unix socket.
        address: String,
        /// What the system says.
        why: io::Error,
    },
    /// The certificate or the key cannot be used.
    #[error("cannot use the TLS files {} and {}: {why}", cert.display(), key.display())]
    Tls {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What to do about an address that somebody else has.
fn elsewhere(door: &str, why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::AddrInUse => format!("; `--{door} 127.0.0.1:0` takes a free port"),
        _ => String::new(),
    }
}

/// How many connections may wait to be accepted, if the system allows as many: a burst beyond that waits for a second try.
const BACKLOG: i32 = 4096;

/// Lets more connections wait than the runtime's library asks for.
fn widen(listening: &impl AsFd) {
    if let Err(error) = rustix::net::listen(listening, BACKLOG) {
        tracing::debug!(%error, "the backlog of a listener stays as it was");
    }
}

/// Listens on the address of a service file.
pub(crate) async fn tcp(listener: &Listener, door: &'static str) -> Result<BoundListener, ListenError> {
    let tls = listener.tls.as_ref().map(acceptor).transpose()?;
    let bound = TcpListener::bind(&listener.address).await;
    let bound = bound.map_err(|why| ListenError::Address { door, address: listener.address.clone(), why })?;
    widen(&bound);
    Ok(BoundListener::Tcp(bound, tls))
}

/// Listens on a Unix socket of this process in the private runtime folder.
pub(crate) fn unix(folder: &RuntimeDir, service: &str) -> Result<BoundListener, ListenError> {
    let path = folder.path().join(format!("{service}-{}.sock", std::process::id()));
    // A file of that name was left by a process of the same number that is gone.
    let _ = std::fs::remove_file(&path);
    match UnixListener::bind(&path) {
        Ok(bound) => {
            widen(&bound);
            Ok(BoundListener::Unix(bound, path))
        }
        Err(why) => Err(ListenError::Address { door: "api", address: path.display().to_string(), why }),
    }
}

/// The host names under which the API on that listener is known; empty if any will do.
pub(crate) fn hosts(listener: &Listener) -> Vec<String> {
    let host = listener.address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        // The certificate says for which names the API speaks, and a browser checks that before it asks.
        _ if listener.tls.is_some() => Vec::new(),
        Ok(address) if address.is_unspecified() => Vec::new(),
        _ => {
            let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            if !hosts.contains(&host) {
                hosts.push(host);
            }
            hosts
        }
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ListenError> {
    let wrong = |why: String| ListenError::Tls { cert: tls.cert.clone(), key: tls.key.clone(), why };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&tls.cert).map_err(|error| wrong(error.to_string()))?.collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
