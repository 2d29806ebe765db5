//! The processes in which jq programs run that may not run in the node.
//!
//! A worker of this kind is the node's own binary in another mode ([`serve`]), which speaks the worker protocol. It does one run at a
//! time and belongs to no stage: whoever has a run takes an idle one or starts another, and puts it back. How many there are at a
//! time is bounded by those who have runs: a stage by its places, everything else by the turns of the program. The kernel bounds the
//! memory of a run, and a run that takes too long, or that nobody waits for, is ended by killing its worker.

mod process;
pub(crate) mod serve;

use std::ffi::OsString;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use evener_core::{Budget, Failure};
use evener_protocol::{Content, Value};
use evener_supervisor::Spawn;
use evener_supervisor::environment::worker_environment;
use evener_supervisor::warden::Wardens;
use tokio::runtime::Handle;

use self::process::{Ended, Process};
pub(crate) use self::serve::{ARGUMENT, Want};
use super::Program;

/// How long a worker that does nothing is kept.
const KEPT: Duration = Duration::from_secs(20);
/// How much larger than at its start a worker may be after a run: one that is larger still is not kept.
const LEFT_BEHIND: u64 = 64 << 20;
/// The most workers that are kept while they do nothing.
const MOST_KEPT: usize = 8;
/// How much longer than its program a worker may take before it is killed.
const SLACK: Duration = Duration::from_secs(1);

/// A run of a program.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) program: &'a Program,
    /// What it is to give.
    pub(crate) want: Want,
    /// What it works on.
    pub(crate) input: Value,
    /// How long it may take.
    pub(crate) time: Duration,
}

/// Why a run came to nothing that its program is to blame for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lost(pub(crate) String);

/// The workers of a node.
pub(crate) struct JqWorkers {
    wardens: Arc<Wardens>,
    runtime: Handle,
    /// The node's own binary.
    program: OsString,
    /// What results in receipt are counted in.
    memory: Budget,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// With when each was put back, the last one last.
    workers: Vec<(Process, Instant)>,
    /// Whether a task ends those that are idle for long.
    is_swept: bool,
}

impl std::fmt::Debug for JqWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JqWorkers")
    }
}

impl JqWorkers {
    /// No worker yet. `warden` is the command of the node's warden, which is the same binary. Must be called within a Tokio runtime.
    pub(crate) fn new(wardens: Arc<Wardens>, warden: &Command, memory: Budget) -> Arc<JqWorkers> {
        let program = warden.get_program().to_owned();
        Arc::new(JqWorkers { wardens, runtime: Handle::current(), program, memory, idle: Mutex::default() })
    }

    /// What is counted of runs.
    pub(crate) fn memory(&self) -> &Budget {
        &self.memory
    }

    /// Where runs are awaited.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs a program. If the future is dropped, the run is ended.
    pub(crate) async fn run(self: &Arc<Self>, run: Run<'_>) -> Result<Result<Value, Failure>, Lost> {
        let mut worker = match self.take() {
            Some(worker) => worker,
            None => self.start().await?,
        };
        let ended = match tokio::time::timeout(run.time.saturating_add(SLACK), worker.run(&run)).await {
            Ok(ended) => ended,
            Err(_) => return Ok(Err(filter("the jq program ran out of time"))),
        };
        match ended {
            Ended::Outcome(outcome) => {
                if !worker.has_grown(LEFT_BEHIND) {
                    self.put_back(worker);
                }
                Ok(outcome)
            }
            Ended::Memory => Ok(Err(filter("the jq program needs more memory than it may use"))),
            Ended::Lost(cause) => Err(Lost(cause)),
        }
    }

    /// The same, where a lost worker is a failure like any other.
    pub(crate) async fn run_whatever(self: &Arc<Self>, run: Run<'_>) -> Result<Value, Failure> {
        match self.run(run).await {
            Ok(result) => result,
            Err(Lost(cause)) => Err(filter(&format!("the worker of the jq program {cause}"))),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Process> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.workers.pop()).map(|(worker, _)| worker).find(|worker| !worker.has_ended())
    }

    async fn start(&self) -> Result<Process, Lost> {
        let lost = |error: &dyn std::fmt::Display| Lost(format!("did not start: {error}"));
        let warden = self.wardens.get().await.map_err(|error| lost(&error))?;
        let mut env = worker_environment(std::env::vars_os());
        // One arena, so that its memory is what it uses.
        env.push(("MALLOC_ARENA_MAX".into(), "1".into()));
        let (program, args) = (self.program.clone(), vec![ARGUMENT.into()]);
        let spawn = Spawn { program, args, env, cwd: "/".into(), memory: None };
        Process::start(warden, &spawn, &self.memory).await.map_err(|error| lost(&error))
    }

    fn put_back(self: &Arc<Self>, worker: Process) {
        let mut idle = self.idle();
        if idle.workers.len() >= MOST_KEPT {
            return;
        }
        idle.workers.push((worker, Instant::now()));
        if !std::mem::replace(&mut idle.is_swept, true) {
            let this = Arc::downgrade(self);
            self.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(KEPT / 4).await;
                    let Some(this) = this.upgrade() else { return };
                    let mut idle = this.idle();
                    idle.workers.retain(|(_, since)| since.elapsed() < KEPT);
                    if idle.workers.is_empty() {
                        idle.is_swept = false;
                        return;
                    }
                }
            });
        }
    }
}

fn filter(detail: &str) -> Failure {
    Failure::Filter { detail: detail.to_owned() }
}

/// The elements of a list, from the form in which a worker sends them.
pub(crate) fn elements(mut packed: Bytes) -> Vec<Value> {
    let mut elements = Vec::new();
    while packed.len() >= size_of::<u32>() {
        let length = (packed.get_u32_le() as usize).min(packed.len());
        elements.push(Value { content: Content::Json, bytes: packed.split_to(length) });
    }
    elements
}
