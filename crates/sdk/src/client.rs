//! Single calls, without a session.

use std::time::Duration;

use bytes::Bytes;
use evener_protocol::api::{self, EvenerClient};

use crate::connection::Connection;
use crate::error::Error;
use crate::event::What;
use crate::options::Options;
use crate::session::arrival;
use crate::work::{Definition, Work, told_name};

/// A connection to a node, for single calls. Clones share the connection; it ends with the last of them.
///
/// Many calls are better made in a [`crate::Session`]: there each costs a fraction of what it costs here.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    stub: EvenerClient<Connection>,
}

/// A worker that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its process number.
    pub pid: u32,
    /// The node's name.
    pub node: String,
    /// Its pool, or its stage.
    pub pool: String,
    /// Its number in the pool, from 0.
    pub index: u32,
    /// Jobs that it has done.
    pub jobs_done: u64,
    /// Whether it is at a job now.
    pub busy: bool,
}

/// A call that was let in: what becomes of it. Dropping it cancels the call.
#[derive(Debug)]
pub struct Submitted {
    id: String,
    replies: tonic::Streaming<api::SubmitReply>,
    connection: Connection,
}

impl Client {
    /// Connects to a node.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if nobody listens there or the address is malformed, [`Error::Unauthorized`] if no token was found.
    /// Whether the node accepts the token shows with the first call.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        let opening = tokio::time::timeout(options.timeout, Connection::open(options)).await;
        let connection = opening.unwrap_or_else(|_| Err(late(&options.address, options.timeout)))?;
        Ok(Self::over(connection))
    }

    pub(crate) fn over(connection: Connection) -> Self {
        let stub = EvenerClient::new(connection.clone());
        // A value may have any size here.
        let stub = stub.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
        Self { connection, stub }
    }

    /// Calls a function once. Returns when the node has let the call in; what becomes of it comes from [`Submitted::next`].
    ///
    /// # Errors
    ///
    /// How the node refuses a call that it does not let in is an outcome like others. An error means that the connection ended
    /// or that the node does not accept the token.
    pub async fn submit(&mut self, function: &Definition, work: &Work<'_>, input: Bytes) -> Result<Submitted, Error> {
        let function = api::Function {
            hash: Bytes::copy_from_slice(&function.hash.0),
            name: told_name(&function.name).to_owned(),
            python: function.python.clone(),
            body: function.body.clone(),
            more: false,
            size: 0,
        };
        let call = api::Call {
            number: 0,
            function: function.hash.clone(),
            pool: work.pool.to_owned(),
            group: work.group,
            retries: work.retries,
            timeout_ns: work.timeout_ns(),
            priority: work.priority.into(),
            discard_output: work.discard_output,
            input,
            more: false,
            size: 0,
        };
        let request = api::SubmitRequest { function: Some(function), call: Some(call) };
        let replies = self.stub.submit(request).await.map_err(|status| self.failed(&status))?.into_inner();
        Ok(Submitted { id: String::new(), replies, connection: self.connection.clone() })
    }

    /// Cancels a call that [`Client::submit`] began. `kill`: also if it has begun; it is told, and its worker is stopped if it
    /// does not come back. Says whether the call is cancelled: false if it had begun, or has ended.
    ///
    /// # Errors
    ///
    /// The connection ended, or the node does not accept the token.
    pub async fn cancel(&mut self, id: &str, kill: bool) -> Result<bool, Error> {
        let request = api::CancelRequest { id: id.to_owned(), kill };
        let reply = self.stub.cancel(request).await.map_err(|status| self.failed(&status))?;
        Ok(reply.into_inner().cancelled)
    }

    /// The workers of a pool that are up, or of all of them if `pool` is empty.
    ///
    /// # Errors
    ///
    /// The connection ended, or the node does not accept the token.
    pub async fn workers(&mut self, pool: &str) -> Result<Vec<Worker>, Error> {
        let request = api::WorkersRequest { pool: pool.to_owned() };
        let reply = self.stub.workers(request).await.map_err(|status| self.failed(&status))?;
        Ok(reply.into_inner().workers.into_iter().map(Worker::from).collect())
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        failed(&self.connection, status)
    }
}

impl Submitted {
    /// The id by which [`Client::cancel`] knows the call; empty until the first event has come.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What happens next. The last is the outcome; after it comes None.
    ///
    /// # Errors
    ///
    /// The connection ended, or the node does not accept the token.
    pub async fn next(&mut self) -> Result<Option<What>, Error> {
        loop {
            let reply = self.replies.message().await.map_err(|status| failed(&self.connection, &status))?;
            match reply.map(|reply| reply.event) {
                Some(Some(api::submit_reply::Event::Id(id))) => self.id = id,
                Some(Some(api::submit_reply::Event::Printed(printed))) => return Ok(Some(arrival::printed(printed))),
                Some(Some(api::submit_reply::Event::Outcome(outcome))) => return Ok(Some(arrival::outcome(outcome))),
                // Something that a later version has to say.
                Some(None) => {}
                None => return Ok(None),
            }
        }
    }
}

fn failed(connection: &Connection, status: &tonic::Status) -> Error {
    use std::error::Error as _;
    match status.source().and_then(|source| source.downcast_ref::<hyper::Error>()) {
        Some(error) => connection.broken(error),
        None => connection.refused(status),
    }
}

pub(crate) fn late(address: &str, timeout: Duration) -> Error {
    Error::Connect(format!(
        "no answer from {address} within {timeout:?}: something listens there but does not answer; is it an Evener node?"
    ))
}

impl From<api::Worker> for Worker {
    fn from(worker: api::Worker) -> Self {
        let api::Worker { pid, node, pool, index, jobs_done, busy } = worker;
        Self { pid, node, pool, index, jobs_done, busy }
    }
}
