//! One place in a stage's pool: a worker lives there, and when it ends another one follows.
//!
//! ```text
//!   spawn ──> starting ──READY──> serving ──ends──> wait ──> spawn
//!                └──fails──> wait ──> spawn            └──told to go──> spawn at once, while the old one leaves,
//!                                                                       or once it has left, if there is no room for two
//! ```

mod life;
mod line;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evener_core::state::StateAsk;
use evener_core::{Budget, JobKey, Landed, StageId, WorkerKey};
use evener_protocol::{Ready, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::life::{End, Life};
pub use self::line::Line;
use crate::certificate::{Certificate, OomKills};
use crate::output::Stream;
use crate::restart::{Policy, Restart};
use crate::warden::{Spawn, Wardens};

/// Which place in which pool.
#[derive(Clone, Debug)]
pub struct Place {
    /// The stage.
    pub stage: StageId,
    /// Its name.
    pub name: Arc<str>,
    /// The worker's number in the pool, from 0. While one place takes over from another, both have it.
    pub index: u32,
    /// Which place it is, of all that there ever were.
    pub id: u64,
}

/// What happens in a slot. The calls of one slot come one after the other.
pub trait Events: Send + Sync + 'static {
    /// A worker has warmed up, for which it took `age` from its start, and takes jobs over `line`.
    fn ready(&self, place: &Place, pid: u32, ready: Ready, age: Duration, line: Arc<Line>) -> WorkerKey;

    /// A worker brings an outcome. False if it is stale, which an honest worker never is: it is replaced.
    fn outcome(&self, worker: WorkerKey, landed: Landed<Value>) -> bool;

    /// A worker brings a piece of an answer. False if it may not, which an honest worker never does: it is replaced.
    fn chunk(&self, worker: WorkerKey, job: JobKey, attempt: u32, value: Value) -> bool;

    /// A job asks for, or changes, what jobs keep for each other. The answer names the worker's `number`.
    fn state(&self, worker: WorkerKey, number: u32, ask: &StateAsk);

    /// A worker says how many jobs it takes beyond the one at hand.
    fn credit(&self, worker: WorkerKey, credit: u32);

    /// A worker that was ready is gone.
    fn lost(&self, place: &Place, worker: WorkerKey, gone: Gone<'_>);

    /// A worker did not start, and `why`. `broken` if that was so several times in a row. The next start comes after `wait`.
    fn start_failed(&self, place: &Place, why: &str, broken: bool, wait: Duration);

    /// A worker that calls functions wrote something while it was at a job. False if nobody wants it; then it comes as lines.
    fn printed(&self, worker: WorkerKey, stream: Stream, bytes: &[u8]) -> bool;

    /// A worker wrote a line. `worker` is `None` before it is ready.
    fn output(&self, place: &Place, pid: u32, worker: Option<WorkerKey>, stream: Stream, line: &str);
}

/// How a worker that was ready went.
#[derive(Debug)]
pub struct Gone<'a> {
    /// The short of it, for clients: "was killed by SIGKILL".
    pub cause: String,
    /// Whether the node had let it go.
    pub asked: bool,
    /// The long of it, for the log.
    pub certificate: &'a Certificate,
}

/// What lives in a slot, and by which rules.
pub struct Plan {
    /// Which slot it is.
    pub place: Place,
    /// What to start; asked before each start.
    pub spawn: Box<dyn Fn() -> io::Result<Spawn> + Send + Sync>,
    /// How long a worker may take until it is ready.
    pub start_timeout: Duration,
    /// How long a worker that is told to go has before SIGTERM.
    pub grace: Duration,
    /// The most bytes of a result.
    pub largest: u64,
    /// What results in receipt are counted in, and must find room in; `None` if they count for nothing before they are whole.
    pub memory: Option<Budget>,
    /// Whether what a worker writes belongs to the job that it is at, byte for byte.
    pub calls: bool,
    /// Whether a worker that has done its share is gone before the next one starts.
    pub stop_first: bool,
}

/// One place in a pool.
pub struct Slot<E> {
    plan: Arc<Plan>,
    wardens: Arc<Wardens>,
    events: Arc<E>,
}

impl<E: Events> Slot<E> {
    /// A slot in which nothing lives yet.
    pub fn new(plan: Plan, wardens: Arc<Wardens>, events: Arc<E>) -> Slot<E> {
        Slot { plan: Arc::new(plan), wardens, events }
    }

    /// Keeps a worker alive in the slot until `stop` turns true, or the worker is told to leave; then lets it go and returns once it
    /// is gone.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let origin = Instant::now();
        let mut restart = Restart::new(Policy::default());
        let mut leaving = JoinSet::new();
        while !*stop.borrow() {
            restart.started();
            let wait = match self.life(&mut stop, || restart.ready(origin.elapsed())).await {
                Ok(End::Stopped) => break,
                Ok(End::Retired(life)) => {
                    restart.retired();
                    let mut life = *life;
                    if self.plan.stop_first {
                        life.let_go().await;
                    } else {
                        leaving.spawn(async move { life.let_go().await });
                    }
                    Duration::ZERO
                }
                Ok(End::Lost { worked }) => {
                    if worked {
                        restart.worked();
                    }
                    restart.failed(origin.elapsed(), fastrand::f64())
                }
                Err(why) => {
                    let wait = restart.failed(origin.elapsed(), fastrand::f64());
                    self.events.start_failed(&self.plan.place, &why, restart.is_broken(), wait);
                    wait
                }
            };
            while leaving.try_join_next().is_some() {}
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        while leaving.join_next().await.is_some() {}
    }

    /// One worker from its start to its end; the error says why it did not start.
    async fn life(&self, stop: &mut watch::Receiver<bool>, on_ready: impl FnOnce()) -> Result<End<E>, String> {
        let spawn = (self.plan.spawn)().map_err(|error| error.to_string())?;
        let warden = self.wardens.get().await.map_err(|error| format!("the warden does not start: {error}"))?;
        let process = warden.spawn(&spawn).await.map_err(|error| error.to_string())?;
        let oom_kills = OomKills::find();
        let life = Life::new(self.plan.clone(), self.events.clone(), warden, process, oom_kills);
        let life = life.map_err(|error| format!("the worker cannot be watched: {error}"))?;
        life.live(stop, on_ready).await
    }
}
