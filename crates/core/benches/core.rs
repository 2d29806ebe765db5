//! What a job costs in the core, with nothing and with a million jobs in the queue, and what a timer costs.
// A benchmark reads a clock.
#![allow(missing_docs, unreachable_pub, clippy::disallowed_types, clippy::disallowed_methods)]

mod service;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use evener_core::timers::Timers;
use evener_core::{RequestKey, Time};
use service::Service;

const MILLION: usize = 1_000_000;

/// A service with a million jobs in its first queue.
fn loaded(stages: usize) -> Service {
    let mut service = Service::of(stages).with_workers();
    (0..=MILLION).for_each(|_| _ = service.submit());
    assert_eq!(service.core.counts(evener_core::StageId(0)).queued, MILLION);
    service
}

/// The same, after each of them has been cancelled and replaced in random order: neighbours in the queue are strangers
/// in memory.
fn shuffled(stages: usize) -> Service {
    let mut service = Service::of(stages).with_workers();
    let mut keys: Vec<RequestKey> = (0..=MILLION).map(|_| service.submit()).skip(1).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut keys);
    for key in keys {
        service.cancel(key);
        service.submit();
    }
    service
}

type Maker = fn(usize) -> Service;

/// From submit to answer; one request comes in and one is done, each time.
fn per_job(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("job");
    for stages in [1, 3] {
        let makers: [(&str, Maker); 3] = [
            ("empty queue", |stages| Service::of(stages).with_workers()),
            ("1,000,000 queued", loaded),
            ("1,000,000 queued, shuffled", shuffled),
        ];
        for (name, maker) in makers {
            let mut service = maker(stages);
            group.bench_function(format!("{stages} stages, {name}"), |bencher| {
                bencher.iter(|| {
                    service.submit();
                    service.work();
                });
            });
            black_box(service.answers);
        }
    }
    group.finish();
}

/// The same with a quick function, whose workers have jobs ahead: half as many as they take, and about all.
fn ahead(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("job ahead");
    for workers in [1, 4, 32, 1_000] {
        let all = workers as usize * 17;
        for (name, in_flight) in [("room", all / 2), ("no room", all + 1_000)] {
            let mut service = Service::quick(workers, in_flight);
            assert!(service.handed_out() >= all / 2);
            group.bench_function(format!("{workers} workers, {name}"), |bencher| {
                bencher.iter(|| {
                    service.submit();
                    service.work();
                });
            });
            black_box(service.answers);
        }
    }
    group.finish();
}

/// Takes jobs out of the middle of a million that wait, in random order, and puts others in behind, which is not timed.
fn cancel(criterion: &mut Criterion) {
    let mut service = Service::of(1);
    let mut keys: Vec<RequestKey> = (0..MILLION).map(|_| service.submit()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    criterion.bench_function("cancel, 1,000,000 queued", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            let mut left = iterations as usize;
            while left > 0 {
                let chunk = left.min(MILLION / 10);
                left -= chunk;
                random.shuffle(&mut keys);
                let start = Instant::now();
                keys.drain(MILLION - chunk..).for_each(|key| service.cancel(key));
                spent += start.elapsed();
                keys.extend((0..chunk).map(|_| service.submit()));
            }
            spent
        });
    });
}

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer");
    let ahead = |random: &mut fastrand::Rng| Duration::from_nanos(random.u64(0..60_000_000_000));
    for set in [0, MILLION] {
        let mut random = fastrand::Rng::with_seed(1);
        let mut timers = Timers::default();
        (0..set).for_each(|what| _ = timers.set(Time::ZERO + ahead(&mut random), what));
        group.bench_function(format!("set and clear, {set} set"), |bencher| {
            bencher.iter(|| {
                let key = timers.set(Time::ZERO + ahead(&mut random), 0);
                black_box(timers.clear(key))
            });
        });
        let mut now = Time::ZERO;
        group.bench_function(format!("fire and set again, {set} set"), |bencher| {
            bencher.iter(|| {
                while timers.pop(now).is_none() {
                    match timers.next() {
                        Some(next) => now = next,
                        None => _ = timers.set(now, 0),
                    }
                }
                timers.set(now + ahead(&mut random), 0)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, per_job, ahead, cancel, timers);
criterion_main!(benches);
