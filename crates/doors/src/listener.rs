//! Listening: binding, accepting, and the sweep that closes connections that are late.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

pub use crate::connection::Timeouts;
use crate::connection::{Connection, Presence, TickClock, TickLimits, Watched};
use crate::spoken::{Http2, Spoken};

/// How often connections are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// How many bytes may be under way on a Unix socket.
const SOCKET_BUFFER: usize = 1 << 20;
/// How long to wait after an `accept` that failed, for instance for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How often it is told that connections could not be accepted.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A socket that listens.
pub enum BoundListener {
    /// On TCP, with TLS if an acceptor is given.
    Tcp(TcpListener, Option<TlsAcceptor>),
    /// On a path.
    Unix(UnixListener, PathBuf),
}

impl BoundListener {
    /// Where clients find it, as a URL.
    pub fn url(&self) -> io::Result<String> {
        match self {
            BoundListener::Tcp(listener, tls) => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                Ok(format!("{scheme}://{}", listener.local_addr()?))
            }
            BoundListener::Unix(_, path) => Ok(format!("unix:{}", path.display())),
        }
    }
}

/// What the connections of one listener share.
pub(crate) struct Shared {
    pub(crate) clock: TickClock,
    pub(crate) draining: AtomicBool,
    /// The whole answer to a head that cannot be parsed, for its status.
    pub(crate) unparsed: Box<dyn Fn(u16) -> Vec<u8> + Send + Sync>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Told when the last connection is closed.
    all_closed: Notify,
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Closes the oldest connection whose client has not shown the token, if there is one.
    fn let_a_stranger_go(&self) {
        let connections = self.connections();
        let strangers = connections.iter().filter(|(_, connection)| !connection.is_known());
        if let Some((_, oldest)) = strangers.min_by_key(|(id, _)| **id) {
            oldest.abort();
        }
    }
}

/// A connection as its requests see it.
#[derive(Clone)]
pub struct Link {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Arc<Connection>,
    /// The client's address, as text.
    pub client: Arc<str>,
}

impl Link {
    /// Whether no further requests are wanted on this connection.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// From now on the connection is busy with a request; until the guard is dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.connection.request_began();
        let waiting = self.connection.add_waiting();
        Busy { shared: self.shared.clone(), connection: self.connection.clone(), waiting }
    }
}

/// A request is being served on a connection.
pub(crate) struct Busy {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    /// Since when its answer waits for the client; see [`Connection::add_waiting`].
    waiting: Option<Arc<AtomicU32>>,
}

impl Busy {
    /// A piece of the answer is handed over; now it is the client who lets the next one wait.
    pub(crate) fn gave(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.store(self.shared.clock.now(), Ordering::Relaxed);
        }
    }

    /// The client has room for the next piece.
    pub(crate) fn is_asked(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the answer must show in pieces how it gets on.
    pub(crate) fn wants_pieces(&self) -> bool {
        self.waiting.is_some()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            self.connection.remove_waiting(waiting);
        }
        self.connection.request_ended(self.shared.clock.now());
    }
}

/// Removes a connection from the sweep, however it ended.
struct Registered {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        connections.remove(&self.id);
        if connections.is_empty() {
            self.shared.all_closed.notify_waiters();
        }
    }
}

/// A listener that is being served. Dropping it stops accepting; connections go on.
pub struct Listening {
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
    sweeping: tokio::task::JoinHandle<()>,
}

impl Listening {
    /// Stops accepting, closes the connections that are idle, and lets the others answer what they are at and close then.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.accepting.abort();
        for connection in self.shared.connections().values().filter(|connection| connection.is_quiet()) {
            connection.abort();
        }
    }

    /// Waits until all connections are closed.
    pub async fn closed(&self) {
        loop {
            let all_closed = self.shared.all_closed.notified();
            if self.shared.connections().is_empty() {
                return;
            }
            all_closed.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
        self.sweeping.abort();
    }
}

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) timeouts: Timeouts,
    /// The most bytes of a request's head, roughly: the size of a connection's buffer goes by it.
    pub(crate) headers: usize,
    /// The most connections that are open at a time; further ones wait to be accepted.
    pub(crate) connections: usize,
    /// Whether a connection whose client has not shown the token makes room for another when there is none.
    pub(crate) strangers_leave: bool,
    pub(crate) http2: Http2,
}

/// Serves every connection that comes with a service of its own, made by `service`. A head that cannot be parsed gets the
/// answer that `unparsed` makes of the status.
pub(crate) fn serve<F, S>(
    listener: BoundListener,
    bounds: Bounds,
    unparsed: impl Fn(u16) -> Vec<u8> + Send + Sync + 'static,
    service: F,
) -> Listening
where
    F: Fn(Link) -> S + Send + Sync + 'static,
    S: Service<hyper::Request<Incoming>, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<crate::body::AnswerBody>>,
    S::Future: Send + 'static,
{
    let spoken = Spoken::new(&bounds);
    let Bounds { timeouts, connections: most, strangers_leave, .. } = bounds;
    let shared = Arc::new(Shared {
        clock: TickClock::default(),
        draining: AtomicBool::new(false),
        unparsed: Box::new(unparsed),
        connections: Mutex::default(),
        next: AtomicU64::new(0),
        all_closed: Notify::new(),
    });
    let acceptor = Acceptor { shared: shared.clone(), spoken, service };
    let accepting = tokio::spawn(accept(listener, acceptor, Arc::new(Semaphore::new(most)), strangers_leave));
    let sweeping = tokio::spawn(sweep(shared.clone(), TickLimits::new(&timeouts, SWEEP)));
    Listening { shared, accepting, sweeping }
}

async fn sweep(shared: Arc<Shared>, limits: TickLimits) {
    let mut interval = tokio::time::interval(SWEEP);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let tick = shared.clock.advance();
        let draining = shared.draining.load(Ordering::Relaxed);
        for connection in shared.connections().values() {
            if connection.look(tick) == Presence::Gone
                || connection.is_late(tick, &limits)
                || (draining && connection.is_quiet())
            {
                connection.abort();
            }
        }
    }
}

struct Acceptor<F> {
    shared: Arc<Shared>,
    spoken: Spoken,
    service: F,
}

async fn accept<F, S>(listener: BoundListener, acceptor: Acceptor<F>, places: Arc<Semaphore>, strangers_leave: bool)
where
    F: Fn(Link) -> S + Send + Sync + 'static,
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<crate::body::AnswerBody>> + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    let _unlink = match &listener {
        BoundListener::Unix(_, path) => Some(Unlink(path.clone())),
        BoundListener::Tcp(..) => None,
    };
    let mut failures = Failures::default();
    loop {
        if strangers_leave && places.available_permits() == 0 {
            acceptor.shared.let_a_stranger_go();
        }
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match &listener {
            BoundListener::Tcp(tcp, tls) => match tcp.accept().await {
                Ok((stream, peer)) => {
                    // Small answers must not wait for the client's acknowledgements; a socket that refuses is no worse off.
                    let _ = stream.set_nodelay(true);
                    match tls {
                        None => {
                            acceptor.spawn(stream.as_raw_fd(), TokioIo::new(stream), peer.to_string().into(), place)
                        }
                        Some(tls) => acceptor.spawn_tls(tls.clone(), stream, peer, place),
                    }
                }
                Err(error) => failures.pause(error).await,
            },
            BoundListener::Unix(unix, _) => match unix.accept().await {
                Ok((stream, _)) => {
                    // The system gives what it allows, and less works as well.
                    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SOCKET_BUFFER);
                    acceptor.spawn(stream.as_raw_fd(), TokioIo::new(stream), "unix".into(), place)
                }
                Err(error) => failures.pause(error).await,
            },
        }
    }
}

/// Connections that could not be accepted: any client can bring that about as often as it likes.
#[derive(Default)]
struct Failures {
    count: u64,
    told: Option<Instant>,
}

impl Failures {
    async fn pause(&mut self, error: io::Error) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            tracing::warn!(%error, failures = self.count, "connections could not be accepted; trying again");
            *self = Failures { count: 0, told: Some(Instant::now()) };
        }
        tokio::time::sleep(ACCEPT_AGAIN).await;
    }
}

struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "a socket file could not be removed");
        }
    }
}

impl<F, S> Acceptor<F>
where
    F: Fn(Link) -> S + Send + Sync + 'static,
    S: Service<hyper::Request<Incoming>, Response = hyper::Response<crate::body::AnswerBody>> + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    fn spawn<I>(&self, socket: RawFd, stream: I, client: Arc<str>, place: OwnedSemaphorePermit)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (link, registered) = self.register(client);
        let serving = self.serving(socket, stream, link.clone());
        let task = tokio::spawn(async move {
            let _kept = (registered, place);
            serving.await;
        });
        link.connection.set_abort(task.abort_handle());
    }

    fn spawn_tls(&self, tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let (link, registered) = self.register(peer.to_string().into());
        let (shared, spoken, service) = (self.shared.clone(), self.spoken.clone(), (self.service)(link.clone()));
        let connection = link.connection.clone();
        let task = tokio::spawn(async move {
            let _kept = (registered, place);
            // The sweeper counts the handshake as part of the first head.
            let socket = stream.as_raw_fd();
            match tls.accept(stream).await {
                Ok(stream) => {
                    let stream = Watched::new(TokioIo::new(stream), socket, shared, connection);
                    report(spoken.serve(stream, service).await);
                }
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
        });
        link.connection.set_abort(task.abort_handle());
    }

    fn register(&self, client: Arc<str>) -> (Link, Registered) {
        let connection = Arc::new(Connection::opened(self.shared.clock.now()));
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.connections().insert(id, connection.clone());
        (Link { shared: self.shared.clone(), connection, client }, Registered { shared: self.shared.clone(), id })
    }

    fn serving<I>(&self, socket: RawFd, stream: I, link: Link) -> impl Future<Output = ()> + Send + 'static
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let stream = Watched::new(stream, socket, self.shared.clone(), link.connection.clone());
        let serving = self.spoken.clone().serve(stream, (self.service)(link));
        async move { report(serving.await) }
    }
}

fn report(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
