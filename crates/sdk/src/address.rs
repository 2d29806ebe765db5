//! Where a node listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

use crate::error::Error;

/// The address of a node's API: `unix:/path/to/socket`, `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, in the clear.
    Http(Authority),
    /// A TCP port, with TLS.
    Https(Authority),
}

impl Address {
    /// The origin that requests name, as HTTP wants one even where there is no host.
    pub(crate) fn origin(&self) -> http::Uri {
        let (scheme, authority) = match self {
            Self::Unix(_) => ("http", Authority::from_static("localhost")),
            Self::Http(authority) => ("http", authority.clone()),
            Self::Https(authority) => ("https", authority.clone()),
        };
        let uri = http::Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
        uri.expect("a scheme, an authority and a path make a URI")
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = |why: &str| {
            Error::Connect(format!(
                "`{text}` is not the address of a node: {why}; addresses look like unix:/run/user/1000/evener/api.sock, \
                 http://127.0.0.1:7070 or https://host:7070"
            ))
        };
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(malformed("it has no scheme"));
        };
        if scheme == "unix" {
            // `unix:///path` is the same with an empty host.
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(malformed("after `unix:` comes a path that begins with `/`")),
            };
        }
        if !matches!(scheme, "http" | "https") {
            return Err(malformed(&format!("`{scheme}` is not one of unix, http and https")));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(malformed(&format!("after `{scheme}:` comes `//`")));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(malformed("after the port comes nothing more"));
        }
        if rest.contains('@') {
            return Err(malformed("credentials do not belong into an address (the token is read from a file)"));
        }
        let authority = Authority::from_str(rest).map_err(|error| malformed(&error.to_string()))?;
        if authority.host().is_empty() {
            return Err(malformed("it names no host"));
        }
        if authority.port_u16().is_none() {
            return Err(malformed("it names no port"));
        }
        Ok(if scheme == "http" { Self::Http(authority) } else { Self::Https(authority) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_read_and_written() {
        for text in ["unix:/tmp/a b.sock", "http://127.0.0.1:7070", "https://[::1]:443", "http://node.example:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/x".parse::<Address>().unwrap().to_string(), "unix:/run/x");
        assert_eq!("http://localhost:7070/".parse::<Address>().unwrap().to_string(), "http://localhost:7070");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        let cases = [
            ("", "no scheme"),
            ("localhost", "no scheme"),
            ("localhost:7070", "`localhost` is not one of"),
            ("unix:relative", "begins with `/`"),
            ("tcp://127.0.0.1:1", "`tcp` is not one of"),
            ("http:127.0.0.1:1", "comes `//`"),
            ("http://127.0.0.1", "no port"),
            ("http://:7070", "no host"),
            ("http://127.0.0.1:99999", "no port"),
            ("http://127.0.0.1:7070/v1", "nothing more"),
            ("http://user:secret@127.0.0.1:7070", "credentials"),
            ("http://a b:1", "invalid"),
        ];
        for (text, part) in cases {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), "connect", "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_unix_socket_has_an_origin_too() {
        assert_eq!("unix:/x".parse::<Address>().unwrap().origin(), "http://localhost/");
        assert_eq!("https://h:1".parse::<Address>().unwrap().origin(), "https://h:1/");
    }
}
