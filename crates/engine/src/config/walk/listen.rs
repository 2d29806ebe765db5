//! Where the node listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Walk;
use super::fields::Fields;
use super::values::Kind;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{LISTEN, LISTENER, TLS};
use crate::config::yaml::{Node, Plain, Scalar, Value, quote};
use crate::config::{Listen, Listener, Tls};

const ADDRESS: &str = "an address such as `127.0.0.1:8000`";

impl Listener {
    /// A listener without TLS. An address that cannot be one is an error, said in a sentence.
    pub fn new(address: &str) -> Result<Self, String> {
        split(address)?;
        Ok(Self { address: address.into(), tls: None, insecure: false })
    }

    /// The host, without the brackets of an IPv6 address, and the port.
    pub fn host_and_port(&self) -> (&str, u16) {
        split(&self.address).unwrap_or((&self.address, 0))
    }

    /// Whether only this machine can reach it. A name other than `localhost` is not looked up and
    /// counts as reachable.
    pub fn is_loopback(&self) -> bool {
        let (host, _) = self.host_and_port();
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => {
                let host = host.to_ascii_lowercase();
                host == "localhost" || host.ends_with(".localhost")
            }
        }
    }
}

/// Takes `host:port` apart.
fn split(address: &str) -> Result<(&str, u16), String> {
    let shown = quote(address);
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("{shown} is not an address: write `host:port`, such as `127.0.0.1:8000`"));
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port.parse::<u16>() {
        Ok(port) if digits => port,
        _ => return Err(format!("the port of {shown} is not a number from 0 to 65535")),
    };
    if host.is_empty() || host == "*" {
        return Err(format!("{shown} has no host: write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all interfaces"));
    }
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match inside.parse::<Ipv6Addr>() {
            Ok(_) => Ok((inside, port)),
            Err(_) => Err(format!("the host of {shown} is not an IPv6 address")),
        };
    }
    if host.parse::<Ipv4Addr>().is_ok() || is_hostname(host) {
        return Ok((host, port));
    }
    if host.contains(':') {
        return Err(format!("put the IPv6 address of {shown} into brackets, such as `[::1]:{port}`"));
    }
    Err(format!("the host of {shown} is neither an IP address nor a host name"))
}

/// Labels of letters, digits and dashes; the last is no number, or it would be a broken IPv4 address.
fn is_hostname(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl Walk<'_> {
    pub(super) fn listen(&mut self, node: &Node) -> Option<Listen> {
        let mut fields = Fields::open(node, node.span, &LISTEN, &[], self)?;
        let http = fields.read("http", self, |node, walk| walk.listener(node));
        let api = fields.read("api", self, |node, walk| {
            let listener = walk.listener(node)?;
            walk.check_api(node, &listener);
            Some(listener)
        });
        if let (Some(http), Some(api)) = (&http, &api)
            && http.address == api.address
            && http.host_and_port().1 != 0
        {
            let message = "`http` and `api` have the same address";
            let twice = Diagnostic::error("same-address", fields.span_of("api"), message);
            self.found.push(twice.also(fields.span_of("http"), "taken here"));
        }
        fields.finish();
        Some(Listen { http, api })
    }

    fn listener(&mut self, node: &Node) -> Option<Listener> {
        if !matches!(node.value, Value::Map(_)) {
            return self.address(node);
        }
        let mut fields = Fields::open(node, node.span, &LISTENER, &[], self)?;
        let plain = fields.require("address", self, |node, walk| walk.address(node));
        let tls = fields.read("tls", self, |node, walk| walk.tls(node));
        let insecure = fields.read("insecure", self, |node, walk| walk.boolean(node));
        fields.finish();
        Some(Listener { tls, insecure: insecure.unwrap_or(false), ..plain? })
    }

    fn address(&mut self, node: &Node) -> Option<Listener> {
        if let Some(Plain::Int(port @ 0..=65535)) = node.scalar().map(Scalar::resolve) {
            let message = format!("expected {ADDRESS}, found {}", node.describe());
            let wrong = Diagnostic::error("bad-address", node.span, message);
            self.found.push(wrong.hint(format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all interfaces")));
            return None;
        }
        match Listener::new(self.text(node, ADDRESS)?) {
            Ok(listener) => Some(listener),
            Err(message) => {
                self.found.push(Diagnostic::error("bad-address", node.span, message));
                None
            }
        }
    }

    fn tls(&mut self, node: &Node) -> Option<Tls> {
        let mut fields = Fields::open(node, node.span, &TLS, &[], self)?;
        let cert = fields.require("cert", self, |node, walk| walk.file(node));
        let key = fields.require("key", self, |node, walk| walk.file(node));
        fields.finish();
        Some(Tls { cert: cert?, key: key? })
    }

    fn file(&mut self, node: &Node) -> Option<std::path::PathBuf> {
        let path = self.path(node)?;
        self.must_exist(node, path, Kind::File)
    }

    /// The API is never served to others in plain text, unless the file says so.
    fn check_api(&mut self, node: &Node, listener: &Listener) {
        // A broken `tls` is reported on its own.
        let wants_tls = matches!(&node.value, Value::Map(e) if e.iter().any(|e| &*e.key == "tls"));
        if wants_tls || listener.insecure || listener.is_loopback() {
            return;
        }
        let span = match &node.value {
            Value::Map(entries) => entries.iter().find(|e| &*e.key == "address").map_or(node.span, |e| e.value.span),
            _ => node.span,
        };
        let message = "others could reach the API at this address, and it is not encrypted";
        let open = Diagnostic::error("insecure-api", span, message);
        self.found.push(open.hint(
            "bind it to 127.0.0.1, or write it as a mapping with `address` and either \
             `tls: {cert: …, key: …}` or, to accept the risk, `insecure: true`",
        ));
    }
}
