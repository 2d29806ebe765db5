//! Waiting without the GIL, so that signals are noticed.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// How long a wait goes on before it looks for signals, such as the one of Ctrl-C.
const MOMENT: Duration = Duration::from_millis(50);

/// How long to wait, in moments.
pub(crate) struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Forever.
    pub(crate) fn endless() -> Self {
        Self { until: None }
    }

    /// For so many seconds, or forever.
    pub(crate) fn of(timeout: Option<f64>) -> PyResult<Self> {
        let Some(timeout) = timeout else { return Ok(Self::endless()) };
        if timeout.is_nan() {
            return Err(PyValueError::new_err("a timeout is a number of seconds, and not a number is none"));
        }
        // What a clock cannot show is forever.
        let timeout = Duration::try_from_secs_f64(timeout.max(0.0)).ok();
        Ok(Self { until: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) })
    }

    /// Waits for a value; None when patience is at its end.
    pub(crate) fn wait_for<T: Send>(
        self,
        py: Python<'_>,
        mut wait: impl FnMut(Duration) -> Option<T> + Send,
    ) -> PyResult<Option<T>> {
        loop {
            let moment = self.until.map_or(MOMENT, |until| until.saturating_duration_since(Instant::now()).min(MOMENT));
            let value = py.detach(|| wait(moment));
            if value.is_some() || moment.is_zero() {
                return Ok(value);
            }
            py.check_signals()?;
        }
    }

    /// Waits for a list that is not empty. It is empty when patience is at its end, and None when `wait` says so.
    pub(crate) fn wait_for_some<T: Send>(
        self,
        py: Python<'_>,
        mut wait: impl FnMut(Duration) -> Option<Vec<T>> + Send,
    ) -> PyResult<Option<Vec<T>>> {
        // What is there already is taken without giving the GIL away.
        let found = match wait(Duration::ZERO) {
            Some(found) if found.is_empty() => {
                let some = |found: Option<Vec<T>>| match found {
                    Some(found) if found.is_empty() => None,
                    found => Some(found),
                };
                self.wait_for(py, |moment| some(wait(moment)))?.unwrap_or_else(|| Some(Vec::new()))
            }
            found => found,
        };
        Ok(found)
    }
}
