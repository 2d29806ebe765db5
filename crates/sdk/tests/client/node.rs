//! A node that the test plays by hand: real HTTP/2 and gRPC over a real socket, and nothing behind it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evener_protocol::api::{self, Evener, EvenerServer};
use evener_sdk::{Options, Session};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

/// What a node of the test lets in.
pub(crate) const TOKEN: &str = "0123456789abcdef";

/// The longest that anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A node. It is gone when it is dropped.
pub(crate) struct Node {
    folder: PathBuf,
    sessions: mpsc::Receiver<Visit>,
    serving: JoinHandle<()>,
}

/// A session from the node's side.
pub(crate) struct Visit {
    requests: Streaming<api::SessionRequest>,
    replies: mpsc::Sender<Result<api::SessionReply, Status>>,
}

impl Node {
    pub(crate) fn start() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("evener-sdk-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("token"), TOKEN).unwrap();
        let listener = UnixListener::bind(folder.join("api.sock")).unwrap();
        let (visits, sessions) = mpsc::channel(10);
        let serving = tokio::spawn(serve(listener, Door { visits }));
        Self { folder, sessions, serving }
    }

    /// How to reach it.
    pub(crate) fn options(&self) -> Options {
        Options {
            token_file: Some(self.folder.join("token")),
            timeout: LIMIT,
            ..Options::new(format!("unix:{}", self.folder.join("api.sock").display()))
        }
    }

    /// The next session, before it is welcomed.
    pub(crate) async fn visit(&mut self) -> Visit {
        within(self.sessions.recv()).await.unwrap()
    }

    /// A session that has begun, from both sides.
    pub(crate) async fn session(&mut self) -> (Session, Visit) {
        self.session_with(100, 1 << 30).await
    }

    pub(crate) async fn session_with(&mut self, window: u32, window_bytes: u64) -> (Session, Visit) {
        let connecting = tokio::spawn(Session::connect(self.options()));
        let mut visit = self.visit().await;
        visit.welcome(window, window_bytes).await;
        let (session, driver) = within(connecting).await.unwrap().unwrap();
        tokio::spawn(driver.run());
        (session, visit)
    }

    /// The node dies.
    pub(crate) fn kill(&self) {
        self.serving.abort();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Visit {
    pub(crate) async fn welcome(&mut self, window: u32, window_bytes: u64) {
        let hello = self.read().await.hello.unwrap();
        assert!(hello.client.starts_with("rust, evener "));
        let pool = api::Pool { name: "default".into(), python: "3.11".into(), workers: 4 };
        let welcome =
            api::Welcome { version: "1.2.3".into(), node: "here-1".into(), window, window_bytes, pools: vec![pool] };
        self.say(api::SessionReply { welcome: Some(welcome), ..api::SessionReply::default() }).await;
    }

    /// The next message.
    pub(crate) async fn read(&mut self) -> api::SessionRequest {
        self.read_or_end().await.expect("the session goes on")
    }

    /// The next message, or None if the session has ended.
    pub(crate) async fn read_or_end(&mut self) -> Option<api::SessionRequest> {
        within(self.requests.message()).await.unwrap_or_default()
    }

    /// All that comes until there have been so many calls.
    pub(crate) async fn read_calls(&mut self, count: usize) -> Vec<api::Call> {
        let mut calls = Vec::new();
        while calls.len() < count {
            calls.extend(self.read().await.calls);
        }
        calls
    }

    pub(crate) async fn say(&mut self, reply: api::SessionReply) {
        let _ = self.replies.send(Ok(reply)).await;
    }

    /// Refuses to go on.
    pub(crate) async fn refuse(&mut self, status: Status) {
        let _ = self.replies.send(Err(status)).await;
    }

    /// Says what calls return.
    pub(crate) async fn values(&mut self, values: impl IntoIterator<Item = (u64, bytes::Bytes)>) {
        let outcome = |(number, value)| api::Outcome {
            number,
            result: Some(api::outcome::Result::Value(value)),
            worker: 7,
            ran_ns: 1000,
            tries: 1,
            more: false,
            size: 0,
        };
        let outcomes = values.into_iter().map(outcome).collect();
        self.say(api::SessionReply { outcomes, ..api::SessionReply::default() }).await;
    }
}

/// What happens in time.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it takes too long")
}

async fn serve(listener: UnixListener, service: Door) {
    // The connections end with their server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = EvenerServer::new(service.clone()).max_decoding_message_size(usize::MAX);
        let service = hyper::service::service_fn(move |request| {
            let mut service = service.clone();
            async move { service.call(request).await }
        });
        connections.spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(16 << 20)
                .initial_connection_window_size(32 << 20)
                .max_frame_size(1 << 20)
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

#[derive(Clone)]
struct Door {
    visits: mpsc::Sender<Visit>,
}

fn let_in<T>(request: &Request<T>) -> Result<(), Status> {
    let shown = request.metadata().get("authorization").and_then(|shown| shown.to_str().ok());
    if shown == Some(&format!("Bearer {TOKEN}")) { Ok(()) } else { Err(Status::unauthenticated("a wrong token")) }
}

#[tonic::async_trait]
impl Evener for Door {
    type SessionStream = ReceiverStream<Result<api::SessionReply, Status>>;
    type SubmitStream = Pin<Box<dyn Stream<Item = Result<api::SubmitReply, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<api::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let_in(&request)?;
        let (replies, replying) = mpsc::channel(1000);
        let _ = self.visits.send(Visit { requests: request.into_inner(), replies }).await;
        Ok(Response::new(ReceiverStream::new(replying)))
    }

    /// Prints the function's name and returns the input.
    async fn submit(&self, request: Request<api::SubmitRequest>) -> Result<Response<Self::SubmitStream>, Status> {
        use api::submit_reply::Event;
        let_in(&request)?;
        let api::SubmitRequest { function, call } = request.into_inner();
        let (function, call) = (function.unwrap(), call.unwrap());
        let printed =
            api::Printed { stream: api::Stream::Stderr.into(), data: function.name.into(), ..api::Printed::default() };
        let result = Some(api::outcome::Result::Value(call.input));
        let outcome = api::Outcome { result, worker: 7, ..api::Outcome::default() };
        let events = [Event::Id("id-1".into()), Event::Printed(printed), Event::Outcome(outcome)];
        let replies = events.map(|event| Ok(api::SubmitReply { event: Some(event) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn cancel(&self, request: Request<api::CancelRequest>) -> Result<Response<api::CancelReply>, Status> {
        let_in(&request)?;
        let api::CancelRequest { id, kill } = request.into_inner();
        Ok(Response::new(api::CancelReply { cancelled: id == "id-1" && kill }))
    }

    async fn workers(&self, request: Request<api::WorkersRequest>) -> Result<Response<api::WorkersReply>, Status> {
        let_in(&request)?;
        let pool = request.into_inner().pool;
        let worker = api::Worker { pid: 7, node: "here-1".into(), pool, index: 1, jobs_done: 2, busy: true };
        Ok(Response::new(api::WorkersReply { workers: vec![worker] }))
    }
}
