//! A port's certificate: PEM files, read again when their bytes change. Invariants: a pair that cannot be read or does not
//! fit together never replaces one that does; the first pair must be good; files whose disk hangs hold no stop up.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::aside::{Aside, Miss};
use crate::config;
use crate::logs;

/// How often the files are compared with what is in use.
const LOOK: Duration = Duration::from_secs(10);
/// A certificate chain or key is never as large as this.
const FILE_BYTES: u64 = 1 << 20;

/// A certificate and key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Their disk hangs.
    #[error("{} and {} do not come: their disk hangs", cert.display(), key.display())]
    Late {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A file holds something else.
    #[error("{} holds no {wanted} in PEM", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// They are not a pair, or not of a kind that can be used.
    #[error("{} and {} are no usable pair", cert.display(), key.display())]
    NoPair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The library's words.
        source: rustls::Error,
    },
}

/// A certificate in use.
#[derive(Clone)]
pub struct Tls {
    files: config::Tls,
    look: Duration,
    reading: Arc<Aside<Bytes, TlsError>>,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

struct Current {
    pair: ArcSwap<CertifiedKey>,
    digest: ArcSwap<[u8; 32]>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(…)")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.load_full())
    }
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn load(files: config::Tls) -> Result<Self, TlsError> {
        Self::load_and_look_every(files, LOOK).await
    }

    /// The same, with another interval between looks at the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn load_and_look_every(files: config::Tls, look: Duration) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let reading = Arc::new(Aside::new());
        let bytes = Bytes::read(&files, &reading).await?;
        let pair = bytes.pair(&files, &provider)?;
        let digest = bytes.digest();
        let current =
            Arc::new(Current { pair: ArcSwap::from_pointee(pair), digest: ArcSwap::from_pointee(digest) });
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| no_pair(&files, source))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, look, reading, current, acceptor: TlsAcceptor::from(Arc::new(server)) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Takes a new pair whenever the files hold one, until `stop`.
    pub(super) async fn keep_current(self, stop: CancellationToken) {
        let provider = aws_lc_rs::default_provider();
        // A failure is said once, not at every look.
        let mut said = None;
        let look = async || {
            tokio::time::sleep(self.look).await;
            self.renew(&provider).await
        };
        while let Some(renewed) = stop.run_until_cancelled(look()).await {
            match renewed {
                Ok(Renewal::Same) => {}
                Ok(Renewal::New) => {
                    said = None;
                    tracing::info!(cert = %self.files.cert.display(), "certificate.renewed");
                }
                Err(error) => {
                    let words = logs::words(&error);
                    if said.as_ref() != Some(&words) {
                        tracing::warn!(error = &words, "certificate.not_renewed");
                        said = Some(words);
                    }
                }
            }
        }
    }

    async fn renew(&self, provider: &CryptoProvider) -> Result<Renewal, TlsError> {
        let bytes = Bytes::read(&self.files, &self.reading).await?;
        let digest = bytes.digest();
        if digest == **self.current.digest.load() {
            return Ok(Renewal::Same);
        }
        let pair = bytes.pair(&self.files, provider)?;
        self.current.pair.store(Arc::new(pair));
        self.current.digest.store(Arc::new(digest));
        Ok(Renewal::New)
    }
}

enum Renewal {
    Same,
    New,
}

#[derive(Clone)]
struct Bytes {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Bytes {
    async fn read(files: &config::Tls, aside: &Aside<Self, TlsError>) -> Result<Self, TlsError> {
        let config::Tls { cert, key } = files.clone();
        let bytes = aside.read(move || Ok(Self { cert: read(&cert)?, key: read(&key)? })).await;
        bytes.map_err(|miss| match miss {
            Miss::Failed(error) => error,
            Miss::Late(_) => TlsError::Late { cert: files.cert.clone(), key: files.key.clone() },
        })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(Sha256::digest(&self.cert)).chain_update(&self.key).finalize().into()
    }

    fn pair(&self, files: &config::Tls, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::NotPem { path: files.key.clone(), wanted: "private key" })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| no_pair(files, source))
    }
}

/// The certificates in a file's bytes: at least one.
///
/// # Errors
/// [`TlsError::NotPem`].
pub fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(TlsError::NotPem { path: path.to_owned(), wanted: "certificate" }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_BYTES {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(unreadable)
}

fn no_pair(files: &config::Tls, source: rustls::Error) -> TlsError {
    TlsError::NoPair { cert: files.cert.clone(), key: files.key.clone(), source }
}
