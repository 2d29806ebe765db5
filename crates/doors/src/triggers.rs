//! The door that time opens: requests that come at intervals, at times of the day, or when the node starts and stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evener_core::{Answer, FallbackOn, Path};
use evener_protocol::{Content, Value};
use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::node::{Arrival, Node, Parcel, Ticket};

/// The clock of the day may be set; so nobody sleeps by it for longer than this before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// When a trigger fires.
#[derive(Clone, Debug)]
pub enum When {
    /// Each time that so much has passed.
    Every(Duration),
    /// At these times of the day.
    Cron(Box<Schedule>),
    /// Once, when the node starts.
    Startup,
    /// Once, when the node begins to stop.
    Shutdown,
}

/// Times of the day, in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: croner::Cron,
    zone: TimeZone,
    /// Whether it comes at intervals, which the clock of the day does not change when it is put forward or back.
    intervals: bool,
}

/// The most that a clock is put forward or back.
const LARGEST_CHANGE: SignedDuration = SignedDuration::from_hours(3);

impl Schedule {
    /// A schedule by a cron expression of five fields, or of six, of which the first is seconds. The zone is a name of the IANA
    /// database. The error says which of the two is wrong, and how.
    pub fn new(expression: &str, zone: &str) -> Result<Schedule, BadSchedule> {
        let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Optional).build();
        let cron = parser.parse(expression).map_err(|error| BadSchedule::Expression(error.to_string()))?;
        let zone = TimeZone::get(zone).map_err(|error| BadSchedule::Zone(error.to_string()))?;
        let schedule = Schedule { cron, zone, intervals: has_intervals(expression) };
        match schedule.after(Timestamp::now()) {
            Some(_) => Ok(schedule),
            None => Err(BadSchedule::Expression("it never comes".to_owned())),
        }
    }

    /// The first of its times behind `now`.
    ///
    /// Times of the day come once on each of their days: where the clocks go forward over one, it comes as much later as they do, and
    /// where they go back over one, it comes the first time alone. Intervals follow the time that passes.
    fn after(&self, now: Timestamp) -> Option<Zoned> {
        let here = now.to_zoned(self.zone.clone());
        if self.intervals {
            return self.cron.find_next_occurrence(&here, false).ok();
        }
        // Of the times on the wall, those that a change of the clocks moves may come behind later ones.
        let mut wall = here.datetime().checked_sub(LARGEST_CHANGE).ok()?;
        let mut first: Option<Zoned> = None;
        loop {
            let next = self.cron.find_next_occurrence(&wall.to_zoned(TimeZone::UTC).ok()?, false);
            let Ok(next) = next.map(|next| next.datetime()) else { return first };
            if first.as_ref().is_some_and(|first| next > first.datetime()) {
                return first;
            }
            let comes = self.zone.to_ambiguous_zoned(next).compatible().ok()?;
            if comes.timestamp() > now && first.as_ref().is_none_or(|first| comes < *first) {
                first = Some(comes);
            }
            wall = next;
        }
    }
}

/// Whether a cron expression says for any minute or any hour that it comes, or in which steps: its times are then no times of the day.
fn has_intervals(expression: &str) -> bool {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let any = |field: &&str| field.contains(['*', '?']);
    match fields[..] {
        [name] => name.eq_ignore_ascii_case("@hourly"),
        [minutes, hours, _, _, _] => any(&minutes) || any(&hours),
        [_, minutes, hours, ..] => any(&minutes) || any(&hours),
        _ => false,
    }
}

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// The expression means nothing, or no time at all.
    #[error("{0}")]
    Expression(String),
    /// There is no such time zone.
    #[error("{0}")]
    Zone(String),
}

/// What happens when a trigger fires while the last request that it made is still on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing; that is noted.
    Skip,
    /// Another request is made.
    Run,
}

/// One trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// Its name, for the log.
    pub name: String,
    /// When it fires.
    pub when: When,
    /// Where its requests go.
    pub target: Path,
    /// Their value: JSON.
    pub input: Bytes,
    /// How long each may take.
    pub timeout: Duration,
    /// The priority of their jobs.
    pub priority: i8,
    /// Where a request goes instead of failing.
    pub on_error: Option<Path>,
    /// What happens when one is still on its way.
    pub overlap: Overlap,
}

/// All triggers of a node.
pub struct TriggerDoor<N> {
    node: Arc<N>,
    triggers: Vec<Trigger>,
    /// How many requests of each are on their way, by its name.
    under_way: HashMap<String, UnderWay>,
}

/// How many requests of a trigger are on their way.
type UnderWay = Arc<AtomicUsize>;

/// One request of them.
struct Counted(UnderWay);

impl Counted {
    fn new(all: &UnderWay) -> Counted {
        all.fetch_add(1, Ordering::Relaxed);
        Counted(all.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<N: Node> TriggerDoor<N> {
    /// A door with those triggers.
    pub fn new(node: Arc<N>, triggers: Vec<Trigger>) -> TriggerDoor<N> {
        let under_way = triggers.iter().map(|trigger| (trigger.name.clone(), UnderWay::default())).collect();
        TriggerDoor { node, triggers, under_way }
    }

    /// A door with others in their place. It knows of the requests that those of the same names have on their way.
    #[must_use]
    pub fn followed_by(&self, triggers: Vec<Trigger>) -> TriggerDoor<N> {
        let known = |name: &str| self.under_way.get(name).cloned().unwrap_or_default();
        let under_way = triggers.iter().map(|trigger| (trigger.name.clone(), known(&trigger.name))).collect();
        TriggerDoor { node: self.node.clone(), triggers, under_way }
    }

    /// Lets the triggers fire until `stop` turns true; requests that are on their way then are left to the drain.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for trigger in self.triggers.iter().filter(|trigger| !matches!(trigger.when, When::Shutdown)) {
            let under_way = self.under_way.get(&trigger.name).cloned().unwrap_or_default();
            let (node, trigger, stop) = (self.node.clone(), trigger.clone(), stop.clone());
            let clock = Clockwork { node, trigger, stop, under_way };
            tasks.spawn(clock.run());
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Makes the requests of those that fire when the node stops. They are let in when this is polled first.
    pub async fn fire_shutdown(&self) {
        let mut requests = JoinSet::new();
        let mut first = Vec::new();
        for trigger in self.triggers.iter().filter(|trigger| matches!(trigger.when, When::Shutdown)) {
            let (node, trigger) = (self.node.clone(), trigger.clone());
            first.push(Box::pin(async move { fire(&*node, &trigger).await }));
        }
        // Polled here once, so that all are in before whoever waits for this goes on.
        for mut request in first {
            if std::future::poll_fn(|cx| std::task::Poll::Ready(request.as_mut().poll(cx))).await.is_pending() {
                requests.spawn(request);
            }
        }
        while requests.join_next().await.is_some() {}
    }
}

async fn fire<N: Node>(node: &N, trigger: &Trigger) {
    tracing::debug!(trigger = trigger.name, "fires");
    let ticket = Ticket {
        id: node.new_id(),
        path: trigger.target,
        parcel: Parcel { value: Value { content: Content::Json, bytes: trigger.input.clone() }, held: None },
        timeout: trigger.timeout,
        fallback_on: FallbackOn::default(),
        as_request: false,
        priority: trigger.priority,
        flow: 0,
        streams: false,
        on_error: trigger.on_error,
        origin: None,
    };
    let id = ticket.id;
    // What became of it is in the log and in the metrics, as of any request; only which trigger it was is not.
    if let Arrival::Answer(Answer::Problem(problem)) = node.submit(ticket).await {
        tracing::warn!(trigger = trigger.name, request_id = %id, code = problem.code.name(), "the request has failed");
    }
}

/// One trigger at work.
struct Clockwork<N> {
    node: Arc<N>,
    trigger: Trigger,
    stop: watch::Receiver<bool>,
    under_way: UnderWay,
}

impl<N: Node> Clockwork<N> {
    async fn run(mut self) {
        match self.trigger.when.clone() {
            When::Startup => fire(&*self.node, &self.trigger).await,
            When::Shutdown => {}
            When::Every(interval) => self.every(interval).await,
            When::Cron(schedule) => self.cron(&schedule).await,
        }
    }

    /// At each multiple of the interval; those that pass meanwhile are not made up for.
    async fn every(&mut self, interval: Duration) {
        let mut next = Instant::now() + interval;
        while self.until(next).await {
            self.request();
            let late = Instant::now().saturating_duration_since(next);
            let missed = u32::try_from(late.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u32::MAX);
            next += interval.saturating_mul(missed.saturating_add(1));
        }
    }

    async fn cron(&mut self, schedule: &Schedule) {
        let mut last = Timestamp::now();
        while let Some(next) = schedule.after(last) {
            loop {
                let left = Duration::try_from(next.timestamp().duration_since(Timestamp::now())).unwrap_or_default();
                if !self.until(Instant::now() + left.min(LOOK_AGAIN)).await {
                    return;
                }
                if left <= LOOK_AGAIN && Timestamp::now() >= next.timestamp() {
                    break;
                }
            }
            self.request();
            // The clock may run a little behind what a timer makes of it. If it was set back since, it is as late as it says.
            let now = Timestamp::now();
            let ahead = Duration::try_from(next.timestamp().duration_since(now)).unwrap_or_default();
            last = if ahead < LOOK_AGAIN { now.max(next.timestamp()) } else { now };
        }
        tracing::warn!(trigger = self.trigger.name, "has no more times to fire at");
    }

    /// Makes a request, unless the last is still on its way and that matters.
    fn request(&self) {
        if self.trigger.overlap == Overlap::Skip && self.under_way.load(Ordering::Relaxed) > 0 {
            tracing::warn!(trigger = self.trigger.name, "did not fire: its last request is still on its way");
            return;
        }
        let (node, trigger, counted) = (self.node.clone(), self.trigger.clone(), Counted::new(&self.under_way));
        tokio::spawn(async move {
            fire(&*node, &trigger).await;
            drop(counted);
        });
    }

    /// Waits until then. False if the node stops first.
    async fn until(&mut self, then: Instant) -> bool {
        tokio::select! {
            () = tokio::time::sleep_until(then) => true,
            _ = self.stop.wait_for(|stop| *stop) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, zone: &str, now: &str) -> String {
        let schedule = Schedule::new(expression, zone).expect("a schedule");
        let now: Timestamp = now.parse().expect("a time");
        schedule.after(now).expect("it comes").timestamp().to_string()
    }

    #[test]
    fn times_are_of_the_zone_and_leap_with_it() {
        assert_eq!(next("0 3 * * *", "UTC", "2026-11-24T03:00:00Z"), "2026-11-25T03:00:00Z");
        assert_eq!(next("0 3 * * *", "Europe/Berlin", "2026-11-24T00:00:00Z"), "2026-11-24T02:00:00Z");
        // The night in which the clocks go forward, and the hour of that time does not come.
        let leapt = next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z");
        assert_eq!(leapt, "2026-03-29T01:30:00Z");
        assert_eq!(next("*/15 * * * * *", "UTC", "2026-11-24T03:00:01Z"), "2026-11-24T03:00:15Z");
        assert_eq!(next("0 0 29 2 *", "UTC", "2026-11-24T00:00:00Z"), "2028-02-29T00:00:00Z");
    }

    /// All times between two.
    fn times(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let schedule = Schedule::new(expression, zone).expect("a schedule");
        let (mut now, end): (Timestamp, Timestamp) = (from.parse().expect("a time"), to.parse().expect("a time"));
        let mut all = Vec::new();
        while let Some(next) = schedule.after(now).filter(|next| next.timestamp() < end) {
            now = next.timestamp();
            all.push(now.to_string());
        }
        all
    }

    #[test]
    fn where_the_clocks_go_forward_each_time_comes_once() {
        let night = |expression| times(expression, "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T20:00:00Z");
        assert_eq!(night("30 2 * * *"), ["2026-03-29T01:30:00Z"]);
        assert_eq!(night("30 2,14 * * *"), ["2026-03-29T01:30:00Z", "2026-03-29T12:30:00Z"]);
        assert_eq!(night("15,45 2 * * *"), ["2026-03-29T01:15:00Z", "2026-03-29T01:45:00Z"]);
        assert_eq!(night("5,45 2-3 * * *"), ["2026-03-29T01:05:00Z", "2026-03-29T01:45:00Z"]);
        assert_eq!(night("0 1 * * *"), ["2026-03-29T00:00:00Z"]);
        assert_eq!(night("0 3 * * *"), ["2026-03-29T01:00:00Z"]);
        assert_eq!(night("0 */6 * * *").len(), 3);
        let new_york = times("30 2 * * *", "America/New_York", "2026-03-08T00:00:00Z", "2026-03-09T00:00:00Z");
        assert_eq!(new_york, ["2026-03-08T07:30:00Z"]);
        // Half an hour.
        let lord_howe = times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00:00Z", "2026-10-04T10:00:00Z");
        assert_eq!(lord_howe, ["2026-10-03T15:45:00Z"]);
    }

    #[test]
    fn where_the_clocks_go_back_each_time_comes_once() {
        let night = |expression| times(expression, "Europe/Berlin", "2026-10-24T20:00:00Z", "2026-10-25T20:00:00Z");
        assert_eq!(night("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
        assert_eq!(night("30 2,14 * * *"), ["2026-10-25T00:30:00Z", "2026-10-25T13:30:00Z"]);
        assert_eq!(night("15,45 2 * * *"), ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z"]);
        assert_eq!(night("30 3 * * *"), ["2026-10-25T02:30:00Z"]);
        // A node that starts in the second of the two hours has missed it.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z"), "2026-10-26T01:30:00Z");
        let lord_howe = times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T10:00:00Z", "2026-04-05T10:00:00Z");
        assert_eq!(lord_howe, ["2026-04-04T14:45:00Z"]);
    }

    #[test]
    fn intervals_follow_the_time_that_passes() {
        let hours = |from, to| times("0 * * * *", "Europe/Berlin", from, to).len();
        assert_eq!(hours("2026-03-28T22:30:00Z", "2026-03-29T04:30:00Z"), 6);
        assert_eq!(hours("2026-10-24T22:30:00Z", "2026-10-25T04:30:00Z"), 6);
        let quarters = times("*/15 * * * *", "Europe/Berlin", "2026-10-24T23:50:00Z", "2026-10-25T02:10:00Z");
        assert_eq!(quarters.len(), 9);
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        assert!(matches!(Schedule::new("61 * * * *", "UTC"), Err(BadSchedule::Expression(_))));
        assert!(matches!(Schedule::new("every day", "UTC"), Err(BadSchedule::Expression(_))));
        assert!(matches!(Schedule::new("0 0 30 2 *", "UTC"), Err(BadSchedule::Expression(_))));
        assert!(matches!(Schedule::new("0 3 * * *", "Mars/Olympus"), Err(BadSchedule::Zone(_))));
    }
}
