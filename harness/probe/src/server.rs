//! The address of a server and how to reach it: plain or TLS, path prefix, rate limit.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http::Uri;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::message::Fault;
use lockproof_model::error::{Error, Result};

/// A byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server.
pub struct Server {
    place: Place,
    /// The value of the `Host` header, and the authority of its URLs.
    authority: String,
    /// The path prefix of the server, without a trailing slash.
    prefix: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    pace: Option<Pace>,
}

enum Place {
    Address(SocketAddr),
    Name(String, u16),
}

/// How to verify a certificate.
#[derive(Clone, Debug, Default)]
pub struct Trust<'a> {
    /// A PEM file of certificates to trust, in addition to those of this machine.
    pub ca: Option<&'a Path>,
    /// Whether to skip certificate verification.
    pub insecure: bool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("base", &self.base()).finish_non_exhaustive()
    }
}

impl Server {
    /// A server without TLS at an address.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            place: Place::Address(address),
            authority: address.to_string(),
            prefix: String::new(),
            tls: None,
            pace: None,
        }
    }

    /// The server of a URL.
    ///
    /// # Errors
    /// A usage error for an invalid URL, or for certificates that cannot be read.
    pub fn named(url: &str, trust: &Trust<'_>) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("invalid server URL `{url}`: {why}"))
                .fix("write for example http://127.0.0.1:8188 or https://comfy.example/path")
        };
        let uri: Uri = url.parse().map_err(|_| wrong("it cannot be parsed"))?;
        let scheme = uri.scheme_str().ok_or_else(|| wrong("it does not start with http:// or https://"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(wrong("it contains a user name; use --token-env or --token-file for the token"));
        }
        if uri.query().is_some() {
            return Err(wrong("it contains a query; use --token-env or --token-file for the token"));
        }
        let (port, tls) = match scheme {
            "http" => (uri.port_u16().unwrap_or(80), None),
            "https" => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(bare.to_owned()).map_err(|_| wrong("invalid host name"))?;
                (uri.port_u16().unwrap_or(443), Some((connector(trust)?, name)))
            }
            _ => return Err(wrong("it does not start with http:// or https://")),
        };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            place: Place::Name(name, port),
            authority: uri.authority().map_or_else(|| host.to_owned(), ToString::to_string),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls,
            pace: None,
        })
    }

    /// Limits the number of requests per second.
    #[must_use]
    pub fn with_rate(mut self, rate: Option<u32>) -> Self {
        self.pace = rate.filter(|rate| *rate > 0).map(Pace::new);
        self
    }

    /// Its base URL, without a trailing slash.
    pub fn base(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.prefix)
    }

    /// The value of the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The address, if it was given as one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Address(address) => Some(address),
            Place::Name(..) => None,
        }
    }

    /// The target with the server's path prefix. An absolute form is not changed.
    pub fn target(&self, target: &str) -> String {
        if target.starts_with('/') { format!("{}{target}", self.prefix) } else { target.to_owned() }
    }

    /// Waits for this request's turn under the rate limit.
    pub async fn turn(&self) {
        if let Some(pace) = &self.pace {
            pace.wait().await;
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, Fault> {
        let refused = |e: std::io::Error| Fault::Refused(e.to_string());
        let stream = match &self.place {
            Place::Address(address) => TcpStream::connect(address).await,
            Place::Name(name, port) => TcpStream::connect((name.as_str(), *port)).await,
        }
        .map_err(refused)?;
        // Small requests must not wait for acknowledgements.
        stream.set_nodelay(true).map_err(refused)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => Ok(Box::new(
                connector.connect(name.clone(), stream).await.map_err(|e| Fault::Refused(format!("TLS: {e}")))?,
            )),
        }
    }
}

fn connector(trust: &Trust<'_>) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::environment("cannot set up TLS").detail(e))?;
    let config = if trust.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = trust.ca {
            let unreadable = |e: &dyn std::fmt::Display| {
                Error::usage(format!("no certificates found in {}", path.display()))
                    .at("--ca")
                    .detail(e)
                    .fix("use a file with PEM certificates")
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                let certificate = certificate.map_err(|e| unreadable(&e))?;
                roots.add(certificate).map_err(|e| unreadable(&e))?;
            }
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts any certificate (`--insecure`).
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Spaces requests.
struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { gap: Duration::from_secs(1) / rate, next: Mutex::new(Instant::now()) }
    }

    async fn wait(&self) {
        let turn = {
            let mut next = self.next.lock().await;
            let turn = (*next).max(Instant::now());
            *next = turn + self.gap;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_have_a_path_and_no_secrets() {
        let server = Server::named("http://comfy.example:8080/team/", &Trust::default()).expect("a URL");
        assert_eq!(server.base(), "http://comfy.example:8080/team");
        assert_eq!(server.target("/queue"), "/team/queue");
        for wrong in ["comfy.example", "ftp://x", "http://me:pw@x", "http://x/?token=a", "http://"] {
            assert!(Server::named(wrong, &Trust::default()).is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance() {
        let server = Server::at(([127, 0, 0, 1], 1).into()).with_rate(Some(10));
        let begun = Instant::now();
        for _ in 0..11 {
            server.turn().await;
        }
        assert_eq!(begun.elapsed().as_millis(), 1000);
    }
}
