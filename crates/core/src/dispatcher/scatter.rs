//! Scatter and gather: a step with branches, each on a way of its own, and what they come to put together.
//!
//! A branch is a way like that of the request itself, but what waits for its end is a [`Gather`]. So scatters stand within
//! scatters to any depth, and what ends a way (a value, a problem) is decided in one place: [`Dispatcher::end_path`] and
//! [`Dispatcher::fail_path`].

use super::way::{Load, Next};
use super::{Cover, Dispatcher};
use crate::gather::{Branch, Cursor, Gather, GatherKey, Part, Work};
use crate::job::{Due, JobKey, Terms};
use crate::outcome::Answer;
use crate::problem::{Code, Problem};
use crate::request::RequestKey;
use crate::time::Time;
use crate::topology::{OnFailure, Over};

impl<P: Clone, R> Dispatcher<P, R> {
    /// Named branches, all of which get the value and begin at once.
    pub(super) fn scatter(&mut self, now: Time, request: RequestKey, cursor: Cursor, load: Load<P>) {
        let Some(Over::Branches(branches)) = self.over(cursor) else { return };
        let begun = (0..branches.len()).map(|_| Branch::Begun(Work::Nothing)).collect();
        let gather = self.open(now, request, cursor, load.terms, begun);
        self.do_next(now, Next::Branch(gather, 0, load));
    }

    /// One that failed at once may have ended all of it.
    pub(super) fn begin_named(&mut self, key: GatherKey, number: u32, load: Load<P>) {
        let Some(gather) = self.gathers.get(key) else { return };
        let (request, at) = (gather.request, gather.cursor);
        let Some(Over::Branches(branches)) = self.over(at) else { return };
        let Some((_, path)) = branches.get(number as usize) else { return };
        let cursor = Cursor { path: *path, step: 0, hops: at.hops, within: Some((key, number)) };
        if number as usize + 1 < branches.len() {
            self.agenda.note(Next::Branch(key, number + 1, load.clone()));
        }
        self.agenda.note(Next::Step(request, cursor, load));
    }

    /// What the branches are of the scatter at that step.
    fn over(&self, at: Cursor) -> Option<&Over> {
        self.topology.scatter(at.path, at.step).map(|scatter| &scatter.over)
    }

    /// A value was taken apart: each of its elements takes the branch.
    pub(super) fn split(&mut self, now: Time, key: JobKey, elements: Vec<P>) {
        let Some(job) = self.jobs.get(key) else { return };
        let (request, cursor, terms) = (job.request, job.cursor, job.terms.of_next());
        let scatter = self.topology.scatter(cursor.path, cursor.step);
        if !scatter.is_some_and(|scatter| matches!(scatter.over, Over::Each { .. })) {
            let detail =
                format!("{} took a value apart, and no step is for that", self.topology.stage(job.stage).title());
            return self.give_up(now, key, Problem::new(Code::FunctionFailed, detail));
        }
        self.jobs.remove(key);
        let branches = elements.into_iter().map(Branch::Waiting).collect();
        let gather = self.open(now, request, cursor, terms, branches);
        self.go_on(now, gather);
    }

    fn open(
        &mut self,
        now: Time,
        request: RequestKey,
        cursor: Cursor,
        terms: Terms,
        branches: Vec<Branch<P>>,
    ) -> GatherKey {
        let timeout = self.topology.scatter(cursor.path, cursor.step).and_then(|scatter| scatter.timeout);
        let open = branches.len();
        let next = branches.iter().position(|branch| matches!(branch, Branch::Waiting(_))).unwrap_or(open);
        let terms = terms.of_next();
        let gather = Gather { request, cursor, terms, branches, open, next, is_beginning: false, timer: None };
        let key = self.gathers.insert(gather);
        if let Some(timeout) = timeout {
            let timer = self.timers.set(now + timeout, Due::Scatter(key));
            if let Some(gather) = self.gathers.get_mut(key) {
                gather.timer = Some(timer);
            }
        }
        self.set_work(request, cursor, Work::Gather(key));
        key
    }

    /// From now on `work` serves whoever waits for the end of that way.
    pub(super) fn set_work(&mut self, request: RequestKey, cursor: Cursor, work: Work) {
        match cursor.within {
            None => {
                if let Some(waiting) = self.requests.get_mut(request) {
                    waiting.request.work = work;
                }
            }
            Some((gather, number)) => {
                let branch = self.gathers.get_mut(gather).and_then(|gather| gather.branches.get_mut(number as usize));
                if let Some(branch) = branch {
                    *branch = Branch::Begun(work);
                }
            }
        }
    }

    /// A gather begins as many of its waiting branches as may be on their way, or ends if all have ended.
    fn go_on(&mut self, now: Time, key: GatherKey) {
        let Some(gather) = self.gathers.get_mut(key) else { return };
        if !std::mem::replace(&mut gather.is_beginning, true) {
            self.do_next(now, Next::GoOn(key));
        }
    }

    pub(super) fn begin_waiting(&mut self, now: Time, key: GatherKey) {
        let most = self.gathers.get(key).map_or(0, |gather| self.most_in_flight(gather));
        let Some(gather) = self.gathers.get_mut(key) else { return };
        if gather.open == 0 {
            return self.close(now, key);
        }
        let waiting = gather.branches.len() - gather.next;
        gather.is_beginning = waiting > 0 && gather.open - waiting < most;
        if !gather.is_beginning {
            return;
        }
        let number = gather.next;
        gather.next += 1;
        let branch = std::mem::replace(&mut gather.branches[number], Branch::Begun(Work::Nothing));
        let (request, at, terms) = (gather.request, gather.cursor, gather.terms);
        let (Branch::Waiting(payload), Some(Over::Each { branch, .. })) = (branch, self.over(at)) else { return };
        let cursor = Cursor { path: *branch, step: 0, hops: at.hops, within: Some((key, number as u32)) };
        let load = Load { terms, payload, from_client: false };
        self.agenda.note(Next::GoOn(key));
        self.agenda.note(Next::Step(request, cursor, load));
    }

    fn most_in_flight(&self, gather: &Gather<P>) -> usize {
        match self.over(gather.cursor) {
            Some(Over::Each { max_in_flight, .. }) => *max_in_flight as usize,
            Some(Over::Branches(_)) | None => usize::MAX,
        }
    }

    /// A way has come to its end, with a value.
    pub(super) fn end_path(&mut self, now: Time, request: RequestKey, cursor: Cursor, value: P) {
        match cursor.within {
            None => self.finish_now(now, request, Ok(Answer::Value(value))),
            Some((gather, number)) => self.end_branch(now, gather, number, Branch::Value(value)),
        }
    }

    /// A way has come to its end, without a value. So has each that it is a branch of, up to the one that collects failures or
    /// has a fallback for this; and if there is none, the request. A request that makes too many jobs ends in any case, or it would
    /// go on failing for as long as it makes more.
    pub(super) fn fail_path(&mut self, now: Time, request: RequestKey, from: Cursor, problem: Problem) {
        if problem.code == Code::TooManyJobs {
            return self.finish_now(now, request, Err(problem));
        }
        let mut cursor = from;
        while let Some((key, number)) = cursor.within {
            let Some(gather) = self.gathers.get(key) else { return };
            if self.on_failure(gather) == OnFailure::Collect {
                self.covered(request, problem.clone(), Cover::Collected);
                return self.end_branch(now, key, number, Branch::Failed(Box::new(problem)));
            }
            if let Some(fallback) = self.fallback_of(gather, problem.code) {
                self.covered(request, problem, Cover::Fallback);
                return self.fall_back(now, key, fallback);
            }
            cursor = gather.cursor;
        }
        self.finish_now(now, request, Err(problem));
    }

    fn on_failure(&self, gather: &Gather<P>) -> OnFailure {
        let scatter = self.topology.scatter(gather.cursor.path, gather.cursor.step);
        scatter.map(|scatter| scatter.on_failure).unwrap_or_default()
    }

    fn end_branch(&mut self, now: Time, key: GatherKey, number: u32, end: Branch<P>) {
        let Some(gather) = self.gathers.get_mut(key) else { return };
        let Some(branch) = gather.branches.get_mut(number as usize).filter(|branch| !branch.has_ended()) else {
            return;
        };
        let before = std::mem::replace(branch, end);
        gather.open -= 1;
        if let Branch::Begun(work) = before {
            self.drop_work(now, work);
        }
        self.go_on(now, key);
    }

    /// All branches have ended: what they came to is put together, and goes to the next step.
    fn close(&mut self, now: Time, key: GatherKey) {
        let Some(gather) = self.gathers.remove(key) else { return };
        gather.timer.map(|timer| self.timers.clear(timer));
        let Gather { request, cursor, terms, branches, .. } = gather;
        let topology = self.topology.clone();
        let names = match topology.scatter(cursor.path, cursor.step).map(|scatter| &scatter.over) {
            Some(Over::Branches(names)) => Some(names),
            Some(Over::Each { .. }) | None => None,
        };
        let parts: Vec<Part<'_, P>> = (branches.iter().enumerate())
            .filter_map(|(number, branch)| {
                let name = names.and_then(|names| names.get(number)).map_or("", |(name, _)| name.as_str());
                let value = match branch {
                    Branch::Value(value) => Ok(value),
                    Branch::Failed(problem) => Err(&**problem),
                    Branch::Waiting(_) | Branch::Begun(_) => return None,
                };
                Some(Part { name, value })
            })
            .collect();
        match (self.payloads.gather)(&topology, &parts, names.is_some()) {
            Ok(payload) => self.go(now, request, cursor.next(), Load { terms, payload, from_client: false }),
            Err(detail) => {
                let name = topology.path_name(cursor.path);
                let detail = format!("the branches of pipeline `{name}` cannot be gathered: {detail}");
                self.fail_path(now, request, cursor, Problem::new(Code::ResultNotEncodable, detail));
            }
        }
    }

    fn fallback_of(&self, gather: &Gather<P>, code: Code) -> Option<P> {
        let scatter = self.topology.scatter(gather.cursor.path, gather.cursor.step)?;
        let json = scatter.fallback.as_deref().filter(|_| scatter.fallback_on.covers(code))?;
        Some((self.payloads.constant)(json))
    }

    /// A scatter fails, and its fallback stands in for the gathered value: nobody waits for its branches any more.
    fn fall_back(&mut self, now: Time, key: GatherKey, payload: P) {
        let Some(gather) = self.gathers.get(key) else { return };
        let (request, cursor, terms) = (gather.request, gather.cursor, gather.terms);
        self.drop_work(now, Work::Gather(key));
        self.go(now, request, cursor.next(), Load { terms, payload, from_client: false });
    }

    /// The branches of a scatter did not all end in time.
    pub(super) fn scatter_timed_out(&mut self, now: Time, key: GatherKey) {
        let Some(gather) = self.gathers.get_mut(key) else { return };
        gather.timer = None;
        let cursor = gather.cursor;
        let mut jobs = Vec::new();
        self.jobs_of(Work::Gather(key), &mut jobs);
        let name = self.topology.path_name(cursor.path);
        let timeout = self.topology.scatter(cursor.path, cursor.step).and_then(|scatter| scatter.timeout);
        let whereabouts = self.where_they_were(&jobs);
        let detail = format!(
            "the branches of pipeline `{name}` had not all ended after {:?}: {whereabouts}",
            timeout.unwrap_or_default()
        );
        let problem = self.placed_in(Work::Gather(key), Problem::new(Code::ScatterTimeout, detail));
        let Some(gather) = self.gathers.get(key) else { return };
        let request = gather.request;
        if self.on_failure(gather) == OnFailure::Fail {
            let Some(fallback) = self.fallback_of(gather, problem.code) else {
                return self.fail_path(now, request, cursor, problem);
            };
            self.covered(request, problem, Cover::Fallback);
            return self.fall_back(now, key, fallback);
        }
        let late: Vec<usize> = (gather.branches.iter().enumerate())
            .filter_map(|(number, branch)| (!branch.has_ended()).then_some(number))
            .collect();
        let Some(gather) = self.gathers.get_mut(key) else { return };
        gather.open = 0;
        gather.next = gather.branches.len();
        let mut dropped = Vec::new();
        for number in late {
            let failed = Branch::Failed(Box::new(problem.clone()));
            if let Branch::Begun(work) = std::mem::replace(&mut gather.branches[number], failed) {
                dropped.push(work);
            }
        }
        self.covered(request, problem, Cover::Collected);
        self.drop_all(now, &dropped);
        self.close(now, key);
    }

    /// Nobody waits any more for a job, or for the branches of a scatter. All of them are dropped before the next job of
    /// any stage is handed out, or that could be one of them.
    pub(super) fn drop_work(&mut self, now: Time, work: Work) {
        match work {
            Work::Nothing => {}
            Work::Job(job) => self.drop_job(now, job),
            Work::Gather(_) => self.drop_all(now, &[work]),
        }
    }

    fn drop_all(&mut self, now: Time, all: &[Work]) {
        let mut jobs = Vec::new();
        for work in all {
            self.jobs_of(*work, &mut jobs);
            self.forget_gathers(*work);
        }
        let mut stages = Vec::new();
        for job in jobs {
            let stage = self.abandon_first(now, job);
            stages.extend(stage.filter(|stage| !stages.contains(stage)));
        }
        for stage in stages {
            self.dispatch(now, stage);
        }
    }

    fn forget_gathers(&mut self, work: Work) {
        let mut all = vec![work];
        while let Some(work) = all.pop() {
            let Work::Gather(key) = work else { continue };
            let Some(gather) = self.gathers.remove(key) else { continue };
            gather.timer.map(|timer| self.timers.clear(timer));
            all.extend(gather.branches.iter().filter_map(Branch::work));
        }
    }

    /// All jobs that serve a request or a branch at the moment, in the order of the branches.
    pub(super) fn jobs_of(&self, work: Work, found: &mut Vec<JobKey>) {
        let mut all = vec![work];
        while let Some(work) = all.pop() {
            match work {
                Work::Nothing => {}
                Work::Job(job) => found.push(job),
                Work::Gather(key) => {
                    let gather = self.gathers.get(key);
                    all.extend(gather.into_iter().flat_map(|gather| &gather.branches).rev().filter_map(Branch::work));
                }
            }
        }
    }

    /// The problem with the place of the first job of those that serve a request or a branch.
    pub(super) fn placed_in(&self, work: Work, problem: Problem) -> Problem {
        let mut jobs = Vec::new();
        self.jobs_of(work, &mut jobs);
        match jobs.first() {
            Some(job) => self.placed(*job, problem),
            None => problem,
        }
    }

    /// Which stages the jobs of several branches were in, in words.
    pub(super) fn where_they_were(&self, jobs: &[JobKey]) -> String {
        const NAMED: usize = 4;
        let mut names: Vec<String> = Vec::new();
        for job in jobs.iter().filter_map(|job| self.jobs.get(*job)) {
            let name = self.topology.stage(job.stage).title();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let more = if names.len() > NAMED { " and others" } else { "" };
        names.truncate(NAMED);
        format!("it was at {}{more}", names.join(", "))
    }
}
