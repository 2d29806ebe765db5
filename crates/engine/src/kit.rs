//! What workers are made of, and which of those that there are were made of what.
//!
//! A reload compares with what the workers run, place by place, and not with what was asked for last: that may have failed.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evener_core::StageId;
use evener_supervisor::slot::Plan;

use crate::config::{Concurrency, OnCancel, Replacement, RetryOn, Stage, Workers};

/// Names a place, of all that there ever were: two may have the same number in a pool while one takes over from the other.
pub(crate) type PlaceId = u64;

/// How the worker in a place is made, by the place's number in its pool.
pub(crate) type Recipe = Arc<dyn Fn(u32, PlaceId) -> Plan + Send + Sync>;

/// What a worker is made of.
pub(crate) struct Kit {
    /// What its stage or function pool is called.
    pub(crate) name: Arc<str>,
    pub(crate) make: Make,
    /// Whether the worker before it has to be gone first.
    pub(crate) stop_first: bool,
    pub(crate) recipe: Recipe,
}

/// What makes a difference to a worker.
#[derive(Debug, PartialEq)]
pub(crate) enum Make {
    /// Its stage, without what is a rule of the node alone; the folder of its code; and its Python.
    Stage(Box<Stage>, PathBuf, Option<PathBuf>),
    /// It is one of a function pool, which stays as it is.
    Functions,
}

impl Make {
    /// What makes a difference to a worker of that stage.
    pub(crate) fn of(stage: Stage, folder: PathBuf, interpreter: Option<PathBuf>) -> Make {
        let concurrency = match stage.concurrency {
            Concurrency::Batch { max, .. } => Concurrency::Batch { max, wait: Duration::ZERO, idle: Duration::ZERO },
            other => other,
        };
        let stage = Stage {
            workers: Workers::Auto,
            queue: None,
            timeout: Duration::ZERO,
            retries: 0,
            retry_on: RetryOn::default(),
            backoff: None,
            max_jobs_per_worker: None,
            on_cancel: OnCancel::Tell,
            reload: Replacement::StartFirst,
            concurrency,
            affinity: None,
            weight: None,
            goto: None,
            ..stage
        };
        Make::Stage(Box::new(stage), folder, interpreter)
    }
}

impl Kit {
    /// Whether a worker that is made of this is to be made anew of `newer`. `stale`: its code has changed since.
    pub(crate) fn is_outdated_by(&self, newer: &Kit, stale: bool) -> bool {
        self.make != newer.make || (stale && newer.make != Make::Functions)
    }
}

/// Of what the worker is made in each place that is to stay. The task that owns the places writes it, and a reload reads it.
#[derive(Clone, Default)]
pub(crate) struct Made(Arc<Mutex<MadeOf>>);

/// The places, each with its stage and what its worker is made of.
type MadeOf = BTreeMap<PlaceId, (StageId, Arc<Kit>)>;

impl Made {
    pub(crate) fn insert(&self, place: PlaceId, stage: StageId, kit: Arc<Kit>) {
        self.places().insert(place, (stage, kit));
    }

    pub(crate) fn remove(&self, place: PlaceId) {
        self.places().remove(&place);
    }

    /// Whether a worker of that stage is to be made anew of `newer`. `stale`: the places whose code has changed.
    pub(crate) fn is_outdated_by(&self, stage: StageId, newer: &Kit, stale: &HashSet<PlaceId>) -> bool {
        let places = self.places();
        let mut here = places.iter().filter(|(_, (of, _))| *of == stage);
        here.any(|(place, (_, kit))| kit.is_outdated_by(newer, stale.contains(place)))
    }

    fn places(&self) -> MutexGuard<'_, MadeOf> {
        // Whoever panicked has changed all or nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
