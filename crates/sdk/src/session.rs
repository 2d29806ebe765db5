//! Many calls over one stream.

mod alert;
pub(crate) mod arrival;
mod desk;
mod functions;
mod incoming;
mod ledger;
mod outgoing;
mod pieces;
mod queue;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evener_protocol::api;
use http::{Request, header};
use tonic::body::Body;

use self::alert::Alert;
use self::desk::Desk;
use self::incoming::Incoming;
use self::outgoing::Outgoing;
use crate::answer::{Answer, promise};
use crate::client::{Client, Worker, late};
use crate::connection::Connection;
use crate::error::Error;
use crate::event::Event;
use crate::mailbox::Mailbox;
use crate::options::Options;
use crate::work::{Definition, Work};

/// The path of the call that a session is.
const PATH: &str = "/evener.v1.Evener/Session";

/// A session with a node: a cheap handle, to be used from any thread. With the last handle the session ends.
///
/// Nothing here blocks, except where a name says `wait`. Calls beyond what the node takes at a time wait on this side, by
/// priority and then in order; calls that the node has no room for are brought again later.
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

struct Handle {
    desk: Arc<Desk>,
    alert: Arc<Alert>,
    welcome: Welcome,
    client: Client,
    runtime: tokio::runtime::Handle,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version of its program.
    pub version: String,
    /// Its name: its host's name and its process number.
    pub node: String,
    /// How many calls of this session it takes at a time.
    pub window: u32,
    /// How many bytes of input it takes at a time.
    pub window_bytes: u64,
    /// The pools that take functions.
    pub pools: Vec<Pool>,
}

/// A pool that takes functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Major and minor version of its Python, such as `3.11`.
    pub python: String,
    /// How many workers it shall have.
    pub workers: u32,
}

/// One call whose events come from here and not from the session.
#[derive(Debug, Clone)]
pub struct Direct {
    number: u64,
    mailbox: Arc<Mailbox<Event>>,
    alert: Arc<Alert>,
    began: Instant,
}

/// What receives for a session. It must be run for the session to do anything; if it is dropped, the session is lost.
#[must_use = "a session does nothing unless its driver runs"]
pub struct Driver {
    desk: Arc<Desk>,
    incoming: Incoming,
}

impl Session {
    /// Connects to a node, within the current Tokio runtime, and waits for its welcome. Then spawn [`Driver::run`].
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::Unauthorized`], [`Error::Protocol`], or [`Error::Lost`] if the node ended the session before
    /// the welcome.
    pub async fn connect(options: Options) -> Result<(Self, Driver), Error> {
        let opening = tokio::time::timeout(options.timeout, Self::open(&options)).await;
        opening.unwrap_or_else(|_| Err(late(&options.address, options.timeout)))
    }

    /// The same for programs without a runtime: a thread is started, which has a small one and drives the session to its end.
    pub fn start(options: Options) -> Answer<Result<Self, Error>> {
        let (promise, answer) = promise(Err(Error::Connect("the session's thread ended".to_owned())));
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return promise.keep(Err(Error::Connect(format!("cannot begin to connect: {error}")))),
            };
            runtime.block_on(async move {
                match Self::connect(options).await {
                    Ok((session, driver)) => {
                        promise.keep(Ok(session));
                        driver.run().await;
                    }
                    Err(error) => promise.keep(Err(error)),
                }
            });
        };
        match std::thread::Builder::new().name("evener-session".to_owned()).spawn(run) {
            Ok(_) => answer,
            Err(error) => Answer::known(Err(Error::Connect(format!("cannot start a thread: {error}")))),
        }
    }

    async fn open(options: &Options) -> Result<(Self, Driver), Error> {
        let mut connection = Connection::open(options).await?;
        let desk = Arc::new(Desk::new());
        let outgoing = Outgoing::new(Arc::clone(&desk), api::Hello { client: options.client.clone() });
        let request = Request::post(PATH)
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc")
            .body(Body::new(outgoing))
            .expect("the request is well-formed");
        let response = connection.send(request).await.map_err(|error| connection.unwelcome(&error))?;
        let mut incoming = Incoming::new(response, connection.clone())?;
        let mut reply = match incoming.next().await? {
            Some(reply) => reply,
            None => {
                let address = connection.address();
                return Err(Error::Lost(format!("the node at {address} ended the session before it began")));
            }
        };
        let Some(welcome) = reply.welcome.take() else {
            let address = connection.address();
            return Err(Error::Protocol(format!("the node at {address} did not begin with a welcome")));
        };
        desk.welcome(&welcome);
        desk.reply(Instant::now(), reply);
        let handle = Handle {
            desk: Arc::clone(&desk),
            alert: Arc::new(Alert::new()),
            welcome: welcome.into(),
            client: Client::over(connection),
            runtime: tokio::runtime::Handle::current(),
        };
        Ok((Self { handle: Arc::new(handle) }, Driver { desk, incoming }))
    }

    /// What the node said of itself when the session began.
    pub fn welcome(&self) -> &Welcome {
        &self.handle.welcome
    }

    /// Makes a function known to the session. It is sent with its first call, and once. Defining it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] or [`Error::Lost`].
    pub fn define(&self, definition: Definition) -> Result<(), Error> {
        self.handle.desk.define(definition)
    }

    /// Calls a function. Returns the call's number; what becomes of it comes from [`Session::events`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Lost`], or [`Error::Undefined`].
    pub fn submit(&self, work: &Work<'_>, input: Bytes) -> Result<u64, Error> {
        self.submit_many(work, [input])
    }

    /// Calls a function with many inputs. Returns the number of the first call; the others have those that follow it.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Lost`], or [`Error::Undefined`].
    pub fn submit_many(&self, work: &Work<'_>, inputs: impl IntoIterator<Item = Bytes>) -> Result<u64, Error> {
        self.handle.desk.submit(work, inputs, None)
    }

    /// Calls a function. What becomes of the call comes from what is returned, and not from [`Session::events`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Lost`], or [`Error::Undefined`].
    pub fn call(&self, work: &Work<'_>, input: Bytes) -> Result<Direct, Error> {
        let mailbox = Arc::new(Mailbox::new());
        let began = Instant::now();
        let number = self.handle.desk.submit(work, [input], Some(Arc::clone(&mailbox)))?;
        Ok(Direct { number, mailbox, alert: Arc::clone(&self.handle.alert), began })
    }

    /// What becomes of the calls that were submitted. It is over when the session is over and all has been taken.
    pub fn events(&self) -> &Mailbox<Event> {
        &self.handle.desk.events
    }

    /// Cancels a call; `kill`: also if it has begun, in which case it is told, and its worker is stopped if it does not come back.
    /// The answer is whether the call is cancelled, and then its outcome is a problem with the code `cancelled`. It is not if it
    /// had begun, or has ended.
    pub fn cancel(&self, number: u64, kill: bool) -> Answer<bool> {
        let (promise, answer) = promise(false);
        self.handle.desk.cancel(number, kill, promise);
        answer
    }

    /// The workers of a pool that are up, or of all of them if `pool` is empty.
    pub fn workers(&self, pool: &str) -> Answer<Result<Vec<Worker>, Error>> {
        // Whether the session was lost or closed is known only once its runtime is gone, and then there is nobody to ask.
        let (promise, answer) = promise(Err(Error::Closed));
        let mut client = self.handle.client.clone();
        let pool = pool.to_owned();
        self.handle.runtime.spawn(async move { promise.keep(client.workers(&pool).await) });
        answer
    }

    /// Ends the session. All calls without an outcome get a problem with the code `session-closed`, and the node cancels them.
    /// Closing it again changes nothing.
    pub fn close(&self) {
        self.handle.desk.end(Error::Closed);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.desk.end(Error::Closed);
    }
}

impl Direct {
    /// The call's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes what is there. Waits if there is nothing, at most for `timeout`, and then returns an empty list. The last event is
    /// the outcome; once it has been taken, there is None.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Vec<Event>> {
        self.alert.wait(&self.mailbox, self.began, timeout);
        let events = self.mailbox.wait(timeout);
        if events.as_ref().and_then(|events| events.last()).is_some_and(|last| last.what.is_outcome()) {
            self.alert.took(self.began.elapsed());
        }
        events
    }

    /// The same for tasks.
    pub async fn recv(&self) -> Option<Vec<Event>> {
        self.mailbox.recv().await
    }
}

impl Driver {
    /// Receives until the session is over.
    pub async fn run(mut self) {
        loop {
            let reply = tokio::select! {
                biased;
                () = self.desk.closed.notified() => return,
                reply = self.incoming.next() => reply,
            };
            let error = match reply {
                Ok(Some(reply)) => {
                    self.desk.reply(Instant::now(), reply);
                    continue;
                }
                Ok(None) => Error::Lost("the node ended the session; it may be stopping".to_owned()),
                // Whatever it was, a session that had begun is lost.
                Err(error) => Error::Lost(error.to_string()),
            };
            self.desk.end(error);
            return;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.desk.end(Error::Lost("what receives for the session was stopped".to_owned()));
    }
}

impl From<api::Welcome> for Welcome {
    fn from(welcome: api::Welcome) -> Self {
        let api::Welcome { version, node, window, window_bytes, pools } = welcome;
        let pools = pools.into_iter().map(|api::Pool { name, python, workers }| Pool { name, python, workers });
        Self { version, node, window, window_bytes, pools: pools.collect() }
    }
}
