//! A client that sends one request on a connection of its own, and notices how long the answer takes.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evener_engine::config::{Expect, TestRequest};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::text::span;

/// The largest body of an answer that is read.
const LARGEST: usize = 64 << 20;
/// How long to wait for an answer beyond what it may take, or beyond what it has to take.
const BEYOND_WITHIN: Duration = Duration::from_secs(5);
const BEYOND_AT_LEAST: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Why the body is not whole.
    pub(super) broken: Option<String>,
    /// From the request to the last byte.
    pub(super) took: Duration,
}

/// Sends the request of a test to an address such as `http://127.0.0.1:8000`. The error says why no answer came.
pub(super) async fn send(url: &str, request: &TestRequest, expect: &Expect) -> Result<Came, String> {
    let authority = url.trim_start_matches("http://");
    let request = made(authority, request)?;
    let patience = match expect.within {
        Some(within) => within.saturating_add(BEYOND_WITHIN),
        None => expect.at_least.unwrap_or_default().saturating_add(BEYOND_AT_LEAST),
    };
    let stream = TcpStream::connect(authority).await.map_err(|error| format!("cannot connect to {url}: {error}"))?;
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(patience, exchange(stream, request)).await {
        Ok(came) => came,
        Err(_) => Err(format!("no whole answer came within {}, and the request was given up", span(patience))),
    }
}

/// What a node says of its own readiness on its API's Unix socket; empty if it says nothing.
pub(super) async fn readiness(socket: &str) -> Bytes {
    let request = Request::get("/readyz").header(HOST, "localhost").body(Full::default());
    match (UnixStream::connect(socket).await, request) {
        (Ok(stream), Ok(request)) => exchange(stream, request).await.map(|came| came.body).unwrap_or_default(),
        _ => Bytes::new(),
    }
}

fn made(authority: &str, request: &TestRequest) -> Result<Request<Full<Bytes>>, String> {
    let path: PathAndQuery =
        request.path.parse().map_err(|why| format!("the path {:?} cannot be sent: {why}", request.path))?;
    let method: Method = request.method.parse().map_err(|why| format!("{}: {why}", request.method))?;
    let body = request.body.as_ref().map(|body| Bytes::copy_from_slice(body)).unwrap_or_default();
    let mut made = Request::new(Full::new(body));
    *made.method_mut() = method;
    *made.uri_mut() = Uri::from(path);
    for (name, value) in &request.headers {
        let name: HeaderName = name.parse().map_err(|why| format!("the header {name:?} cannot be sent: {why}"))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|why| format!("the header {name} cannot be sent: {why}"))?;
        made.headers_mut().append(name, value);
    }
    if !made.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority).map_err(|why| format!("{authority}: {why}"))?;
        made.headers_mut().insert(HOST, host);
    }
    Ok(made)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Came, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let said = |error: hyper::Error| format!("no answer came: {}", with_causes(&error));
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    // It ends with `requests`, so a test that is given up closes its connection.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let began = Instant::now();
    let (head, mut body) = requests.send_request(request).await.map_err(said)?.into_parts();
    let mut came = BytesMut::new();
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => came.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(error) => broken = Some(with_causes(&error)),
        }
        if came.len() > LARGEST {
            broken = Some(format!("it is larger than the {LARGEST} bytes that are read"));
        }
        if broken.is_some() {
            break;
        }
    }
    Ok(Came { status: head.status, headers: head.headers, body: came.freeze(), broken, took: began.elapsed() })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
