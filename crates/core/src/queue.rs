//! The jobs that wait for a worker of one stage: by priority, and within a priority first come first served.
//!
//! The links of the list live in the jobs themselves, so that a cancelled job leaves from the middle in constant time and a
//! waiting job costs no more memory than it is.

use std::cmp::Reverse;
use std::time::Duration;

use crate::job::{AnyJob, Job, JobKey, Place};
use crate::slab::Slab;
use crate::time::Time;

/// All jobs of a dispatcher.
pub(crate) type Jobs<P> = Slab<Job<P>, AnyJob>;

/// The jobs of one priority.
#[derive(Debug)]
struct Lane {
    priority: i8,
    head: JobKey,
    tail: JobKey,
}

/// One stage's waiting jobs.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The highest priority first; none is empty. Mostly there is one at most.
    lanes: Vec<Lane>,
    len: usize,
    drain: DrainRate,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Lets a new job wait behind all others of its priority.
    pub(crate) fn push_back<P>(&mut self, jobs: &mut Jobs<P>, key: JobKey) {
        let Some(lane) = self.lane(jobs, key) else { return };
        let previous = std::mem::replace(&mut lane.tail, key);
        if previous == key {
            link(jobs, key, |_, _| (None, None));
        } else {
            link(jobs, key, |_, _| (Some(previous), None));
            link(jobs, previous, |before, _| (before, Some(key)));
        }
        self.len += 1;
    }

    /// Lets a job that has waited before wait in front of all others of its priority.
    pub(crate) fn push_front<P>(&mut self, jobs: &mut Jobs<P>, key: JobKey) {
        let Some(lane) = self.lane(jobs, key) else { return };
        let next = std::mem::replace(&mut lane.head, key);
        if next == key {
            link(jobs, key, |_, _| (None, None));
        } else {
            link(jobs, key, |_, _| (None, Some(next)));
            link(jobs, next, |_, after| (Some(key), after));
        }
        self.len += 1;
    }

    /// The lane that a job belongs into; a new one holds it already.
    fn lane<P>(&mut self, jobs: &Jobs<P>, key: JobKey) -> Option<&mut Lane> {
        let priority = jobs.get(key)?.terms.priority;
        let at = match self.lanes.binary_search_by_key(&Reverse(priority), |lane| Reverse(lane.priority)) {
            Ok(at) => at,
            Err(at) => {
                self.lanes.insert(at, Lane { priority, head: key, tail: key });
                at
            }
        };
        self.lanes.get_mut(at)
    }

    /// The job whose turn it is. `waited` is false if it has come just now, to a worker that was idle.
    pub(crate) fn pop<P>(&mut self, jobs: &mut Jobs<P>, now: Time, waited: bool) -> Option<JobKey> {
        let key = self.first()?;
        self.remove(jobs, key);
        self.drain.departed(now, waited);
        Some(key)
    }

    /// Takes a waiting job out, wherever it stands. Does nothing to a job that does not wait.
    pub(crate) fn remove<P>(&mut self, jobs: &mut Jobs<P>, key: JobKey) {
        let Some(&Job { place: Place::Queued { previous, next }, terms, .. }) = jobs.get(key) else { return };
        let at = self.lanes.iter().position(|lane| lane.priority == terms.priority);
        let Some(at) = at else { return };
        match (previous, next) {
            (None, None) => {
                self.lanes.remove(at);
            }
            (None, Some(next)) => self.lanes[at].head = next,
            (Some(previous), None) => self.lanes[at].tail = previous,
            (Some(_), Some(_)) => {}
        }
        if let Some(previous) = previous {
            link(jobs, previous, |before, _| (before, next));
        }
        if let Some(next) = next {
            link(jobs, next, |_, after| (previous, after));
        }
        self.len -= 1;
    }

    /// The job whose turn is next.
    pub(crate) fn first(&self) -> Option<JobKey> {
        self.lanes.first().map(|lane| lane.head)
    }

    /// The first job of each priority, and by [`after`] the others.
    pub(crate) fn heads(&self) -> impl Iterator<Item = JobKey> {
        self.lanes.iter().map(|lane| lane.head)
    }

    /// About how long it takes until what waits now is gone: whole seconds, 1 to 60.
    pub(crate) fn retry_after(&self, now: Time) -> Duration {
        let wait = self.drain.gap(now).saturating_mul(u32::try_from(self.len).unwrap_or(u32::MAX));
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Duration::from_secs(seconds.clamp(1, 60))
    }
}

/// The job behind `key`, of those of its priority.
pub(crate) fn after<P>(jobs: &Jobs<P>, key: JobKey) -> Option<JobKey> {
    match jobs.get(key)?.place {
        Place::Queued { next, .. } => next,
        Place::Delayed(_) | Place::Running(_) | Place::Ahead(_) => None,
    }
}

type Ends = (Option<JobKey>, Option<JobKey>);

fn link<P>(jobs: &mut Jobs<P>, key: JobKey, ends: impl FnOnce(Option<JobKey>, Option<JobKey>) -> Ends) {
    if let Some(job) = jobs.get_mut(key) {
        let (previous, next) = match job.place {
            Place::Queued { previous, next } => ends(previous, next),
            Place::Delayed(_) | Place::Running(_) | Place::Ahead(_) => ends(None, None),
        };
        job.place = Place::Queued { previous, next };
    }
}

/// How quickly a queue empties: a moving average of the gap between departures. A gap counts only if a job waited at its
/// end, for then all workers were busy throughout; otherwise it says how seldom jobs come.
#[derive(Debug, Default)]
struct DrainRate {
    last: Option<Time>,
    average_nanos: u64,
}

impl DrainRate {
    fn departed(&mut self, now: Time, waited: bool) {
        if let Some(last) = self.last.filter(|_| waited) {
            let gap = u64::try_from(now.since(last).as_nanos()).unwrap_or(u64::MAX);
            self.average_nanos = match self.average_nanos {
                0 => gap,
                average => average - average / 8 + gap / 8,
            };
        }
        self.last = Some(now);
    }

    fn gap(&self, now: Time) -> Duration {
        let silence = self.last.map_or(Duration::ZERO, |last| now.since(last));
        Duration::from_nanos(self.average_nanos).max(silence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gather::Cursor;
    use crate::job::Terms;
    use crate::request::RequestKey;
    use crate::topology::{Path, StageId};

    #[derive(Clone, Debug)]
    enum Step {
        /// A new job comes, of this priority.
        Back(i8),
        /// One that was handed out goes back in front.
        Front(prop::sample::Index),
        Pop,
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        let priority = prop_oneof![-2..=2i8, any::<i8>()];
        prop_oneof![
            4 => priority.prop_map(Step::Back),
            2 => index().prop_map(Step::Front),
            2 => Just(Step::Pop),
            2 => index().prop_map(Step::Remove),
        ]
    }

    fn job(priority: i8) -> Job<()> {
        Job {
            request: RequestKey::unpack(0),
            payload: (),
            stage: StageId(0),
            ordinal: 1,
            attempt: 0,
            tries: 0,
            from_client: true,
            terms: Terms { priority, ..Terms::default() },
            cursor: Cursor { path: Path::Stage(StageId(0)), step: 0, hops: 0, within: None },
            place: Place::Queued { previous: None, next: None },
        }
    }

    /// All that wait, in the order in which they are handed out; the links back are checked on the way.
    fn order(queue: &Queue, jobs: &Jobs<()>) -> Vec<JobKey> {
        let mut order = Vec::new();
        for head in queue.heads() {
            let mut before = None;
            let mut next = Some(head);
            while let Some(key) = next {
                let place = jobs.get(key).map(|job| job.place);
                assert!(matches!(place, Some(Place::Queued { previous, .. }) if previous == before));
                order.push(key);
                before = next;
                next = after(jobs, key);
            }
        }
        order
    }

    proptest! {
        /// Against a plain list, sorted by priority when somebody looks.
        #[test]
        fn like_a_sorted_list(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut queue, mut jobs) = (Queue::default(), Jobs::default());
            let mut model: Vec<(i8, JobKey)> = Vec::new();
            let mut out: Vec<(i8, JobKey)> = Vec::new();
            for step in steps {
                match step {
                    Step::Back(priority) => {
                        let key = jobs.insert(job(priority));
                        queue.push_back(&mut jobs, key);
                        model.push((priority, key));
                    }
                    Step::Front(index) if !out.is_empty() => {
                        let again = out.swap_remove(index.index(out.len()));
                        queue.push_front(&mut jobs, again.1);
                        model.insert(0, again);
                    }
                    Step::Pop => {
                        let popped = queue.pop(&mut jobs, Time::ZERO, true);
                        prop_assert_eq!(popped, model.first().map(|(_, key)| *key));
                        if popped.is_some() {
                            out.push(model.remove(0));
                        }
                    }
                    Step::Remove(index) if !model.is_empty() => {
                        let (_, key) = model.remove(index.index(model.len()));
                        queue.remove(&mut jobs, key);
                        jobs.remove(key);
                    }
                    Step::Front(_) | Step::Remove(_) => {}
                }
                for (_, key) in &out {
                    let Some(job) = jobs.get_mut(*key) else { continue };
                    job.place = Place::Running(crate::pool::WorkerKey::unpack(0));
                    queue.remove(&mut jobs, *key);
                }
                model.sort_by_key(|(priority, _)| Reverse(*priority));
                let expected: Vec<JobKey> = model.iter().map(|(_, key)| *key).collect();
                prop_assert_eq!(order(&queue, &jobs), expected);
                prop_assert_eq!((queue.len(), queue.first()), (model.len(), model.first().map(|(_, key)| *key)));
                let lanes = queue.lanes.iter().map(|lane| lane.priority);
                prop_assert!(lanes.clone().zip(lanes.skip(1)).all(|(upper, lower)| upper > lower));
            }
        }
    }
}
