//! The Python module `evener._bridge`: [`evener_sdk::Session`] as a Python class. What its classes and methods mean stands in
//! `../../src/evener/_bridge.pyi`.
//!
//! What this crate never does: it never decides anything, and no Python object is touched by another thread than the caller's.
//! The session's own thread hands events over as Rust values; they become Python objects in the thread that takes them.

mod convert;
mod wait;

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use evener_sdk::{Definition, Options, Work};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyList};

use self::wait::Patience;

pyo3::create_exception!(
    evener._bridge,
    BridgeError,
    PyException,
    "A session cannot be used. Its arguments are the kind and a message."
);

/// A session, and the process that it belongs to.
///
/// After a fork, the child has a copy of it but not of the thread that drives it, and perhaps a lock that nobody will ever let go
/// of; so there it is not even dropped.
#[pyclass(frozen, module = "evener._bridge")]
struct Session {
    inner: ManuallyDrop<evener_sdk::Session>,
    process: u32,
}

/// One call whose events come from here.
#[pyclass(frozen, module = "evener._bridge")]
struct Direct {
    inner: evener_sdk::Direct,
    process: u32,
}

/// A worker as Python sees it: process number, node, pool, number in the pool, jobs done, busy.
type Worker = (u32, String, String, u32, u64, bool);

fn bridge_error(error: &evener_sdk::Error) -> PyErr {
    BridgeError::new_err((error.kind(), error.to_string()))
}

/// Whether this is the process that `process` was.
fn check_process(process: u32) -> PyResult<()> {
    if process == std::process::id() {
        return Ok(());
    }
    let message = "the session belongs to the process that this one was forked from";
    Err(BridgeError::new_err(("closed", message)))
}

impl Session {
    fn inner(&self) -> PyResult<&evener_sdk::Session> {
        check_process(self.process)?;
        Ok(&self.inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            // SAFETY: it is not used after this: the session itself is being dropped.
            #[allow(unsafe_code)]
            unsafe {
                ManuallyDrop::drop(&mut self.inner);
            }
        }
    }
}

// The arguments are those of the Python methods.
#[allow(clippy::too_many_arguments)]
#[pymethods]
impl Session {
    #[new]
    fn new(
        py: Python<'_>,
        url: String,
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        client: String,
        timeout: f64,
    ) -> PyResult<Self> {
        // An endless wait would be no favour to anyone.
        let timeout = convert::duration(timeout)?.unwrap_or(Duration::from_secs(24 * 3600));
        let options = Options { token_file, ca_file, client, timeout, ..Options::new(url) };
        let starting = evener_sdk::Session::start(options);
        let started = Patience::endless().wait_for(py, |moment| starting.wait(Some(moment)))?;
        let inner = started.unwrap_or(Err(evener_sdk::Error::Closed)).map_err(|error| bridge_error(&error))?;
        Ok(Self { inner: ManuallyDrop::new(inner), process: std::process::id() })
    }

    #[getter]
    fn version(&self) -> &str {
        &self.inner.welcome().version
    }

    #[getter]
    fn node(&self) -> &str {
        &self.inner.welcome().node
    }

    #[getter]
    fn window(&self) -> u32 {
        self.inner.welcome().window
    }

    #[getter]
    fn pools(&self) -> Vec<(&str, &str, u32)> {
        let pools = self.inner.welcome().pools.iter();
        pools.map(|pool| (&pool.name[..], &pool.python[..], pool.workers)).collect()
    }

    fn define(&self, hash: &[u8], name: String, python: String, body: &Bound<'_, PyBytes>) -> PyResult<()> {
        let definition = Definition { hash: convert::hash(hash)?, name, python, body: convert::input(body) };
        self.inner()?.define(definition).map_err(|error| bridge_error(&error))
    }

    fn submit(
        &self,
        function: &[u8],
        pool: PyBackedStr,
        input: &Bound<'_, PyBytes>,
        group: bool,
        retries: u32,
        timeout: Option<f64>,
        priority: i32,
        discard: bool,
    ) -> PyResult<u64> {
        let work = convert::work(function, &pool, group, retries, timeout, priority, discard)?;
        self.inner()?.submit(&work, convert::input(input)).map_err(|error| bridge_error(&error))
    }

    fn submit_many(
        &self,
        function: &[u8],
        pool: PyBackedStr,
        inputs: &Bound<'_, PyList>,
        group: bool,
        retries: u32,
        timeout: Option<f64>,
        priority: i32,
        discard: bool,
    ) -> PyResult<u64> {
        let work = convert::work(function, &pool, group, retries, timeout, priority, discard)?;
        let inputs = inputs.iter().map(|input| Ok(convert::input(input.cast::<PyBytes>()?)));
        let inputs: Vec<Bytes> = inputs.collect::<PyResult<_>>()?;
        self.inner()?.submit_many(&work, inputs).map_err(|error| bridge_error(&error))
    }

    fn call(
        &self,
        function: &[u8],
        pool: PyBackedStr,
        input: &Bound<'_, PyBytes>,
        group: bool,
        retries: u32,
        timeout: Option<f64>,
        priority: i32,
        discard: bool,
    ) -> PyResult<Direct> {
        let work: Work<'_> = convert::work(function, &pool, group, retries, timeout, priority, discard)?;
        let inner = self.inner()?.call(&work, convert::input(input)).map_err(|error| bridge_error(&error))?;
        Ok(Direct { inner, process: self.process })
    }

    fn wait<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyList>>> {
        let events = self.inner()?.events();
        let events = Patience::of(timeout)?.wait_for_some(py, |moment| events.wait(Some(moment)))?;
        events.map(|events| convert::events(py, events)).transpose()
    }

    fn cancel(&self, py: Python<'_>, number: u64, kill: bool) -> PyResult<bool> {
        let answer = self.inner()?.cancel(number, kill);
        let cancelled = Patience::endless().wait_for(py, |moment| answer.wait(Some(moment)))?;
        Ok(cancelled.unwrap_or(false))
    }

    fn workers(&self, py: Python<'_>, pool: &str) -> PyResult<Vec<Worker>> {
        let answer = self.inner()?.workers(pool);
        let workers = Patience::endless().wait_for(py, |moment| answer.wait(Some(moment)))?;
        let workers = workers.unwrap_or(Err(evener_sdk::Error::Closed)).map_err(|error| bridge_error(&error))?;
        let tuple = |worker: evener_sdk::Worker| {
            (worker.pid, worker.node, worker.pool, worker.index, worker.jobs_done, worker.busy)
        };
        Ok(workers.into_iter().map(tuple).collect())
    }

    fn close(&self) {
        // A child has nothing to close, and is told so nowhere: it may get here when it exits.
        if let Ok(session) = self.inner() {
            session.close();
        }
    }
}

#[pymethods]
impl Direct {
    #[getter]
    fn number(&self) -> u64 {
        self.inner.number()
    }

    fn wait<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        check_process(self.process)?;
        let events = Patience::of(timeout)?.wait_for_some(py, |moment| self.inner.wait(Some(moment)))?;
        convert::events(py, events.unwrap_or_default())
    }
}

/// The module.
#[pymodule]
mod _bridge {
    #[pymodule_export]
    use super::{BridgeError, Direct, Session};
}
