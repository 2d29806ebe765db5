//! Python's values to Rust's, and back.

use std::time::Duration;

use bytes::Bytes;
use evener_sdk::{Event, Hash, Payload, Stream, What, Work};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};
use pyo3::{IntoPyObjectExt, ffi};

/// Up to this size bytes are copied, which costs less than to keep the Python object.
const COPY: usize = 64 * 1024;

/// Bytes that a session may keep.
pub(crate) fn input(bytes: &Bound<'_, PyBytes>) -> Bytes {
    // So are those of other kinds: what happens when such an object is freed is up to its class.
    if bytes.as_bytes().len() <= COPY || !bytes.is_exact_instance_of::<PyBytes>() {
        return Bytes::copy_from_slice(bytes.as_bytes());
    }
    // The object lives as long as the session needs it. The session's thread never touches it: when it lets go of it, the object
    // is put on a list, and the next thread that comes into this module with the GIL frees it.
    Bytes::from_owner(PyBackedBytes::from(bytes.clone()))
}

pub(crate) fn hash(hash: &[u8]) -> PyResult<Hash> {
    let bytes = hash.try_into();
    bytes.map(Hash).map_err(|_| PyValueError::new_err(format!("a hash has 32 bytes, and this one {}", hash.len())))
}

/// Seconds; None if they are endless.
pub(crate) fn duration(seconds: f64) -> PyResult<Option<Duration>> {
    if seconds == f64::INFINITY {
        return Ok(None);
    }
    let duration = Duration::try_from_secs_f64(seconds);
    duration.map(Some).map_err(|error| PyValueError::new_err(format!("{seconds} is no timeout: {error}")))
}

pub(crate) fn work<'a>(
    function: &[u8],
    pool: &'a str,
    group: bool,
    retries: u32,
    timeout: Option<f64>,
    priority: i32,
    discard: bool,
) -> PyResult<Work<'a>> {
    Ok(Work {
        function: hash(function)?,
        pool,
        group,
        retries,
        timeout: timeout.map(duration).transpose()?.flatten(),
        priority: priority.clamp(-100, 100) as i8,
        discard_output: discard,
    })
}

/// Events as tuples, as `_bridge.pyi` describes them.
pub(crate) fn events(py: Python<'_>, events: Vec<Event>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for event in events {
        list.append(tuple(py, event)?)?;
    }
    Ok(list)
}

fn tuple(py: Python<'_>, Event { number, what }: Event) -> PyResult<Bound<'_, PyTuple>> {
    match what {
        What::Printed { stream, data, truncated } => {
            let stream = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            (number, 0, stream, PyBytes::new(py, &data), truncated).into_pyobject(py)
        }
        What::Value { value, done } => {
            (number, 1, bytes(py, &value)?, done.worker, nanoseconds(done.ran), done.tries).into_pyobject(py)
        }
        What::Raised { exception, done } => {
            (number, 2, bytes(py, &exception)?, done.worker, nanoseconds(done.ran), done.tries).into_pyobject(py)
        }
        What::Problem { problem, done } => {
            let evener_sdk::Problem { code, detail, certificate, retryable } = *problem;
            (number, 3, code, detail, certificate, retryable, done.worker, done.tries).into_pyobject(py)
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The bytes of a payload, copied once.
fn bytes<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyAny>> {
    let mut pieces = payload.pieces();
    if let (Some(piece), None) = (pieces.next(), pieces.next()) {
        return PyBytes::new(py, piece).into_bound_py_any(py);
    }
    let len = payload.len();
    let size = ffi::Py_ssize_t::try_from(len).unwrap_or(ffi::Py_ssize_t::MAX);
    // SAFETY: Python makes an object with room for `size` bytes, or says why not; nobody else knows it yet; and the pieces have
    // just as many bytes together. `PyBytes::new_with` does the same, but would fill it with zeros before.
    #[allow(unsafe_code)]
    unsafe {
        let object = Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))?;
        let mut place = ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>();
        for piece in payload.pieces() {
            std::ptr::copy_nonoverlapping(piece.as_ptr(), place, piece.len());
            place = place.add(piece.len());
        }
        Ok(object)
    }
}
