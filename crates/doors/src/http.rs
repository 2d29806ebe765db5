//! The service's own routes: a request becomes a ticket, and the answer a response.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evener_core::{Answer, Code, FallbackOn, Problem, Reply, RequestId};
use evener_protocol::{Content, Value};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::body::{AnswerBody, BodyLimits, Kept, collect};
use crate::cors;
use crate::gzip;
use crate::head;
use crate::listener::{BoundListener, Bounds, Link, Listening, Timeouts, serve};
use crate::node::{Answered, Arrival, Node, Parcel, Ticket};
use crate::origin::Origin;
use crate::problem::{self, ProblemView};
use crate::route::{Refused, Route, RouteError, RouteTarget, Routes};
use crate::spoken::PUBLIC;
use crate::stream::Chunks;
use crate::streamed::{Form, Streamed, accepts_events};

/// Every answer carries the request's id in this header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("evener-request-id");
/// An answer that is the route's fallback says so in this header; its value is the code of the problem.
pub const FALLBACK: HeaderName = HeaderName::from_static("evener-fallback");

/// Routes that a door may serve by.
pub struct Table {
    routes: Arc<Routes>,
    unused: mpsc::Receiver<()>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

impl Table {
    /// Fails where two routes cannot stand side by side.
    pub fn new(routes: Vec<Route>) -> Result<Table, RouteError> {
        let (routes, unused) = Routes::new(routes)?;
        Ok(Table { routes: Arc::new(routes), unused })
    }
}

/// The door to the service's own routes.
pub struct HttpDoor<N> {
    node: Arc<N>,
    routes: RwLock<Table>,
    body_pause: Duration,
    headers: usize,
}

impl<N: Node> HttpDoor<N> {
    /// A door with those routes. At most `body_pause` may pass
    /// between two pieces of a body, and a request's target and headers have at most `headers` bytes.
    pub fn new(
        node: Arc<N>,
        routes: Vec<Route>,
        body_pause: Duration,
        headers: usize,
    ) -> Result<HttpDoor<N>, RouteError> {
        let routes = RwLock::new(Table::new(routes)?);
        Ok(HttpDoor { node, routes, body_pause, headers })
    }

    /// From now on requests go by those routes; those that have begun go on by the old ones. What is returned ends once none is left of
    /// them, not even one whose body is still coming.
    pub fn replace_routes(&self, table: Table) -> impl Future<Output = ()> + Send + use<N> {
        let mut here = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let Table { routes, mut unused } = std::mem::replace(&mut *here, table);
        drop(here);
        drop(routes);
        async move { _ = unused.recv().await }
    }

    fn routes(&self) -> Arc<Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).routes.clone()
    }

    /// Serves a listener, with at most `most` connections at a time.
    pub fn serve(self: Arc<Self>, listener: BoundListener, timeouts: Timeouts, most: usize) -> Listening {
        let bounds =
            Bounds { timeouts, headers: self.headers, connections: most, strangers_leave: false, http2: PUBLIC };
        let (node, headers) = (self.node.clone(), self.headers);
        let unparsed = move |status| problem::unparsed(&*node, status, headers);
        serve(listener, bounds, unparsed, move |link| Connected { door: self.clone(), link })
    }

    async fn answer(&self, request: Request<Incoming>, link: &Link) -> Response<AnswerBody> {
        let busy = link.busy();
        let id = self.node.new_id();
        let (kept, full) = match Kept::begin(busy, self.node.budget()) {
            Ok(kept) => (kept, None),
            Err((kept, full)) => (kept, Some(full)),
        };
        let (head, body) = request.into_parts();
        let events = accepts_events(&head.headers);
        let routes = self.routes();
        let form = head::check_form(&head);
        if let (Ok(()), Some(headers)) = (&form, preflight(&routes, &head)) {
            return self.value(id, StatusCode::NO_CONTENT, headers, Parcel::default(), kept);
        }
        let size = form.and_then(|()| head::check_size(&head, self.headers)).map_err(Refused::from);
        let found = size.and_then(|size| routes.find(&head).map(|(route, params)| (route, params, size)));
        let of_route = found.as_ref().ok().map(|(route, ..)| *route);
        let told = of_route.and_then(|route| route.cors.as_ref()).map(|cors| cors.told(&head.headers));
        let gzip = of_route.filter(|route| route.compression).map(|_| gzip::is_accepted(&head.headers));
        let arrival = match found {
            Ok((route, params, size)) => {
                let origin = Origin::new(head, params, link.client.clone());
                self.admit(route, origin, body, size, id, full).await.map(|arrival| (arrival, route.fallback.as_ref()))
            }
            Err(refused) => Err(refused),
        };
        let mut response = match arrival {
            Ok((Arrival::Answer(Answer::Ended), _)) if events => {
                // A stream without chunks. A browser wants to be told that it is one.
                let headers = Form::Events.media_type().map(|events| (CONTENT_TYPE, events));
                self.value(id, StatusCode::OK, headers.into_iter().collect(), Parcel::default(), kept)
            }
            Ok((Arrival::Answer(answered), fallback)) => self.render(id, answered, fallback, kept),
            Ok((Arrival::Stream { first, chunks }, _)) => self.stream(id, &first, chunks, events, kept),
            Err(Refused { problem, allow }) => {
                let answered = self.node.refused(id, problem, FallbackOn::default());
                let mut response = self.render(id, answered, None, kept);
                if let Some(methods) = allow {
                    response.headers_mut().insert(ALLOW, methods);
                }
                response
            }
        };
        if let Some(told) = told {
            told.add_to(response.headers_mut());
        }
        match gzip {
            Some(accepted) => gzip::compress(response, accepted, self.node.budget()),
            None => response,
        }
    }

    /// Takes the body in, and waits for the node's answer.
    async fn admit(
        &self,
        route: &Route,
        origin: Origin,
        body: Incoming,
        size: usize,
        id: RequestId,
        full: Option<Problem>,
    ) -> Result<Arrival, Refused> {
        let began = Instant::now();
        let path = match route.target {
            RouteTarget::Path(path) => path,
            RouteTarget::Health => return Ok(Arrival::Answer(self.health())),
        };
        if let Some(problem) = full {
            return Ok(Arrival::Answer(self.node.refused(id, problem, route.fallback_on)));
        }
        let limits = BodyLimits { size: route.body, pause: self.body_pause };
        let (content, as_request) = (self.content(route, origin.head()), route.wants_request(&origin.head().method));
        head::check_origin(&origin, size)?;
        let collected = tokio::time::timeout(route.timeout, collect(body, limits, self.node.budget())).await;
        let collected = collected.unwrap_or_else(|_| {
            let detail = format!("the body was not whole within the route's timeout of {:?}", route.timeout);
            Err(Problem::new(Code::BodyTimeout, detail))
        });
        let body = match collected {
            Ok(body) => body,
            Err(problem) => {
                let answered = self.node.refused(id, problem, route.fallback_on);
                return Ok(Arrival::Answer(answered));
            }
        };
        let value = match as_request {
            true => Value { content: Content::Bytes, bytes: body.bytes },
            false => Value { content, bytes: body.bytes },
        };
        let flow = match &route.fairness {
            // One that takes longer than the request may is no reason to wait: core answers that it is late.
            Some(fairness) => {
                let left = route.timeout.saturating_sub(began.elapsed());
                tokio::time::timeout(left, (fairness.0)(&origin).number()).await.unwrap_or(0)
            }
            None => 0,
        };
        let ticket = Ticket {
            id,
            path,
            parcel: Parcel { value, held: body.held.map(Arc::new) },
            timeout: route.timeout.saturating_sub(began.elapsed()),
            fallback_on: route.fallback_on,
            priority: route.priority,
            flow,
            as_request,
            streams: true,
            on_error: route.on_error,
            origin: Some(origin),
        };
        Ok(self.node.submit(ticket).await)
    }

    /// Whether the node is ready, as a load balancer asks it.
    fn health(&self) -> Answered {
        let health = self.node.health();
        let bytes = serde_json::json!({"status": health.word()}).to_string().into();
        let body = Parcel { value: Value { content: Content::Json, bytes }, held: None };
        let headers = vec![(CACHE_CONTROL.as_str().to_owned(), "no-store".to_owned())];
        Answer::Reply(Reply { status: if health.ready { 200 } else { 503 }, headers, body })
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
            // A stream without chunks.
            Answer::Ended => self.value(id, StatusCode::OK, HeaderMap::new(), Parcel::default(), kept),
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

    fn stream(&self, id: RequestId, first: &Content, chunks: Chunks, events: bool, kept: Kept) -> Response<AnswerBody> {
        let form = Form::of(first, events);
        let node = self.node.clone();
        let write = move |problem: &Problem| {
            let stage = problem.stage.map(|stage| node.stage_name(stage));
            ProblemView::new(problem, id, stage.as_deref(), node.debug()).to_json()
        };
        let mut response = Response::new(AnswerBody::chunks(Streamed::new(chunks, form, Box::new(write)), kept));
        let headers = response.headers_mut();
        if let Some(value) = form.media_type().or_else(|| content_type(first)) {
            headers.insert(CONTENT_TYPE, value);
        }
        if form == Form::Events {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        headers.insert(REQUEST_ID, id_header(id));
        response
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
        match head::of_reply(&reply) {
            Ok((status, headers)) => self.value(id, status, headers, reply.body, kept),
            Err(detail) => self.problem(id, &Problem::new(Code::ResultNotEncodable, detail), kept),
        }
    }

    fn problem(&self, id: RequestId, problem: &Problem, kept: Kept) -> Response<AnswerBody> {
        let stage = problem.stage.map(|stage| self.node.stage_name(stage));
        let view = ProblemView::new(problem, id, stage.as_deref(), self.node.debug());
        // A node that is full holds no more for a client that may never take it; one answer at a time fits into a connection's buffer.
        let bare = problem.code == Code::MemoryFull && kept.is_side_by_side();
        let body = if bare { Bytes::new() } else { view.to_json() };
        let mut response = Response::new(AnswerBody::new(body, kept));
        *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if !bare {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        headers.insert(REQUEST_ID, id_header(id));
        if let Some(wait) = problem.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
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

/// The headers of the answer to a browser that asks what a page of another origin may do.
fn preflight(routes: &Routes, head: &Parts) -> Option<HeaderMap> {
    let method = cors::asked(head)?;
    let cors = routes.cors(head.uri.path(), &method)?;
    Some(cors.preflight(&head.headers, &method))
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

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (door, link) = (self.door.clone(), self.link.clone());
        let multiplexed = request.version() == Version::HTTP_2;
        if multiplexed {
            link.connection.set_multiplexed();
            head::as_in_http1(&mut request);
        }
        Box::pin(async move {
            let mut response = door.answer(request, &link).await;
            if link.is_draining() && !multiplexed {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}
