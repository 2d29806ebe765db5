//! The API: health, readiness and metrics over HTTP, and the calls of functions over gRPC.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evener_core::{Code, Problem};
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::body::{AnswerBody, Kept};
use crate::grpc::{self, Grpc};
use crate::head;
use crate::http::REQUEST_ID;
use crate::listener::{BoundListener, Bounds, Link, Listening, Timeouts, serve};
use crate::node::{Node, StageHealth};
use crate::problem::{self, ProblemView};
use crate::spoken::API;

/// The content type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How the content type of every gRPC call begins.
const GRPC: &[u8] = b"application/grpc";
/// Connections to the API that may be open at a time.
const CONNECTIONS: usize = 1000;
/// The path of the call that watches the node's health, and how often one connection may do so at a time.
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const MOST_WATCHES: u32 = 8;
/// The most requests side by side of a client that has not shown the token.
const MOST_OF_STRANGERS: u32 = 16;
/// The most bytes of a request's head.
const HEADERS: usize = 64 * 1024;

/// The door to the API.
pub struct ApiDoor<N> {
    node: Arc<N>,
    token: String,
    grpc: Grpc<N>,
    /// Host names that the API answers to; empty if any name may lead to it.
    hosts: Vec<String>,
}

impl<N: Node> ApiDoor<N> {
    /// A door that wants `token` and answers to `hosts`, each with or without a port. No hosts: to any, for a Unix
    /// socket and for an address that stands for all addresses.
    pub fn new(node: Arc<N>, token: String, hosts: Vec<String>) -> ApiDoor<N> {
        ApiDoor { grpc: Grpc::new(node.clone()), node, token, hosts }
    }

    /// Serves a listener.
    /// At most `most` connections are open at a time; when there is no place left, the oldest whose client has not shown the token
    /// makes room.
    pub fn serve(self: Arc<Self>, listener: BoundListener, timeouts: Timeouts, most: usize) -> Listening {
        let connections = most.min(CONNECTIONS);
        let bounds = Bounds { timeouts, headers: HEADERS, connections, strangers_leave: true, http2: API };
        let node = self.node.clone();
        let unparsed = move |status| problem::unparsed(&*node, status, HEADERS);
        serve(listener, bounds, unparsed, move |link| Connected { door: self.clone(), link })
    }

    fn answer(&self, head: &Parts, link: &Link) -> Response<AnswerBody> {
        let kept = Kept { busy: Some(link.busy()), ..Kept::default() };
        match self.dispatch(head, link) {
            Ok((status, content_type, body)) => respond(status, content_type, body.into(), kept),
            Err(problem) => {
                let id = self.node.new_id();
                let view = ProblemView::new(&problem, id, None, false);
                let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = respond(status, "application/problem+json", view.to_json(), kept);
                if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
                    response.headers_mut().insert(REQUEST_ID, id);
                }
                if problem.code == Code::MethodNotAllowed {
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                }
                if problem.code == Code::Unauthorized {
                    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                response
            }
        }
    }

    /// Answers a gRPC call; what is refused here is refused in its terms.
    async fn answer_grpc(&self, request: Request<Incoming>, link: &Link) -> Response<AnswerBody> {
        let mut kept = Kept { busy: Some(link.busy()), ..Kept::default() };
        let (head, body) = request.into_parts();
        let open = Grpc::<N>::is_open(head.uri.path());
        // Whoever shows the token without need is known as well.
        let token = self.check_token(&head, link);
        let crowd = check_crowd(link);
        let allowed = crowd.and(self.check_origin(&head)).and(if open { Ok(()) } else { token });
        let mut crowded = false;
        if head.uri.path() == WATCH {
            kept._watching = link.connection.watch(MOST_WATCHES);
            crowded = kept._watching.is_none();
        }
        let response = match allowed {
            Ok(()) if crowded => {
                let detail =
                    format!("this connection watches the node's health {MOST_WATCHES} times, which is the most");
                tonic::Status::resource_exhausted(detail).into_http()
            }
            Ok(()) => self.grpc.clone().answer(Request::from_parts(head, body)).await,
            Err(problem) => grpc::status(&problem).into_http(),
        };
        response.map(|body| AnswerBody::messages(body, kept, self.node.budget()))
    }

    fn dispatch(&self, head: &Parts, link: &Link) -> Result<(StatusCode, &'static str, String), Problem> {
        if !link.connection.is_known() && self.check_token(head, link).is_err() {
            check_crowd(link)?;
        }
        self.check_origin(head)?;
        let path = head.uri.path();
        let known = matches!(path, "/healthz" | "/readyz" | "/metrics");
        if known && !matches!(head.method, Method::GET | Method::HEAD) {
            let detail = format!("{path} takes GET and HEAD, not {}", head.method);
            return Err(Problem::new(Code::MethodNotAllowed, detail));
        }
        match path {
            "/healthz" => Ok((StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned())),
            "/readyz" => Ok(self.readiness(self.check_token(head, link).is_ok())),
            _ => {
                self.check_token(head, link)?;
                match path {
                    "/metrics" => Ok((StatusCode::OK, OPENMETRICS, self.node.metrics())),
                    _ => Err(Problem::new(Code::NoRoute, format!("the API has no {path}"))),
                }
            }
        }
    }

    /// What an exception says is for those alone who have the token; its type is for everybody.
    fn readiness(&self, has_token: bool) -> (StatusCode, &'static str, String) {
        let health = self.node.health();
        let stages: serde_json::Map<_, _> =
            health.stages.iter().map(|stage| (stage.name.clone(), json!(stage.state))).collect();
        let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = json!({"state": health.word(), "stages": stages});
        let failed = |stage: &StageHealth| {
            let why = stage.reload_failed.as_deref()?;
            let short = why.split(": ").next().unwrap_or_default();
            Some((stage.name.clone(), json!(if has_token { why } else { short })))
        };
        let failed: serde_json::Map<_, _> = health.stages.iter().filter_map(failed).collect();
        if !failed.is_empty() {
            body["reload_failed"] = failed.into();
        }
        (status, "application/json", body.to_string() + "\n")
    }

    /// A web page that a browser shows must not reach the API, neither by a name that it made point here nor by a form.
    fn check_origin(&self, head: &Parts) -> Result<(), Problem> {
        head::check_form(head)?;
        let refuse = |what: &str| {
            let names = if self.hosts.is_empty() { "its own pages".to_owned() } else { self.hosts.join(", ") };
            let detail = format!("the API does not answer to this {what}; it answers to {names}");
            Err(Problem::new(Code::ForbiddenOrigin, detail))
        };
        let name = |authority: &str| -> String {
            let without_port = match authority.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
                _ => authority,
            };
            without_port.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
        };
        let header = |header| head.headers.get(header).map(|value| value.to_str().unwrap_or(""));
        let host = header(HOST).or_else(|| head.uri.authority().map(|authority| authority.as_str()));
        // Where any name may lead here, a page must at least come from here.
        let answers_to = |authority: &str| match self.hosts.is_empty() {
            true => host.is_some_and(|host| name(host) == name(authority)),
            false => self.hosts.contains(&name(authority)),
        };
        if !host.is_some_and(answers_to) {
            return refuse("Host");
        }
        let origins = head.headers.get_all(ORIGIN).iter().map(|origin| origin.to_str().unwrap_or(""));
        let mut origins = origins.map(|origin| origin.split_once("://").map_or("", |(_, authority)| authority));
        if origins.all(answers_to) { Ok(()) } else { refuse("Origin") }
    }

    fn check_token(&self, head: &Parts, link: &Link) -> Result<(), Problem> {
        let given = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match given {
            Some((_, token)) if bool::from(token.trim().as_bytes().ct_eq(self.token.as_bytes())) => {
                link.connection.set_known();
                Ok(())
            }
            Some(_) => Err(Problem::new(Code::Unauthorized, "the token is not the one that this node wants")),
            None => Err(Problem::new(Code::Unauthorized, "the API wants the header `Authorization: Bearer TOKEN`")),
        }
    }
}

/// A client that has not shown the token has few requests open at a time: each takes memory that nobody answers for.
fn check_crowd(link: &Link) -> Result<(), Problem> {
    if link.connection.is_known() || link.connection.open_requests() <= MOST_OF_STRANGERS {
        return Ok(());
    }
    let detail = format!("this connection has more than {MOST_OF_STRANGERS} requests open, the most without the token");
    Err(Problem::new(Code::QueueFull, detail).retry_after(Duration::from_secs(1)))
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes, kept: Kept) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::new(body, kept));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The door, for one connection.
struct Connected<N> {
    door: Arc<ApiDoor<N>>,
    link: Link,
}

impl<N: Node> hyper::service::Service<Request<Incoming>> for Connected<N> {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.version() == Version::HTTP_2 {
            self.link.connection.set_multiplexed();
        }
        let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC));
        if is_grpc {
            let (door, link) = (self.door.clone(), self.link.clone());
            return Box::pin(async move { Ok(door.answer_grpc(request, &link).await) });
        }
        let (head, _) = request.into_parts();
        let response = self.door.answer(&head, &self.link);
        Box::pin(std::future::ready(Ok(response)))
    }
}
