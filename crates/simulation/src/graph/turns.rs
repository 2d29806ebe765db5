//! Whose turn it is: what may go before what waits as well.

use std::collections::BTreeMap;

use evener_core::StageId;

use super::book::{Book, Job, JobName};
use crate::checker::{Check, ensure};

/// The requests of one client, of one urgency, in one stage.
type FlowName = (StageId, i8, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// When it last had its turn; turns are counted over all stages.
    last: u64,
    /// Since when it has been waiting without a gap; 0 if it is not.
    since: u64,
    /// One of its jobs came back since its last turn, and so it goes first.
    came_back: bool,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    flows: BTreeMap<FlowName, Flow>,
    turn: u64,
}

/// How urgent a request is, and whose it is.
pub(super) type Urgency = (i8, u16);

impl Turns {
    /// A job of that flow goes to a worker. `strict`: all of this step comes of one input.
    pub(super) fn goes(
        &mut self,
        book: &Book,
        name: JobName,
        job: &Job,
        urgency: impl Fn(u32) -> Urgency,
        strict: bool,
    ) -> Check {
        let (priority, flow) = urgency(name.0);
        let own = (job.stage, priority, flow);
        if strict {
            self.may_go(book, name, job, &urgency, own)?;
        }
        self.turn += 1;
        let is_left = |other_name: JobName, other: &Job| {
            other_name != name && other.joined < book.step && urgency(other_name.0) == (priority, flow)
        };
        let goes_on = book.line(job.stage).any(|(name, other)| is_left(name, other));
        let state = self.flows.entry(own).or_default();
        (state.last, state.came_back) = (self.turn, false);
        if !goes_on {
            // Others of it may have come only after this one had gone, and then they are a new flow.
            state.since = 0;
        }
        Ok(())
    }

    fn may_go(&self, book: &Book, name: JobName, job: &Job, urgency: impl Fn(u32) -> Urgency, own: FlowName) -> Check {
        let (_, priority, flow) = own;
        let state = self.flows.get(&own).copied().unwrap_or_default();
        for (other_name, other) in book.line(job.stage).filter(|(_, other)| other.joined < book.step) {
            let (other_priority, other_flow) = urgency(other_name.0);
            ensure(other_priority <= priority, || {
                format!("{name:?} went before {other_name:?}, which is more urgent")
            })?;
            if other_priority < priority || other_name == name {
                continue;
            }
            if other_flow == flow {
                let came_before = match (other.attempt > 0, job.attempt > 0) {
                    (true, false) => true,
                    (false, true) => false,
                    (false, false) => other.joined < job.joined,
                    // Whoever came back last goes first.
                    (true, true) => other.joined > job.joined,
                };
                ensure(!came_before, || format!("{name:?} went before {other_name:?}, whose turn it was"))?;
                continue;
            }
            let theirs = self.flows.get(&(job.stage, priority, other_flow)).copied().unwrap_or_default();
            let waited_all_along = theirs.since > 0 && theirs.since < state.last && theirs.last < state.last;
            ensure(state.came_back || job.attempt > 0 || !waited_all_along, || {
                format!("flow {flow} had its turn twice while {other_name:?} of flow {other_flow} waited")
            })?;
        }
        Ok(())
    }

    /// A job that was with a worker, or was to be, waits again.
    pub(super) fn comes_back(&mut self, stage: StageId, (priority, flow): Urgency) {
        self.flows.entry((stage, priority, flow)).or_default().came_back = true;
    }

    /// A job leaves that had waited. Its flow may have left with it.
    pub(super) fn leaves(&mut self, stage: StageId, (priority, flow): Urgency) {
        self.flows.entry((stage, priority, flow)).or_default().since = 0;
    }

    /// A step is over: who waits now?
    pub(super) fn settle(&mut self, book: &Book, urgency: impl Fn(u32) -> Urgency) {
        let mut waiting: BTreeMap<FlowName, ()> = BTreeMap::new();
        for (name, job) in book.all().filter(|(_, job)| job.place == super::book::Place::InLine) {
            let (priority, flow) = urgency(name.0);
            waiting.insert((job.stage, priority, flow), ());
        }
        self.turn += 1;
        let turn = self.turn;
        for (name, flow) in &mut self.flows {
            if !waiting.contains_key(name) {
                flow.since = 0;
            }
        }
        for name in waiting.into_keys() {
            let flow = self.flows.entry(name).or_default();
            if flow.since == 0 {
                flow.since = turn;
            }
        }
    }
}
