//! Web pages of other origins: what browsers are told, and their questions beforehand.
//!
//! Nothing is kept from anybody here: a browser keeps an answer from its page unless it is told that the page may have it.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, Method};

/// Which pages may use a route, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// The origins as browsers send them, or `*` alone for all.
    pub origins: Vec<String>,
    /// The methods that they may use; `None` is those of the route.
    pub methods: Option<Vec<Method>>,
    /// The headers that they may send, or `*` alone for all.
    pub headers: Vec<String>,
    /// The headers of answers that they may read.
    pub expose: Vec<String>,
    /// Whether browsers send cookies and passwords along.
    pub credentials: bool,
    /// How long a browser may remember what it was told.
    pub max_age: Duration,
}

impl Cors {
    fn any_origin(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// What the page of a request is told of its origin, if it may have the answer.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        if self.any_origin() {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.get(ORIGIN)?;
        self.origins.iter().any(|one| one.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// The headers that go with every answer to this request.
    pub(crate) fn told(&self, request: &HeaderMap) -> Told {
        Told {
            origin: self.allowed(request),
            varies: !self.any_origin(),
            credentials: self.credentials,
            expose: list(&self.expose),
        }
    }

    /// The headers of the answer to a browser that asks whether its page may send a request of that method. One that may not
    /// is told nothing.
    pub(crate) fn preflight(&self, request: &HeaderMap, method: &Method) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(
            VARY,
            HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"),
        );
        let Some(origin) = self.allowed(request) else { return headers };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let methods = match &self.methods {
            Some(methods) => list(methods.iter().map(Method::as_str)),
            None => HeaderValue::from_str(method.as_str()).ok(),
        };
        // To a request with credentials, `*` is no more than a name; so all headers are told one by one, as they were asked for.
        let names = match self.headers.iter().any(|name| name == "*") {
            true => request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
            false => list(&self.headers),
        };
        let age = Some(HeaderValue::from(self.max_age.as_secs()));
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, names),
            (ACCESS_CONTROL_MAX_AGE, age),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// What a browser is told beside an answer.
pub(crate) struct Told {
    origin: Option<HeaderValue>,
    varies: bool,
    credentials: bool,
    expose: Option<HeaderValue>,
}

impl Told {
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        // What the code behind the route says of origins does not count.
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        let Some(origin) = self.origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}

/// The method that a browser asks for on behalf of a page, if it is such a question.
pub(crate) fn asked(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

fn list(words: impl IntoIterator<Item = impl AsRef<str>>) -> Option<HeaderValue> {
    let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    HeaderValue::from_str(&words.join(", ")).ok().filter(|_| !words.is_empty())
}
