//! The jobs that wait for a worker of one stage: by priority, within a priority the flows in turn, and within a flow first come
//! first served. A flow is the jobs of one client, as far as the service tells clients apart; numbers of 16 bits stand for them, as
//! in stochastic fairness queueing (McKenney, 1990), so that two clients in 65,536 may share one.
//!
//! The links of the list live in the jobs themselves, so that a cancelled job leaves from the middle in constant time and a
//! waiting job costs no more memory than it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::job::{AnyJob, Job, JobKey, Place, Terms};
use crate::slab::Slab;
use crate::time::Time;

/// All jobs of a dispatcher.
pub(crate) type Jobs<P> = Slab<Job<P>, AnyJob>;

/// The jobs of one priority.
#[derive(Debug)]
struct Lane {
    priority: i8,
    /// By number; none is empty.
    flows: BTreeMap<u16, Flow>,
    /// The flow whose turn is next. The others stand behind it in a ring, so that one leaves as quickly as it comes, wherever it stands:
    /// all that waits may be due at once.
    first: u16,
}

/// The jobs of one priority that count as those of one client.
#[derive(Clone, Copy, Debug)]
struct Flow {
    head: JobKey,
    tail: JobKey,
    /// The flow whose turn is before this one's, and the one whose turn is after it.
    before: u16,
    after: u16,
}

impl Lane {
    /// A flow begins with that job, and has its turn behind all others.
    fn begin(&mut self, number: u16, job: JobKey) {
        self.flows.insert(number, Flow { head: job, tail: job, before: number, after: number });
        self.step_in(number);
    }

    /// A flow that stands nowhere has its turn behind all others, and so before the first of them, in the ring.
    fn step_in(&mut self, number: u16) {
        let after = self.first;
        let Some(before) = self.flows.get_mut(&after).map(|flow| std::mem::replace(&mut flow.before, number)) else {
            self.first = number;
            return;
        };
        if let Some(flow) = self.flows.get_mut(&before) {
            flow.after = number;
        }
        if let Some(flow) = self.flows.get_mut(&number) {
            (flow.before, flow.after) = (before, after);
        }
    }

    fn step_out(&mut self, number: u16) {
        let Some(Flow { before, after, .. }) = self.flows.get(&number).copied() else { return };
        if let Some(flow) = self.flows.get_mut(&before) {
            flow.after = after;
        }
        if let Some(flow) = self.flows.get_mut(&after) {
            flow.before = before;
        }
        if self.first == number {
            self.first = after;
        }
    }

    /// The first job of each flow, in the order of their turns.
    fn heads(&self) -> impl Iterator<Item = JobKey> {
        let ring = std::iter::successors(self.flows.get(&self.first), |flow| self.flows.get(&flow.after));
        ring.take(self.flows.len()).map(|flow| flow.head)
    }
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

    /// Lets a new job wait behind all others of its flow.
    pub(crate) fn push_back<P>(&mut self, jobs: &mut Jobs<P>, key: JobKey) {
        let Some((lane, number)) = self.lane(jobs, key) else { return };
        match lane.flows.get_mut(&number) {
            Some(flow) => {
                let previous = std::mem::replace(&mut flow.tail, key);
                link(jobs, key, |_, _| (Some(previous), None));
                link(jobs, previous, |before, _| (before, Some(key)));
            }
            None => {
                lane.begin(number, key);
                link(jobs, key, |_, _| (None, None));
            }
        }
        self.len += 1;
    }

    /// Lets a job that has waited before wait in front of all others of its priority.
    pub(crate) fn push_front<P>(&mut self, jobs: &mut Jobs<P>, key: JobKey) {
        let Some((lane, number)) = self.lane(jobs, key) else { return };
        match lane.flows.get_mut(&number) {
            Some(flow) => {
                let next = std::mem::replace(&mut flow.head, key);
                link(jobs, key, |_, _| (None, Some(next)));
                link(jobs, next, |_, after| (Some(key), after));
                if lane.first != number {
                    lane.step_out(number);
                    lane.step_in(number);
                }
            }
            None => {
                lane.begin(number, key);
                link(jobs, key, |_, _| (None, None));
            }
        }
        lane.first = number;
        self.len += 1;
    }

    /// The lane that a job belongs into, and the number of its flow.
    fn lane<P>(&mut self, jobs: &Jobs<P>, key: JobKey) -> Option<(&mut Lane, u16)> {
        let Terms { priority, flow, .. } = jobs.get(key)?.terms;
        let at = match self.lanes.binary_search_by_key(&Reverse(priority), |lane| Reverse(lane.priority)) {
            Ok(at) => at,
            Err(at) => {
                self.lanes.insert(at, Lane { priority, flows: BTreeMap::new(), first: flow });
                at
            }
        };
        Some((self.lanes.get_mut(at)?, flow))
    }

    /// The job whose turn it is; the next turn is another flow's. `waited` is false if the job has come just now, to a worker that
    /// was idle.
    pub(crate) fn pop<P>(&mut self, jobs: &mut Jobs<P>, now: Time, waited: bool) -> Option<JobKey> {
        let key = self.first()?;
        if let Some(lane) = self.lanes.first_mut() {
            lane.first = lane.flows.get(&lane.first).map_or(lane.first, |flow| flow.after);
        }
        self.remove(jobs, key);
        self.drain.departed(now, waited);
        Some(key)
    }

    /// Takes a waiting job out, wherever it stands. Does nothing to a job that does not wait.
    pub(crate) fn remove<P>(&mut self, jobs: &mut Jobs<P>, key: JobKey) {
        let Some(&Job { place: Place::Queued { previous, next }, terms, .. }) = jobs.get(key) else { return };
        let Some(at) = self.lanes.iter().position(|lane| lane.priority == terms.priority) else { return };
        let lane = &mut self.lanes[at];
        let Some(flow) = lane.flows.get_mut(&terms.flow) else { return };
        match (previous, next) {
            (None, None) => {
                lane.step_out(terms.flow);
                lane.flows.remove(&terms.flow);
                if lane.flows.is_empty() {
                    self.lanes.remove(at);
                }
            }
            (None, Some(next)) => flow.head = next,
            (Some(previous), None) => flow.tail = previous,
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
        let lane = self.lanes.first()?;
        lane.flows.get(&lane.first).map(|flow| flow.head)
    }

    /// The first job of each flow, the highest priority first, and by [`after`] the others.
    pub(crate) fn heads(&self) -> impl Iterator<Item = JobKey> {
        self.lanes.iter().flat_map(Lane::heads)
    }

    /// About how long it takes until what waits now is gone: whole seconds, 1 to 60.
    pub(crate) fn retry_after(&self, now: Time) -> Duration {
        let wait = self.drain.gap(now).saturating_mul(u32::try_from(self.len).unwrap_or(u32::MAX));
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Duration::from_secs(seconds.clamp(1, 60))
    }
}

/// The job behind `key`, of those of its flow.
pub(crate) fn after<P>(jobs: &Jobs<P>, key: JobKey) -> Option<JobKey> {
    match jobs.get(key)?.place {
        Place::Queued { next, .. } => next,
        Place::Assessed | Place::Delayed(_) | Place::Running(_) | Place::Ahead(_) => None,
    }
}

type Ends = (Option<JobKey>, Option<JobKey>);

fn link<P>(jobs: &mut Jobs<P>, key: JobKey, ends: impl FnOnce(Option<JobKey>, Option<JobKey>) -> Ends) {
    if let Some(job) = jobs.get_mut(key) {
        let (previous, next) = match job.place {
            Place::Queued { previous, next } => ends(previous, next),
            Place::Assessed | Place::Delayed(_) | Place::Running(_) | Place::Ahead(_) => ends(None, None),
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
        /// A new job comes, of this priority and flow.
        Back(i8, u16),
        /// One that was handed out goes back in front.
        Front(prop::sample::Index),
        Pop,
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        let priority = prop_oneof![-2..=2i8, any::<i8>()];
        prop_oneof![
            4 => (priority, 0..4u16).prop_map(|(priority, flow)| Step::Back(priority, flow)),
            2 => index().prop_map(Step::Front),
            2 => Just(Step::Pop),
            2 => index().prop_map(Step::Remove),
        ]
    }

    fn job(priority: i8, flow: u16) -> Job<()> {
        Job {
            request: RequestKey::unpack(0),
            payload: (),
            stage: StageId(0),
            ordinal: 1,
            attempt: 0,
            tries: 0,
            from_client: true,
            affinity: 0,
            weight: 1,
            terms: Terms { priority, flow, ..Terms::default() },
            entered: Time::ZERO,
            cursor: Cursor { path: Path::Stage(StageId(0)), step: 0, hops: 0, within: None },
            place: Place::Queued { previous: None, next: None },
        }
    }

    /// All that wait, flow by flow; the links back are checked on the way.
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
        /// Against plain lists: for each priority the flows in the order of their turns, each a list.
        #[test]
        fn like_plain_lists(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut queue, mut jobs) = (Queue::default(), Jobs::default());
            let mut model: Model = BTreeMap::new();
            let mut out: Vec<JobKey> = Vec::new();
            for step in steps {
                match step {
                    Step::Back(priority, flow) => {
                        let key = jobs.insert(job(priority, flow));
                        queue.push_back(&mut jobs, key);
                        let lane = model.entry(Reverse(priority)).or_default();
                        match lane.iter_mut().find(|(number, _)| *number == flow) {
                            Some((_, keys)) => keys.push(key),
                            None => lane.push((flow, vec![key])),
                        }
                    }
                    Step::Front(index) if !out.is_empty() => {
                        let key = out.swap_remove(index.index(out.len()));
                        queue.push_front(&mut jobs, key);
                        let Terms { priority, flow, .. } = jobs.get(key).expect("it is there").terms;
                        let lane = model.entry(Reverse(priority)).or_default();
                        let at = lane.iter().position(|(number, _)| *number == flow);
                        let (_, mut keys) = at.map_or((flow, vec![]), |at| lane.remove(at));
                        keys.insert(0, key);
                        lane.insert(0, (flow, keys));
                    }
                    Step::Pop => {
                        let expected = model.first_entry().map(|mut lane| {
                            let (flow, mut keys) = lane.get_mut().remove(0);
                            let key = keys.remove(0);
                            lane.get_mut().push((flow, keys));
                            key
                        });
                        prop_assert_eq!(queue.pop(&mut jobs, Time::ZERO, true), expected);
                        out.extend(expected);
                    }
                    Step::Remove(index) if queue.len() > 0 => {
                        let all: Vec<JobKey> = flat(&model);
                        let key = all[index.index(all.len())];
                        queue.remove(&mut jobs, key);
                        jobs.remove(key);
                        let flows = model.values_mut().flatten();
                        flows.for_each(|(_, keys)| keys.retain(|other| *other != key));
                    }
                    Step::Front(_) | Step::Remove(_) => {}
                }
                model.values_mut().for_each(|lane| lane.retain(|(_, keys)| !keys.is_empty()));
                model.retain(|_, lane| !lane.is_empty());
                for key in &out {
                    let Some(job) = jobs.get_mut(*key) else { continue };
                    job.place = Place::Running(crate::pool::WorkerKey::unpack(0));
                    queue.remove(&mut jobs, *key);
                }
                let expected = flat(&model);
                prop_assert_eq!(order(&queue, &jobs), expected.clone());
                prop_assert_eq!((queue.len(), queue.first()), (expected.len(), expected.first().copied()));
                let lanes = queue.lanes.iter().map(|lane| lane.priority);
                prop_assert!(lanes.clone().zip(lanes.skip(1)).all(|(upper, lower)| upper > lower));
            }
        }
    }

    type Model = BTreeMap<Reverse<i8>, Vec<(u16, Vec<JobKey>)>>;

    fn flat(model: &Model) -> Vec<JobKey> {
        model.values().flatten().flat_map(|(_, keys)| keys.iter().copied()).collect()
    }
}
