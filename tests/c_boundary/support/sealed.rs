//! A client of TLS that asks once, and tells what it saw of the server: its certificate, an alert,
//! whether the session was resumed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind,
    NamedGroup, ProtocolVersion, SignatureScheme, SupportedProtocolVersion,
};

use super::{Authority, deadline};

/// Settings of a client. Sessions are resumed among the talks of one, whatever name they ask for.
#[derive(Clone)]
pub struct Sealed(pub Arc<ClientConfig>);

/// What a client saw.
#[derive(Debug)]
pub struct Talk {
    /// What came, decrypted.
    pub text: String,
    pub alert: Option<AlertDescription>,
    /// The server's first certificate, in DER.
    pub leaf: Vec<u8>,
    pub version: Option<ProtocolVersion>,
    pub is_resumed: bool,
}

/// Any certificate will do: a test looks at it by itself.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Sessions of all servers under one name: what they were begun for is forgotten.
#[derive(Debug)]
struct Sessions(ClientSessionMemoryCache);

fn anybody() -> ServerName<'static> {
    ServerName::try_from("anybody").expect("a name")
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anybody(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anybody())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anybody(), session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anybody())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anybody());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anybody(), ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anybody())
    }
}

impl Sealed {
    /// A client of these versions that shows a chain of certificates, if `identity` names a file of
    /// the authority with a key; `more` is put behind the chain.
    pub fn with(
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&str>,
        more: &[CertificateDer<'static>],
    ) -> Sealed {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let text = Authority::get().read(&format!("{name}.pem"));
                let chain = CertificateDer::pem_slice_iter(text.as_bytes());
                let mut chain: Vec<_> = chain.collect::<Result<_, _>>().expect("a chain");
                chain.extend_from_slice(more);
                let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        let sessions = Sessions(ClientSessionMemoryCache::new(32));
        config.resumption = Resumption::store(Arc::new(sessions));
        Sealed(Arc::new(config))
    }

    pub fn new(identity: Option<&str>) -> Sealed {
        Sealed::with(rustls::ALL_VERSIONS, identity, &[])
    }

    /// Sends `request`, under which the server closes, and reads to the end. `name` is the name
    /// that is asked for.
    pub fn ask(&self, port: u16, name: &str, request: &str) -> Talk {
        let server = ServerName::try_from(name.to_owned()).expect("a name");
        let mut session = ClientConnection::new(self.0.clone(), server).expect("a session");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server");
        stream.set_read_timeout(Some(deadline())).expect("a deadline");
        session.writer().write_all(request.as_bytes()).expect("room");
        let (mut text, mut alert) = (Vec::new(), None);
        loop {
            // The server may have gone already; what it said is still to be read.
            while session.wants_write() && session.write_tls(&mut stream).is_ok() {}
            match session.read_tls(&mut stream) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("waited in vain: {error}"),
            }
            match session.process_new_packets() {
                Ok(_) => {}
                Err(Error::AlertReceived(description)) => {
                    alert = Some(description);
                    break;
                }
                Err(error) => panic!("the server sends nonsense: {error}"),
            }
            let _ = session.reader().read_to_end(&mut text);
        }
        let chain = session.peer_certificates().unwrap_or_default();
        Talk {
            text: String::from_utf8_lossy(&text).into_owned(),
            alert,
            leaf: chain.first().map_or(Vec::new(), |leaf| leaf.to_vec()),
            version: session.protocol_version(),
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// The first certificate in a file of the authority, in DER.
pub fn leaf(name: &str) -> Vec<u8> {
    let text = Authority::get().read(&format!("{name}.pem"));
    CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate").to_vec()
}
