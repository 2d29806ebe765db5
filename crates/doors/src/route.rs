//! The table of routes: which of them takes a request.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evener_core::{Code, FallbackOn, Path, Problem};
use evener_protocol::Content;
use http::request::Parts;
use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;

use crate::cors::Cors;
use crate::origin::Origin;

/// What the first stage behind a route gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The request for GET, HEAD and DELETE; the body for all other methods.
    #[default]
    Auto,
    /// The body.
    Body,
    /// The request.
    Request,
}

/// Where the requests of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// Through stages.
    Path(Path),
    /// Nowhere: the node itself says whether it is ready.
    Health,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its path, with `{parameters}`.
    pub path: String,
    /// The methods that it takes; `None` takes any.
    pub methods: Option<Vec<Method>>,
    /// Where its requests go.
    pub target: RouteTarget,
    /// How long its clients wait.
    pub timeout: Duration,
    /// What is answered in place of a problem: JSON.
    pub fallback: Option<Bytes>,
    /// Which problems that stands in for.
    pub fallback_on: FallbackOn,
    /// What the first stage gets.
    pub input: Input,
    /// What the body is taken for, whatever its content type says.
    pub decode: Option<Content>,
    /// The most bytes of a body.
    pub body: u64,
    /// Who goes first where requests wait: the higher.
    pub priority: i8,
    /// What its requests count by where they wait; `None` is by nothing.
    pub fairness: Option<Fairness>,
    /// The way that its requests take instead of failing.
    pub on_error: Option<Path>,
    /// Which web pages of other origins may use it; `None` is none.
    pub cors: Option<Cors>,
    /// Whether answers are compressed for clients that take gzip.
    pub compression: bool,
}

/// Says which flow a request is of, that is, whose: flows take turns where they wait. 0 is that of all requests of which it cannot be
/// said.
#[derive(Clone)]
pub struct Fairness(pub Arc<dyn Fn(&Origin) -> Flow + Send + Sync>);

/// The number of a flow, or when it will be known.
pub enum Flow {
    /// It is known.
    Known(u16),
    /// Finding it out takes a while.
    Later(Pin<Box<dyn Future<Output = u16> + Send>>),
}

impl Flow {
    /// The number, once it is known.
    pub async fn number(self) -> u16 {
        match self {
            Flow::Known(number) => number,
            Flow::Later(number) => number.await,
        }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flow::Known(number) => f.debug_tuple("Known").field(number).finish(),
            Flow::Later(_) => f.write_str("Later"),
        }
    }
}

impl fmt::Debug for Fairness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fairness")
    }
}

impl Route {
    pub(crate) fn wants_request(&self, method: &Method) -> bool {
        match self.input {
            Input::Request => true,
            Input::Body => false,
            Input::Auto => matches!(*method, Method::GET | Method::HEAD | Method::DELETE),
        }
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }
}

/// Two routes that cannot stand side by side.
#[derive(Debug, thiserror::Error)]
#[error("the route `{path}` cannot be added: {source}")]
pub struct RouteError {
    path: String,
    source: matchit::InsertError,
}

/// A path in the one form in which equal paths are equal texts (RFC 3986, 6.2.2): what need not be percent-encoded is not, and
/// hexadecimal digits are in upper case. Reserved characters stay as they are, encoded or not: these mean different things.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        normal.push_str(before);
        let digits = encoded.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let taken = match (byte, digits) {
            (Some(byte), _) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                normal.push(char::from(byte));
                3
            }
            (_, Some(digits)) => {
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
                3
            }
            // No encoding at all: it stands for itself.
            (_, None) => {
                normal.push('%');
                1
            }
        };
        rest = &encoded[taken..];
    }
    normal.push_str(rest);
    normal.into()
}

/// The parameters of a path, decoded.
pub(crate) type Params = Vec<(String, String)>;

/// A request that does not reach the node.
pub(crate) struct Refused {
    pub(crate) problem: Problem,
    pub(crate) allow: Option<HeaderValue>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused { problem, allow: None }
    }
}

/// All routes. Those of one path share it, each with its own methods.
pub(crate) struct Routes {
    router: matchit::Router<Vec<Route>>,
    /// Its other end is told when nobody uses these routes any more.
    _in_use: mpsc::Sender<()>,
}

impl Routes {
    pub(crate) fn new(routes: Vec<Route>) -> Result<(Routes, mpsc::Receiver<()>), RouteError> {
        let mut by_path: Vec<(String, Vec<Route>)> = Vec::new();
        for route in routes {
            let path = normal_path(&route.path).into_owned();
            match by_path.iter_mut().find(|(other, _)| *other == path) {
                Some((_, same)) => same.push(route),
                None => by_path.push((path, vec![route])),
            }
        }
        let mut router = matchit::Router::new();
        for (path, routes) in by_path {
            router.insert(path.clone(), routes).map_err(|source| RouteError { path, source })?;
        }
        let (in_use, unused) = mpsc::channel(1);
        Ok((Routes { router, _in_use: in_use }, unused))
    }

    /// What a page of another origin may do with a method on a path, if the route for that says anything of it.
    pub(crate) fn cors(&self, path: &str, method: &Method) -> Option<&Cors> {
        of_method(self.router.at(&normal_path(path)).ok()?.value, method)?.cors.as_ref()
    }

    /// The route that takes a request, and the parameters of its path.
    pub(crate) fn find(&self, head: &Parts) -> Result<(&Route, Params), Refused> {
        let path = head.uri.path();
        let normal = normal_path(path);
        let Ok(found) = self.router.at(&normal) else {
            return Err(Problem::new(Code::NoRoute, format!("no route has the path {path}")).into());
        };
        let Some(route) = of_method(found.value, &head.method) else {
            let mut methods: Vec<&str> =
                found.value.iter().filter_map(|route| route.methods.as_ref()).flatten().map(Method::as_str).collect();
            if methods.contains(&"GET") {
                methods.push("HEAD");
            }
            let mut named = std::collections::HashSet::new();
            methods.retain(|method| named.insert(*method));
            let methods = methods.join(", ");
            let detail = format!("{path} takes {methods}, not {}", head.method);
            let allow = HeaderValue::from_str(&methods).ok();
            return Err(Refused { problem: Problem::new(Code::MethodNotAllowed, detail), allow });
        };
        let params = found.params.iter().map(|(name, value)| match percent_decode_str(value).decode_utf8() {
            Ok(value) => Ok((name.to_owned(), value.into_owned())),
            Err(_) => Err(Problem::new(Code::BadRequest, format!("the path's `{name}` is not UTF-8 once decoded"))),
        });
        let params = params.collect::<Result<_, _>>()?;
        if percent_decode_str(head.uri.query().unwrap_or("")).decode_utf8().is_err() {
            return Err(Problem::new(Code::BadRequest, "the query is not UTF-8 once decoded").into());
        }
        Ok((route, params))
    }
}

/// The route of one path that takes a method. One that takes GET takes HEAD as well: the same answer, without its body.
fn of_method<'a>(routes: &'a [Route], method: &Method) -> Option<&'a Route> {
    let by_name = routes.iter().find(|route| route.takes(method));
    by_name.or_else(|| routes.iter().find(|route| *method == Method::HEAD && route.takes(&Method::GET)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_paths_have_one_form() {
        for (path, normal) in [
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%7Euser/%41%2d%2E", "/~user/A-."),
            ("/a%2fb/%2b+", "/a%2Fb/%2B+"),
            ("/%2e%2e/x", "/../x"),
            ("/100%/%zz/%4", "/100%/%zz/%4"),
            ("/{id}/%7B", "/{id}/%7B"),
            ("/%25%37%45", "/%257E"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(normal_path(path), normal);
            assert_eq!(normal_path(normal), normal);
        }
    }
}
