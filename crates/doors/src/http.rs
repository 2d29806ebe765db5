//! The service's own routes: a request becomes a ticket, and the answer a response.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evener_core::{Answer, Code, FallbackOn, Path, Problem, Reply, RequestId};
use evener_protocol::frame::PART;
use evener_protocol::{Content, Value};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::body::{AnswerBody, BodyLimits, Kept, collect};
use crate::listener::{BoundListener, Bounds, Link, Listening, Timeouts, serve};
use crate::node::{Answered, Node, Parcel, Ticket};
use crate::origin::Origin;
use crate::problem::{self, ProblemView};

/// Every answer carries the request's id in this header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("evener-request-id");
/// An answer that is the route's fallback says so in this header; its value is the code of the problem.
pub const FALLBACK: HeaderName = HeaderName::from_static("evener-fallback");

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

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its path, with `{parameters}`.
    pub path: String,
    /// The methods that it takes; `None` takes any.
    pub methods: Option<Vec<Method>>,
    /// Where its requests go.
    pub target: Path,
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
}

/// Two routes that cannot stand side by side.
#[derive(Debug, thiserror::Error)]
#[error("the route `{path}` cannot be added: {source}")]
pub struct RouteError {
    path: String,
    source: matchit::InsertError,
}

/// The door to the service's own routes.
pub struct HttpDoor<N> {
    node: Arc<N>,
    routes: matchit::Router<Vec<Route>>,
    body_pause: Duration,
    headers: usize,
}

impl<N: Node> HttpDoor<N> {
    /// A door with those routes. Routes of the same path share it, each with its own methods. At most `body_pause` may pass
    /// between two pieces of a body, and a request's target and headers have at most `headers` bytes.
    pub fn new(
        node: Arc<N>,
        routes: Vec<Route>,
        body_pause: Duration,
        headers: usize,
    ) -> Result<HttpDoor<N>, RouteError> {
        let mut by_path: Vec<(String, Vec<Route>)> = Vec::new();
        for route in routes {
            match by_path.iter_mut().find(|(path, _)| *path == route.path) {
                Some((_, same)) => same.push(route),
                None => by_path.push((route.path.clone(), vec![route])),
            }
        }
        let mut router = matchit::Router::new();
        for (path, routes) in by_path {
            router.insert(path.clone(), routes).map_err(|source| RouteError { path, source })?;
        }
        Ok(HttpDoor { node, routes: router, body_pause, headers })
    }

    /// Serves a listener, with at most `most` connections at a time.
    pub fn serve(self: Arc<Self>, listener: BoundListener, timeouts: Timeouts, most: usize) -> Listening {
        let bounds = Bounds { timeouts, headers: self.headers, connections: most, http2: false };
        let (node, headers) = (self.node.clone(), self.headers);
        let unparsed = move |status| problem::unparsed(&*node, status, headers);
        serve(listener, bounds, unparsed, move |link| Connected { door: self.clone(), link })
    }

    async fn answer(&self, request: Request<Incoming>, link: &Link) -> Response<AnswerBody> {
        let busy = link.busy();
        let id = self.node.new_id();
        let kept = Kept { _busy: Some(busy) };
        match self.admit(request, link, id).await {
            Ok((answered, fallback)) => self.render(id, answered, fallback, kept),
            Err(Refused { problem, allow }) => {
                let answered = self.node.refused(id, problem, FallbackOn::default());
                let mut response = self.render(id, answered, None, kept);
                if let Some(methods) = allow {
                    response.headers_mut().insert(ALLOW, methods);
                }
                response
            }
        }
    }

    /// Finds the route, takes the body in, and waits for the node's answer.
    async fn admit<'a>(
        &'a self,
        request: Request<Incoming>,
        link: &Link,
        id: RequestId,
    ) -> Result<(Answered, Option<&'a Bytes>), Refused> {
        let (head, body) = request.into_parts();
        let began = Instant::now();
        let size = self.check_size(&head)?;
        let (route, params) = self.route(&head)?;
        let limits = BodyLimits { size: route.body, pause: self.body_pause };
        let (content, as_request) = (self.content(route, &head), self.as_request(route, &head.method));
        let origin = Origin::new(head, params, link.client.clone());
        check_origin(&origin, size)?;
        let collected = tokio::time::timeout(route.timeout, collect(body, limits, self.node.budget())).await;
        let collected = collected.unwrap_or_else(|_| {
            let detail = format!("the body was not whole within the route's timeout of {:?}", route.timeout);
            Err(Problem::new(Code::BodyTimeout, detail))
        });
        let body = match collected {
            Ok(body) => body,
            Err(problem) => {
                return Ok((self.node.refused(id, problem, route.fallback_on), route.fallback.as_ref()));
            }
        };
        let value = match as_request {
            true => Value { content: Content::Bytes, bytes: body.bytes },
            false => Value { content, bytes: body.bytes },
        };
        let ticket = Ticket {
            id,
            path: route.target,
            parcel: Parcel { value, held: body.held.map(Arc::new) },
            timeout: route.timeout.saturating_sub(began.elapsed()),
            fallback_on: route.fallback_on,
            as_request,
            origin,
        };
        Ok((self.node.submit(ticket).await, route.fallback.as_ref()))
    }

    /// The connection's buffer bounds a head roughly; this is the limit itself. Returns the size.
    fn check_size(&self, head: &Parts) -> Result<usize, Problem> {
        let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let size = target + headers.sum::<usize>();
        if size <= self.headers {
            return Ok(size);
        }
        let detail = format!("the path and the headers have {size} bytes, and {} is the most", self.headers);
        Err(Problem::new(Code::HeadersTooLarge, detail))
    }

    fn route(&self, head: &Parts) -> Result<(&Route, Params), Refused> {
        let path = head.uri.path();
        let Ok(found) = self.routes.at(path) else {
            return Err(Problem::new(Code::NoRoute, format!("no route has the path {path}")).into());
        };
        let takes = |route: &&Route| route.methods.as_ref().is_none_or(|methods| methods.contains(&head.method));
        // A route that takes GET takes HEAD as well: the same answer, without its body.
        let takes_head = |route: &&Route| {
            head.method == Method::HEAD && route.methods.as_ref().is_some_and(|methods| methods.contains(&Method::GET))
        };
        let routes = found.value;
        let Some(route) = routes.iter().find(takes).or_else(|| routes.iter().find(takes_head)) else {
            let mut methods: Vec<&str> =
                routes.iter().filter_map(|route| route.methods.as_ref()).flatten().map(Method::as_str).collect();
            methods.dedup();
            let methods = methods.join(", ");
            let detail = format!("{path} takes {methods}, not {}", head.method);
            let allow = HeaderValue::from_str(&methods).ok();
            return Err(Refused { problem: Problem::new(Code::MethodNotAllowed, detail), allow });
        };
        let params = found.params.iter().map(|(name, value)| match percent_decode_str(value).decode_utf8() {
            Ok(value) => Ok((name.to_owned(), value.into_owned())),
            Err(_) => Err(Problem::new(Code::BadRequest, format!("the path's `{name}` is not UTF-8 once decoded"))),
        });
        Ok((route, params.collect::<Result<_, _>>()?))
    }

    fn as_request(&self, route: &Route, method: &Method) -> bool {
        match route.input {
            Input::Request => true,
            Input::Body => false,
            Input::Auto => matches!(*method, Method::GET | Method::HEAD | Method::DELETE),
        }
    }

    fn content(&self, route: &Route, head: &Parts) -> Content {
        if let Some(content) = &route.decode {
            return content.clone();
        }
        Content::of_media_type(head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()))
    }

    fn render(&self, id: RequestId, answered: Answered, fallback: Option<&Bytes>, kept: Kept) -> Response<AnswerBody> {
        match answered {
            Answer::Value(parcel) => self.value(id, StatusCode::OK, HeaderMap::new(), parcel, kept),
            Answer::Reply(reply) => self.reply(id, reply, kept),
            // Only calls of functions that were sent here come to this, and those come by the API.
            Answer::Raised(problem, _) => self.problem(id, &problem, kept),
            Answer::Fallback(problem) => {
                let mut headers = HeaderMap::new();
                headers.insert(FALLBACK, HeaderValue::from_static(problem.code.name()));
                let bytes = fallback.cloned().unwrap_or_default();
                let parcel = Parcel { value: Value { content: Content::Json, bytes }, held: None };
                self.value(id, StatusCode::OK, headers, parcel, kept)
            }
            Answer::Problem(problem) => self.problem(id, &problem, kept),
        }
    }

    fn value(
        &self,
        id: RequestId,
        status: StatusCode,
        mut headers: HeaderMap,
        parcel: Parcel,
        kept: Kept,
    ) -> Response<AnswerBody> {
        if !headers.contains_key(CONTENT_TYPE)
            && let Some(value) = content_type(&parcel.value.content)
        {
            headers.insert(CONTENT_TYPE, value);
        }
        headers.insert(REQUEST_ID, id_header(id));
        let mut response = Response::new(AnswerBody::held(parcel.value.bytes, parcel.held, kept));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn reply(&self, id: RequestId, reply: Reply<Parcel>, kept: Kept) -> Response<AnswerBody> {
        match reply_head(&reply) {
            Ok((status, headers)) => self.value(id, status, headers, reply.body, kept),
            Err(detail) => self.problem(id, &Problem::new(Code::ResultNotEncodable, detail), kept),
        }
    }

    fn problem(&self, id: RequestId, problem: &Problem, kept: Kept) -> Response<AnswerBody> {
        let stage = problem.stage.map(|stage| self.node.stage_name(stage));
        let view = ProblemView::new(problem, id, stage, self.node.debug());
        let mut response = Response::new(AnswerBody::new(view.to_json(), kept));
        *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(REQUEST_ID, id_header(id));
        if let Some(wait) = problem.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

/// The parameters of a path, decoded.
type Params = Vec<(String, String)>;

/// A request that does not reach the node.
struct Refused {
    problem: Problem,
    allow: Option<HeaderValue>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused { problem, allow: None }
    }
}

/// A head is larger as workers get it, as JSON, and must fit into one frame. One that is small as it comes always does: nothing
/// grows more than fivefold.
fn check_origin(origin: &Origin, size: usize) -> Result<(), Problem> {
    const SMALL: usize = 32 * 1024;
    const MOST: usize = PART - 4096;
    if size <= SMALL {
        return Ok(());
    }
    let size = serde_json::to_vec(origin).map_or(usize::MAX, |json| json.len());
    if size <= MOST {
        return Ok(());
    }
    let detail = format!("the path and the headers have {size} bytes as a worker gets them, and {MOST} is the most");
    Err(Problem::new(Code::HeadersTooLarge, detail))
}

fn content_type(content: &Content) -> Option<HeaderValue> {
    match content {
        Content::Nothing => None,
        Content::Json => Some(HeaderValue::from_static("application/json")),
        Content::Text => Some(HeaderValue::from_static("text/plain; charset=utf-8")),
        Content::Bytes => Some(HeaderValue::from_static("application/octet-stream")),
        Content::Named(name) => HeaderValue::from_str(name).ok(),
    }
}

fn id_header(id: RequestId) -> HeaderValue {
    // An id is hexadecimal digits and dashes.
    HeaderValue::from_str(&id.to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// Headers that belong to one connection and not to the answer: the node sets them itself.
const OF_THE_CONNECTION: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

fn reply_head(reply: &Reply<Parcel>) -> Result<(StatusCode, HeaderMap), String> {
    let status = StatusCode::from_u16(reply.status).map_err(|_| format!("{} is no HTTP status", reply.status))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &reply.headers {
        let header = HeaderName::try_from(name).map_err(|_| format!("Response.headers: {name:?} is no header name"))?;
        let value = HeaderValue::try_from(value)
            .map_err(|_| format!("Response.headers[{name:?}]: the value cannot stand in a header"))?;
        if !OF_THE_CONNECTION.contains(&header.as_str()) {
            headers.append(header, value);
        }
    }
    Ok((status, headers))
}

/// The door, for one connection.
struct Connected<N> {
    door: Arc<HttpDoor<N>>,
    link: Link,
}

impl<N: Node> hyper::service::Service<Request<Incoming>> for Connected<N> {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (door, link) = (self.door.clone(), self.link.clone());
        Box::pin(async move {
            let mut response = door.answer(request, &link).await;
            if link.is_draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}
