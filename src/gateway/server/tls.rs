//! TLS from two PEM files, by rustls with ring; read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::gateway::watched::{self, Watched};

/// Why TLS can't be spoken.
#[derive(Debug, thiserror::Error)]
#[error("could not set up TLS: {0}")]
pub struct TlsError(String);

/// The settings in force.
pub(in crate::gateway) type Tls = Watched<ServerConfig>;

/// TLS with this certificate chain and key.
///
/// # Errors
/// A file can't be read or used, or the two don't belong together.
pub(in crate::gateway) fn watch(certificate: PathBuf, key: PathBuf) -> Result<Tls, TlsError> {
    let paths = vec![certificate.clone(), key.clone()];
    Watched::open(paths, move || load(&certificate, &key)).map_err(TlsError)
}

fn load(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let of = |path: &Path, fault: &dyn std::fmt::Display| format!("{}: {fault}", path.display());
    let pem = watched::read(certificate).map_err(|fault| of(certificate, &fault))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|fault| of(certificate, &fault))?;
    if chain.is_empty() {
        return Err(of(certificate, &"it holds no certificate"));
    }
    let pem = watched::read(key).map_err(|fault| of(key, &fault))?;
    let private = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| of(key, &"it holds no private key in PEM"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|fault| fault.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|fault| format!("{} and {}: {fault}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A phone that comes back resumes without this process keeping anything for it.
    config.ticketer = ring::Ticketer::new().map_err(|fault| fault.to_string())?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testdata(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/gateway/testdata")
            .join(name)
    }

    #[test]
    fn files_that_do_not_fit_are_told() {
        let certificate = testdata("tls-certificate.pem");
        assert!(watch(certificate.clone(), testdata("tls-key.pem")).is_ok());
        for (certificate, key, expected) in [
            (
                certificate.clone(),
                testdata("token-rsa.pem"),
                "token-rsa.pem: ",
            ),
            (
                certificate.clone(),
                testdata("absent.pem"),
                "absent.pem: No such file",
            ),
            (
                certificate.clone(),
                certificate.clone(),
                "it holds no private key",
            ),
            (
                testdata("tls-key.pem"),
                testdata("tls-key.pem"),
                "it holds no certificate",
            ),
        ] {
            let told = watch(certificate, key).err().unwrap().to_string();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_new_certificate_is_taken_up_once_its_key_is_there_too() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let place = |name: &str, at: &Path| {
            let next = folder.path().join("next");
            std::fs::copy(testdata(name), &next).unwrap();
            std::fs::rename(&next, at).unwrap();
        };
        place("tls-certificate.pem", &certificate);
        place("tls-key.pem", &key);
        let tls = watch(certificate.clone(), key.clone()).ok().unwrap();
        let tls = tls.looking_every(std::time::Duration::ZERO);
        let first = tls.current();
        assert!(Arc::ptr_eq(&first, &tls.current()), "nothing has changed");
        place("token-ec.pem", &key);
        assert!(Arc::ptr_eq(&first, &tls.current()), "the key of another");
        place("tls-key.pem", &key);
        assert!(!Arc::ptr_eq(&first, &tls.current()));
    }
}
