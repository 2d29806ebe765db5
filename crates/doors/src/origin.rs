//! An HTTP request as workers see it.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeStruct, Serializer};

/// Where a request came from: all of it but its body.
#[derive(Debug)]
pub struct Origin {
    head: Box<Parts>,
    params: Vec<(String, String)>,
    client: Arc<str>,
}

impl Origin {
    /// The head of a request, what its path's parameters are, and the client's address.
    pub fn new(head: Parts, params: Vec<(String, String)>, client: Arc<str>) -> Origin {
        Origin { head: Box::new(head), params, client }
    }

    /// The request's method.
    pub fn method(&self) -> &str {
        self.head.method.as_str()
    }

    /// The first value of a parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut pairs = form_urlencoded::parse(self.head.uri.query()?.as_bytes());
        pairs.find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// The value of a parameter of the path.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a header, if it is plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The head of the request.
    pub(crate) fn head(&self) -> &Parts {
        &self.head
    }

    /// The value of the `traceparent` header, if it is there and plain text.
    pub fn traceparent(&self) -> Option<&str> {
        self.head.headers.get("traceparent")?.to_str().ok()
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut request = serializer.serialize_struct("Request", 6)?;
        request.serialize_field("method", self.head.method.as_str())?;
        request.serialize_field("path", self.head.uri.path())?;
        request.serialize_field("params", &Params(&self.params))?;
        request.serialize_field("query", &Query(self.head.uri.query().unwrap_or("")))?;
        request.serialize_field("headers", &Headers(&self.head.headers))?;
        request.serialize_field("client", &*self.client)?;
        request.end()
    }
}

struct Params<'a>(&'a [(String, String)]);

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

struct Query<'a>(&'a str);

impl Serialize for Query<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(form_urlencoded::parse(self.0.as_bytes()))
    }
}

struct Headers<'a>(&'a http::HeaderMap);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, value)| (name.as_str(), latin1(value.as_bytes()))))
    }
}

/// Header bytes as text: each byte the character of that number, as the HTTP specification once had it.
fn latin1(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => text.into(),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_workers_see_it() {
        let request = http::Request::get("/items/7?a=1&b=%C3%A9+x&a=2").header("x-name", "caf\u{e9}".as_bytes());
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let origin = Origin::new(head, vec![("id".into(), "7".into())], "127.0.0.1:9".into());
        let json = serde_json::to_value(&origin).expect("JSON");
        let expected = serde_json::json!({
            "method": "GET",
            "path": "/items/7",
            "params": {"id": "7"},
            "query": [["a", "1"], ["b", "é x"], ["a", "2"]],
            "headers": [["x-name", "caf\u{c3}\u{a9}"]],
            "client": "127.0.0.1:9",
        });
        assert_eq!(json, expected);
    }
}
