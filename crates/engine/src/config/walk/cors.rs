//! Which web pages of other origins may use a route.

use http::HeaderName;

use super::Walk;
use super::fields::Fields;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::CORS;
use crate::config::yaml::{Node, Plain, Scalar, quote};
use crate::config::{Cors, defaults};

/// The most origins, and the most names of headers; a list is looked through for each request.
const MOST: usize = 256;

impl Walk<'_> {
    /// A mapping, or `false`. `None` was reported.
    pub(super) fn cors(&mut self, node: &Node) -> Option<Option<Cors>> {
        match node.scalar().map(Scalar::resolve) {
            Some(Plain::Bool(false)) => return Some(None),
            Some(Plain::Bool(true)) => {
                let message = "`cors: true` does not say which pages are meant";
                let wrong = Diagnostic::error("wrong-type", node.span, message);
                self.found.push(wrong.hint("write `cors: {origins: [\"https://example.org\"]}`, or `[\"*\"]` for all"));
                return None;
            }
            _ => {}
        }
        let mut fields = Fields::open(node, node.span, &CORS, &[], self)?;
        let origins = fields.require("origins", self, |node, walk| walk.origins(node));
        let methods = fields.read("methods", self, |node, walk| walk.methods(node));
        let headers = fields.read("headers", self, |node, walk| walk.header_names(node, true));
        let expose = fields.read("expose", self, |node, walk| walk.header_names(node, false));
        let credentials = fields.read("credentials", self, |node, walk| walk.boolean(node)).unwrap_or(false);
        let max_age = fields.read("max_age", self, |node, walk| walk.duration(node, true));
        if credentials && origins.as_ref().is_some_and(|origins| origins.iter().any(|origin| origin == "*")) {
            let message = "every page there is could use the routes in the name of whoever looks at it";
            let wrong = Diagnostic::error("cors-credentials", fields.span_of("credentials"), message);
            self.found.push(wrong.hint("list the origins that are trusted, or remove `credentials`"));
        }
        fields.finish();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Some(Some(Cors {
            origins: origins?,
            methods,
            headers: headers.unwrap_or_else(|| words(defaults::CORS_HEADERS)),
            expose: expose.unwrap_or_else(|| words(defaults::CORS_EXPOSE)),
            credentials,
            max_age: max_age.unwrap_or(defaults::CORS_MAX_AGE),
        }))
    }

    fn origins(&mut self, node: &Node) -> Option<Vec<String>> {
        let items = self.list(node, &["\"https://example.org\""])?;
        if !self.is_bounded(node, items.len()) {
            return None;
        }
        if items.is_empty() {
            let empty = Diagnostic::error("empty-list", node.span, "`cors` needs at least one origin");
            self.found.push(empty.hint("write `cors: false` where no page of another origin shall come"));
        }
        let mut origins: Vec<String> = Vec::new();
        for item in items {
            let Some(text) = self.text(item, "an origin such as `https://example.org`") else { continue };
            let fault = match text {
                "*" if items.len() > 1 => Some("`*` is every origin, and stands alone".to_owned()),
                "*" => None,
                _ => origin_fault(text),
            };
            match fault {
                Some(fault) => {
                    let message = format!("{} is not an origin as browsers send it", quote(text));
                    self.found.push(Diagnostic::error("bad-origin", item.span, message).hint(fault));
                }
                None => self.add_once(&mut origins, text, item),
            }
        }
        Some(origins)
    }

    /// A list of names of headers, or of all where that may be.
    fn header_names(&mut self, node: &Node, all: bool) -> Option<Vec<String>> {
        let items = self.list(node, &["Content-Type"])?;
        if !self.is_bounded(node, items.len()) {
            return None;
        }
        let mut names = Vec::new();
        for item in items {
            let Some(text) = self.text(item, "the name of a header such as `Content-Type`") else { continue };
            if all && text == "*" && items.len() == 1 || text != "*" && HeaderName::try_from(text).is_ok() {
                self.add_once(&mut names, text, item);
                continue;
            }
            let message = format!("{} is not the name of a header", quote(text));
            let wrong = Diagnostic::error("bad-header", item.span, message);
            self.found.push(match text {
                "*" if all => wrong.hint("`*` is every header, and stands alone"),
                "*" => wrong.hint("list the headers that pages may read"),
                _ => wrong.hint("names of headers are words such as `Content-Type`"),
            });
        }
        Some(names)
    }

    fn is_bounded(&mut self, node: &Node, count: usize) -> bool {
        if count > MOST {
            let message = format!("this list has at most {MOST} items");
            self.found.push(Diagnostic::error("out-of-range", node.span, message));
        }
        count <= MOST
    }

    fn add_once(&mut self, all: &mut Vec<String>, text: &str, item: &Node) {
        if all.iter().any(|other| other.eq_ignore_ascii_case(text)) {
            let message = format!("{} is given twice", quote(text));
            self.found.push(Diagnostic::error("duplicate-item", item.span, message));
        } else {
            all.push(text.into());
        }
    }
}

/// What to say about a text that no browser sends as an origin.
fn origin_fault(text: &str) -> Option<String> {
    let whole = || "an origin is written as `https://example.org` or `http://localhost:3000`".to_owned();
    if text == "null" {
        return Some("a page of any origin can be made to say `null`, so it cannot be trusted".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some(format!("write {}", quote(&format!("https://{text}"))));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if text.contains('*') {
        return Some("each origin is written out; only `*` alone stands for all".into());
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | ':' | '[' | ']');
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if scheme.is_empty() || host.is_empty() || !port_is_good || !format!("{scheme}{host}").chars().all(good) {
        return Some(whole());
    }
    let usual = matches!((scheme, port), ("http", Some("80")) | ("https", Some("443")));
    let authority = if usual { host } else { authority };
    let meant = format!("{scheme}://{authority}").to_ascii_lowercase();
    let is_so = path.is_empty() && meant == text;
    (!is_so).then(|| format!("browsers send {}", quote(&meant)))
}
