//! TLS between replicas: both ends show a certificate of the group's own authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What is read of a connection.
pub(super) type Reading = Box<dyn AsyncRead + Send + Unpin>;
/// What is written to one.
pub(super) type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// Where the certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `gantryHaTlsCertPath`: this replica's certificate, with those between it and the authority.
    pub certificate: PathBuf,
    /// `gantryHaTlsKeyPath`: its key.
    pub key: PathBuf,
    /// `gantryHaTlsTrustCertPath`: the authority that has signed every replica's certificate. It should sign nothing else.
    pub authority: PathBuf,
    /// `gantryHaTlsName`: the DNS name in every replica's certificate, `brokerName` by default. Addresses are not looked at: they change.
    pub name: String,
}

/// Both sides' settings.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(files: &TlsFiles) -> Result<Self> {
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .with_context(|| format!("{} holds no private key in PEM", files.key.display()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authority)? {
            roots.add(authority).with_context(|| format!("{} is no authority", files.authority.display()))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let mismatch = || format!("{} and {} don't belong together", files.certificate.display(), files.key.display());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .with_context(mismatch)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .with_context(mismatch)?;
        let name = ServerName::try_from(files.name.clone())
            .with_context(|| format!("gantryHaTlsName={} is no DNS name", files.name))?;
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into(), name })
    }
}

/// A slave's connection, whose peer is known from here on if TLS is on.
pub(super) async fn accept(stream: TcpStream, tls: Option<&Tls>, patience: Duration) -> Result<(Reading, Writing)> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(plain(stream)) };
    match timeout(patience, tls.acceptor.accept(stream)).await {
        Ok(accepted) => Ok(split(accepted.map_err(Handshake)?)),
        Err(_elapsed) => bail!("the TLS handshake took more than {patience:?}"),
    }
}

/// A connection to the master.
pub(super) async fn connect(stream: TcpStream, tls: Option<&Tls>, patience: Duration) -> Result<(Reading, Writing)> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(plain(stream)) };
    match timeout(patience, tls.connector.connect(tls.name.clone(), stream)).await {
        Ok(connected) => Ok(split(connected.map_err(Handshake)?)),
        Err(_elapsed) => bail!("the TLS handshake took more than {patience:?}"),
    }
}

/// A peer that shows no certificate, or not one of the group's authority; or speaks no TLS at all.
#[derive(Debug, thiserror::Error)]
#[error("no TLS of this group (gantryHaTlsEnable): {0}")]
pub(super) struct Handshake(std::io::Error);

fn plain(stream: TcpStream) -> (Reading, Writing) {
    let (from, to) = stream.into_split();
    (Box::new(from), Box::new(to))
}

fn split(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> (Reading, Writing) {
    let (from, to) = tokio::io::split(stream);
    (Box::new(from), Box::new(to))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = || format!("{} holds no certificates in PEM", path.display());
    let all = CertificateDer::pem_file_iter(path).with_context(unreadable)?;
    let all = all.collect::<Result<Vec<_>, _>>().with_context(unreadable)?;
    if all.is_empty() {
        bail!(unreadable());
    }
    Ok(all)
}
