//! One HTTP/2 connection to a node.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use evener_protocol::api;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::body::Body;

use crate::address::Address;
use crate::error::Error;
use crate::options::Options;
use crate::{tls, token};

/// How much a node may send of one stream before it is read: large values must not stop and go.
const STREAM_WINDOW: u32 = 16 << 20;
/// The same for all streams together.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Large enough for a message with a whole piece in it, which is then read into one piece of memory.
const MAX_FRAME: u32 = 2 * api::PIECE as u32;
/// How much a Unix socket holds on its way to the node: more than it would by default, so that writing the next bytes and reading
/// the last ones go on at the same time.
const SEND_BUFFER: usize = 1 << 20;
/// How often a node on another machine is asked for a sign of life.
const ASK: Duration = Duration::from_secs(10);
/// How long it may take to give one: a machine that is short of memory may stand still for a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that requests can be sent over; clones share it. It ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Body>,
    /// Scheme and authority of each request.
    origin: Uri,
    /// The token.
    authorization: HeaderValue,
    /// Whose connection it is, for messages.
    address: Arc<str>,
}

impl Connection {
    /// Connects; the time that it takes is the caller's to limit. Then a task of the current runtime keeps it going.
    pub(crate) async fn open(options: &Options) -> Result<Self, Error> {
        let address: Address = options.address.parse()?;
        let unreachable = |error: io::Error| unreachable(&address, &error);
        // The token is looked for only once someone listens: where nobody does, that is the trouble, and not that a node which
        // never ran has left no token.
        let token = || token::find(options.token_file.as_deref());
        let (stream, token): (Box<dyn Stream>, _) = match &address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                // A system that allows less gives less.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
                let token = token()?;
                let listener = stream.peer_cred().map_err(unreachable)?.uid();
                if !options.insecure {
                    token::check_listener(path, listener, &token)?;
                }
                (Box::new(stream), token)
            }
            Address::Http(authority) => {
                let stream = tcp(authority.as_str()).await.map_err(unreachable)?;
                if !options.insecure {
                    token::check_trusted(authority)?;
                }
                (Box::new(stream), token()?)
            }
            Address::Https(authority) => {
                let config = tls::config(options.ca_file.as_deref())?;
                let stream = tcp(authority.as_str()).await.map_err(unreachable)?;
                let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host)
                    .map_err(|_| Error::Connect(format!("{address}: TLS has no name for this host")))?;
                let stream = TlsConnector::from(config).connect(name, stream).await;
                (Box::new(stream.map_err(|error| untrusted(&address, &error))?), token()?)
            }
        };
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME);
        if !matches!(address, Address::Unix(_)) {
            // The kernel tells when a process on this machine is gone; nobody tells about another machine.
            builder.keep_alive_interval(ASK).keep_alive_timeout(PATIENCE).keep_alive_while_idle(true);
        }
        let (requests, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| foreign(&address, &error))?;
        // How it ends is also told to those who wait for answers.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self {
            requests,
            origin: address.origin(),
            authorization: token.authorization,
            address: address.to_string().into(),
        })
    }

    /// The node's address, for messages.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Begins a request, whose URI has a path alone.
    pub(crate) fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).expect("an origin and a path make a URI");
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        self.requests.send_request(request)
    }

    /// What the end of a request means that had not yet been answered.
    pub(crate) fn refused(&self, status: &tonic::Status) -> Error {
        let address = &self.address;
        let said = match status.message() {
            "" => format!("{:?}", status.code()),
            message => message.to_owned(),
        };
        match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Error::Unauthorized(format!(
                "the node at {address} does not let this client in: {said}; its token is in the file that \
                 EVENER_TOKEN_FILE names, or in the runtime folder of the user who started it"
            )),
            tonic::Code::Unimplemented | tonic::Code::Internal => Error::Protocol(format!(
                "what answers at {address} does not speak evener.v1: {said}; is it an Evener node, and of this version?"
            )),
            _ => Error::Lost(format!("the node at {address} ended it: {said}")),
        }
    }

    /// What an error of the connection means before anything was said on it.
    pub(crate) fn unwelcome(&self, error: &hyper::Error) -> Error {
        if speaks_no_http2(error) {
            return foreign(&self.address, error);
        }
        Error::Connect(format!(
            "{} ended the connection before it had said anything ({}): is it the address of an Evener node's API, and is the \
             node not about to stop?",
            self.address,
            root(error)
        ))
    }

    /// What an error of the connection means for a request that had been sent.
    pub(crate) fn broken(&self, error: &hyper::Error) -> Error {
        if speaks_no_http2(error) {
            return foreign(&self.address, error);
        }
        Error::Lost(format!("the connection to {} ended: {}", self.address, root(error)))
    }
}

impl tower_service::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// What a connection runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    // Messages are put together before they are sent; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unreachable(address: &Address, error: &io::Error) -> Error {
    let hint = match (address, error.kind()) {
        (Address::Unix(_), io::ErrorKind::NotFound) => "there is no such socket; is `evener up` running?",
        (_, io::ErrorKind::ConnectionRefused) => "nobody listens there; is `evener up` running?",
        (_, io::ErrorKind::PermissionDenied) => {
            "this user may not use the socket; was the node started by another one?"
        }
        _ => "is the address right, and `evener up` running?",
    };
    Error::Connect(format!("cannot connect to {address} ({error}): {hint}"))
}

fn untrusted(address: &Address, error: &io::Error) -> Error {
    Error::Connect(format!(
        "cannot talk TLS with {address}: {error}; EVENER_CA_FILE may name a file with the certificates of those to trust"
    ))
}

fn foreign(address: &dyn std::fmt::Display, error: &hyper::Error) -> Error {
    Error::Protocol(format!(
        "what listens at {address} does not speak Evener's API (gRPC over HTTP/2): {}; is it the API's address and not that \
         of another listener?",
        chain(error)
    ))
}

/// Whether the other side broke the rules of HTTP/2, as a server of HTTP/1 does with its first words.
fn speaks_no_http2(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        // A frame of a size that no one agreed on is what the text of HTTP/1 looks like.
        let text = error.to_string();
        if text.contains("frame with invalid size") || text.contains("unspecific protocol error") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What an error comes from.
fn root(error: &dyn StdError) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

/// An error with its causes, in one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
