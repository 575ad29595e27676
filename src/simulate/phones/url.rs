//! Where the gateway is.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// `ws://HOST[:PORT][/PATH]`, the gateway's address for phones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayUrl {
    url: Url,
    address: (String, u16),
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not of this shape.
    #[error("expected the gateway's address, such as ws://127.0.0.1:8080")]
    Shape,
    /// TLS.
    #[error(
        "wss is not supported here: give the address of the gateway itself, such as \
         ws://127.0.0.1:8080, on a network that you trust"
    )]
    Tls,
}

impl GatewayUrl {
    /// Where to connect.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.address.0, self.address.1)
    }

    /// What a phone asks for.
    pub(super) fn for_session(&self, session: &str) -> String {
        let base = self.url.as_str().trim_end_matches('/');
        format!("{base}/v1/drivers/connect?session={session}")
    }
}

impl FromStr for GatewayUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError::Shape)?;
        match url.scheme() {
            "ws" => {}
            "wss" => return Err(UrlError::Tls),
            _ => return Err(UrlError::Shape),
        }
        let has_more = url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.password().is_some();
        let (Some(host), Some(port), false) = (url.host(), url.port_or_known_default(), has_more)
        else {
            return Err(UrlError::Shape);
        };
        let host = match host {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        Ok(Self {
            address: (host, port),
            url,
        })
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, host, port, asked) in [
            (
                "ws://127.0.0.1:8080",
                "127.0.0.1",
                8080,
                "ws://127.0.0.1:8080/v1/drivers/connect?session=s-1",
            ),
            (
                "ws://gateway/",
                "gateway",
                80,
                "ws://gateway/v1/drivers/connect?session=s-1",
            ),
            (
                "ws://[::1]:9/behind/it/",
                "::1",
                9,
                "ws://[::1]:9/behind/it/v1/drivers/connect?session=s-1",
            ),
        ] {
            let url: GatewayUrl = text.parse().unwrap();
            assert_eq!(url.address(), (host, port));
            assert_eq!(url.for_session("s-1"), asked);
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "localhost:8080",
            "http://localhost:8080",
            "ws://",
            "ws://host/?token=x",
            "ws://host/#token=x",
            "ws://me:secret@host",
        ] {
            assert_eq!(text.parse::<GatewayUrl>(), Err(UrlError::Shape), "{text}");
        }
        assert_eq!("wss://host".parse::<GatewayUrl>(), Err(UrlError::Tls));
    }
}
