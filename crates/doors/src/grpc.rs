//! The API over gRPC: `evener.v1`, health and reflection.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use evener_core::{Code, Problem};
use evener_protocol::api::submit_reply::Event;
use evener_protocol::api::{self, DESCRIPTORS, Evener, EvenerServer, MESSAGE, SubmitReply};
use http::Response;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::codegen::Service;
use tonic::codegen::tokio_stream::Stream as AsyncStream;
use tonic::{Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::server::Builder;

use crate::node::Node;
use crate::session::{Intake, Replies, Session, WINDOW, WINDOW_BYTES};

/// How often a change of the node's health is looked for, while somebody watches it.
const HEALTH: Duration = Duration::from_millis(250);

/// The most bytes of a question about the node's health: anybody may ask it.
const HEALTH_MESSAGE: usize = 1024;

/// The calls that `Submit` began and that have not ended, by their ids.
type Submitted<N> = Mutex<HashMap<String, Arc<Session<N>>>>;

/// Every service of the API that speaks gRPC.
pub(crate) struct Grpc<N> {
    calls: EvenerServer<Calls<N>>,
    health: HealthServer<Watch<N>>,
}

impl<N> Clone for Grpc<N> {
    fn clone(&self) -> Self {
        Grpc { calls: self.calls.clone(), health: self.health.clone() }
    }
}

impl<N: Node> Grpc<N> {
    pub(crate) fn new(node: Arc<N>) -> Grpc<N> {
        let calls = Calls { node: node.clone(), submitted: Arc::default() };
        Grpc {
            calls: EvenerServer::new(calls)
                .max_decoding_message_size(2 * MESSAGE)
                .max_encoding_message_size(usize::MAX),
            health: HealthServer::new(Watch::new(node)).max_decoding_message_size(HEALTH_MESSAGE),
        }
    }

    /// Whether a path is one that needs no token.
    pub(crate) fn is_open(path: &str) -> bool {
        path.starts_with("/grpc.health.v1.Health/")
    }

    /// Answers a request whose token and origin have been looked at.
    pub(crate) async fn answer(&mut self, request: http::Request<Incoming>) -> Response<tonic::body::Body> {
        // None of them can fail: what goes wrong is in the response.
        let path = request.uri().path();
        let answered = if path.starts_with("/evener.v1.Evener/") {
            self.calls.call(request).await
        } else if path.starts_with("/grpc.health.v1.Health/") {
            self.health.call(request).await
        } else if path.starts_with("/grpc.reflection.v1.ServerReflection/") {
            // Made each time: it is asked for seldom, and by people.
            let described = Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .build_v1();
            match described {
                Ok(mut service) => service.call(request).await,
                Err(error) => Ok(Status::internal(format!("the API cannot describe itself: {error}")).into_http()),
            }
        } else {
            Ok(Status::unimplemented(format!("the API has no {path}")).into_http())
        };
        answered.unwrap_or_else(|never| match never {})
    }
}

/// The status that a problem is in gRPC.
pub(crate) fn status(problem: &Problem) -> Status {
    let detail = problem.detail.clone();
    match problem.code {
        Code::Unauthorized => Status::unauthenticated(detail),
        Code::ForbiddenOrigin => Status::permission_denied(detail),
        Code::BadRequest => Status::invalid_argument(detail),
        Code::QueueFull => Status::resource_exhausted(detail),
        _ => Status::internal(detail),
    }
}

/// `evener.v1.Evener`.
struct Calls<N> {
    node: Arc<N>,
    submitted: Arc<Submitted<N>>,
}

fn lock<N>(submitted: &Submitted<N>) -> MutexGuard<'_, HashMap<String, Arc<Session<N>>>> {
    submitted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the one call of a session that `Submit` makes.
const ONLY: u64 = 1;

#[tonic::async_trait]
impl<N: Node> Evener for Calls<N> {
    type SessionStream = Replies<N>;
    type SubmitStream = SubmitReplies<N>;

    async fn session(
        &self,
        request: Request<tonic::Streaming<api::SessionRequest>>,
    ) -> Result<tonic::Response<Replies<N>>, Status> {
        let node = &*self.node;
        let pool = |pool: &crate::node::PoolView| api::Pool {
            name: pool.name.clone(),
            python: pool.python.clone(),
            workers: pool.workers,
        };
        let welcome = api::Welcome {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: node.name().to_owned(),
            window: WINDOW,
            window_bytes: WINDOW_BYTES.min(node.budget().limit() / 4),
            pools: node.pools().iter().map(pool).collect(),
        };
        let session = Session::new(self.node.clone(), false);
        let mut incoming = request.into_inner();
        let intake = tokio::spawn({
            let session = session.clone();
            async move {
                let mut intake = Intake::new(session.clone());
                let fault = loop {
                    // A client that does not read is not read from either.
                    session.has_room().await;
                    let message = tokio::select! {
                        biased;
                        () = session.overflowed() => {
                            let why = "half of the node's memory is full of values that this client has not read";
                            break Some(Status::resource_exhausted(why));
                        }
                        message = incoming.message() => message,
                    };
                    match message.and_then(|message| message.map(|message| intake.receive(message)).transpose()) {
                        Ok(Some(())) => {}
                        Ok(None) => break None,
                        // Mostly the client is gone; otherwise it hears what is wrong.
                        Err(status) => break Some(status),
                    }
                };
                if let Some(status) = fault {
                    tracing::debug!(%status, "a session ended before its time");
                    session.fail(status);
                }
                session.close();
            }
        });
        Ok(tonic::Response::new(Replies::new(session, Some(welcome), Some(intake.abort_handle()))))
    }

    async fn submit(&self, request: Request<api::SubmitRequest>) -> Result<tonic::Response<SubmitReplies<N>>, Status> {
        let api::SubmitRequest { function, call } = request.into_inner();
        let (Some(function), Some(call)) = (function, call) else {
            return Err(Status::invalid_argument("a `function` and a `call` are needed"));
        };
        if function.more || call.more {
            return Err(Status::invalid_argument("`Submit` takes no pieces; use a session for what is large"));
        }
        let id = self.node.new_id();
        let session = Session::new(self.node.clone(), true);
        let mut intake = Intake::new(session.clone());
        intake.function(function)?;
        let replies = Replies::new(session.clone(), None, None);
        let id_text = id.to_string();
        lock(&self.submitted).insert(id_text.clone(), session);
        let submitted = self.submitted.clone();
        let replies = SubmitReplies { id: Some(id_text.clone()), replies, ready: Vec::new(), id_text, submitted };
        intake.call(id, api::Call { number: ONLY, ..call })?;
        Ok(tonic::Response::new(replies))
    }

    async fn cancel(&self, request: Request<api::CancelRequest>) -> Result<tonic::Response<api::CancelReply>, Status> {
        let api::CancelRequest { id, kill } = request.into_inner();
        let session = lock(&self.submitted).get(&id).cloned();
        let cancelled = match session {
            Some(session) => session.withdraw(ONLY, kill).await,
            None => false,
        };
        Ok(tonic::Response::new(api::CancelReply { cancelled }))
    }

    async fn workers(
        &self,
        request: Request<api::WorkersRequest>,
    ) -> Result<tonic::Response<api::WorkersReply>, Status> {
        let api::WorkersRequest { pool } = request.into_inner();
        let workers = self.node.workers().into_iter().filter(|worker| pool.is_empty() || worker.pool == pool);
        let workers = workers.map(|worker| api::Worker {
            pid: worker.pid,
            node: self.node.name().to_owned(),
            pool: worker.pool,
            index: worker.index,
            jobs_done: worker.done,
            busy: worker.busy,
        });
        Ok(tonic::Response::new(api::WorkersReply { workers: workers.collect() }))
    }
}

/// What `Submit` tells of its one call.
struct SubmitReplies<N: Node> {
    id: Option<String>,
    replies: Replies<N>,
    /// What is still to be told, the last first.
    ready: Vec<Event>,
    id_text: String,
    submitted: Arc<Submitted<N>>,
}

impl<N: Node> Drop for SubmitReplies<N> {
    fn drop(&mut self) {
        lock(&self.submitted).remove(&self.id_text);
    }
}

impl<N: Node> AsyncStream for SubmitReplies<N> {
    type Item = Result<SubmitReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = |event| Poll::Ready(Some(Ok(SubmitReply { event: Some(event) })));
        if let Some(id) = self.id.take() {
            return event(Event::Id(id));
        }
        loop {
            if let Some(ready) = self.ready.pop() {
                if matches!(ready, Event::Outcome(_)) {
                    // Nothing comes after it.
                    self.replies.end();
                }
                return event(ready);
            }
            match std::task::ready!(Pin::new(&mut self.replies).poll_next(cx)) {
                Some(Ok(reply)) => {
                    let outcomes = reply.outcomes.into_iter().map(Event::Outcome);
                    self.ready = outcomes.rev().chain(reply.printed.into_iter().rev().map(Event::Printed)).collect();
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// `grpc.health.v1.Health`: whether the node takes work for all its stages.
struct Watch<N> {
    node: Arc<N>,
    /// What those who watch are told; one task looks for all of them, as long as there are any.
    health: Arc<watch::Sender<ServingStatus>>,
    /// Whether that task is there.
    looks: Arc<AtomicBool>,
    places: Arc<Semaphore>,
}

/// How many may watch at a time, and for how long one does: a client that goes on wants to know asks again.
const MOST_WATCHES: usize = 1024;
const WATCHED: Duration = Duration::from_secs(600);

impl<N: Node> Watch<N> {
    fn new(node: Arc<N>) -> Watch<N> {
        let health = Arc::new(watch::Sender::new(ServingStatus::Unknown));
        Watch { node, health, looks: Arc::default(), places: Arc::new(Semaphore::new(MOST_WATCHES)) }
    }

    /// Hears of the health. The first who does has a task look at it.
    fn subscribe(&self) -> watch::Receiver<ServingStatus> {
        let told = self.health.subscribe();
        self.health.send_if_modified(|last| {
            let now = Self::look(&self.node);
            std::mem::replace(last, now) != now
        });
        if !self.looks.swap(true, Ordering::AcqRel) {
            let (node, health, looks) = (self.node.clone(), self.health.clone(), self.looks.clone());
            tokio::spawn(async move {
                let mut interval = tokio::time::interval(HEALTH);
                loop {
                    interval.tick().await;
                    let now = Self::look(&node);
                    health.send_if_modified(|last| std::mem::replace(last, now) != now);
                    if health.receiver_count() == 0 {
                        looks.store(false, Ordering::Release);
                        // One who came in between found that somebody looks.
                        if health.receiver_count() == 0 || looks.swap(true, Ordering::AcqRel) {
                            return;
                        }
                    }
                }
            });
        }
        told
    }
}

impl<N: Node> Watch<N> {
    fn look(node: &N) -> ServingStatus {
        if node.health().ready { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    fn knows(service: &str) -> bool {
        matches!(service, "" | "evener.v1.Evener")
    }
}

#[tonic::async_trait]
impl<N: Node> Health for Watch<N> {
    type WatchStream = Pin<Box<dyn AsyncStream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !Self::knows(&service) {
            return Err(Status::not_found(format!("there is no service `{service}`")));
        }
        Ok(tonic::Response::new(HealthCheckResponse { status: Self::look(&self.node).into() }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MOST_WATCHES} clients watch the node's health, which is the most"))
        })?;
        let (tell, told) = mpsc::channel(1);
        let mut health = self.subscribe();
        tokio::spawn(async move {
            let _place = place;
            let mut end = pin!(tokio::time::sleep(WATCHED));
            loop {
                let now = match Self::knows(&service) {
                    true => *health.borrow_and_update(),
                    false => ServingStatus::ServiceUnknown,
                };
                if tell.send(Ok(HealthCheckResponse { status: now.into() })).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = health.changed() => if changed.is_err() { return },
                    () = tell.closed() => return,
                    () = &mut end => return,
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(Told(told))))
    }
}

/// What comes through a channel, as a stream.
struct Told<T>(mpsc::Receiver<T>);

impl<T> AsyncStream for Told<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}
