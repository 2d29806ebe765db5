//! How workers end, and that all of them do.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::*;
use evener_supervisor::{Exit, How, Signal, SpawnError, Target};
use rustix::process::{Pid, kill_process};

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL).unwrap();
}

/// A script that starts a child in its group and one that has left it, writes all three numbers
/// into files, and stays.
fn family(place: &Place, name: &str) -> String {
    let file = |who: &str| place.file(&format!("{name}-{who}")).display().to_string();
    format!(
        "sleep 1000 & echo $! > {}; setsid sleep 1000 & echo $! > {}; echo $$ > {}; wait",
        file("child"),
        file("runaway"),
        file("worker"),
    )
}

fn members(place: &Place, name: &str) -> [u32; 3] {
    let members = ["worker", "child", "runaway"].map(|who| place.number(&format!("{name}-{who}")));
    until("the runaway to leave the group", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", members[2])).unwrap();
        stat.split(' ').nth(4) == Some(&members[2].to_string())
    });
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn signals_reach_the_process_or_its_group() {
    let warden = warden();
    for (signal, number) in [(Signal::Terminate, 15), (Signal::Kill, 9), (Signal::Interrupt, 2)] {
        let mut process = warden.spawn(&shell("exec sleep 1000")).await.unwrap();
        warden.signal(process.id, signal, Target::Process);
        assert_eq!(exit(&mut process).await.how, How::Signal(number));
    }
    let place = Place::new("group");
    let mut process = warden.spawn(&shell(&family(&place, "a"))).await.unwrap();
    let [worker, child, _] = members(&place, "a");
    assert_eq!(worker, process.id.pid());
    warden.signal(process.id, Signal::Stop, Target::Group);
    let stopped = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
    until("the group to stop", || stopped(worker) && stopped(child));
    warden.signal(process.id, Signal::Continue, Target::Group);
    until("the group to go on", || !stopped(worker) && !stopped(child));
    warden.signal(process.id, Signal::Terminate, Target::Group);
    assert_eq!(exit(&mut process).await.how, How::Signal(15));
    until("the child to end", || !runs(child));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_signal_to_a_process_that_has_ended_goes_nowhere() {
    let warden = warden();
    let mut ended = warden.spawn(&shell("true")).await.unwrap();
    let mut other = warden.spawn(&shell("read line <&3; exit 5")).await.unwrap();
    exit(&mut ended).await;
    for target in [Target::Process, Target::Group] {
        warden.signal(ended.id, Signal::Kill, target);
    }
    let mut next = warden.spawn(&shell("exit 6")).await.unwrap();
    assert_eq!(exit(&mut next).await.how, How::Code(6));
    other.socket.write_all(b"\n").unwrap();
    assert_eq!(exit(&mut other).await.how, How::Code(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_dead_worker_started_dies_with_it() {
    let warden = warden();
    let place = Place::new("orphans");
    let mut process = warden.spawn(&shell(&family(&place, "a"))).await.unwrap();
    let [worker, child, runaway] = members(&place, "a");
    kill(worker);
    assert_eq!(exit(&mut process).await.how, How::Signal(9));
    until("the child to end", || !runs(child));
    assert!(runs(runaway), "what left the group lives as long as the node");
    within("the end", warden.shutdown()).await;
    assert!(!runs(runaway));
    assert!(!runs(warden.pid()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn orphans_that_end_leave_no_trace() {
    let warden = warden();
    let place = Place::new("adopted");
    let file = place.file("pid");
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & wait $!", file.display());
    let mut process = warden.spawn(&shell(&script)).await.unwrap();
    let runaway = place.number("pid");
    warden.signal(process.id, Signal::Kill, Target::Group);
    exit(&mut process).await;
    until("it to be adopted", || children(warden.pid()) == [runaway]);
    kill(runaway);
    until("it to be reaped", || children(warden.pid()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn shutdown_ends_all_and_says_how() {
    let warden = warden();
    let place = Place::new("shutdown");
    let mut first = warden.spawn(&shell(&family(&place, "a"))).await.unwrap();
    let mut second = warden.spawn(&shell("trap '' TERM HUP INT; read line <&3; sleep 1000")).await.unwrap();
    let family = members(&place, "a");
    within("the end", warden.shutdown()).await;
    assert!(!family.into_iter().any(runs));
    // By now both are resolved, and nobody has to wait.
    assert_eq!(first.exit.try_recv().unwrap().how, How::Signal(9));
    assert_eq!(second.exit.try_recv().unwrap().how, How::Signal(9));
    within("closed", warden.closed()).await;
    assert!(matches!(warden.spawn(&shell("true")).await, Err(SpawnError::WardenGone)));
    warden.signal(first.id, Signal::Kill, Target::Group);
    within("a second shutdown", warden.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn everything_ends_when_the_last_handle_is_dropped() {
    let warden = warden();
    let place = Place::new("dropped");
    let process = warden.spawn(&shell(&family(&place, "a"))).await.unwrap();
    let family = members(&place, "a");
    let (pid, other) = (warden.pid(), warden.clone());
    drop(warden);
    assert!(family.into_iter().all(runs), "one handle is left");
    drop(other);
    within("an exit", process.exit).await.unwrap();
    until("all to end", || !family.into_iter().any(runs) && !runs(pid));
}

#[test]
fn everything_ends_with_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let place = Place::new("runtime");
    let (warden, process) = runtime.block_on(async {
        let warden = warden();
        let process = warden.spawn(&shell(&family(&place, "a"))).await.unwrap();
        (warden, process)
    });
    let family = members(&place, "a");
    drop(runtime);
    until("all to end", || !family.into_iter().any(runs) && !runs(warden.pid()));
    drop(process);
}

#[test]
fn nobody_outlives_a_node_that_is_killed() {
    for round in 0..5 {
        let place = Place::new(&format!("killed-{round}"));
        let mut node = toy("node")
            .args(["a", "b", "c"].map(|name| family(&place, name)))
            // A worker that does not listen to anybody, and one that is not even there.
            .args(["trap '' TERM HUP INT; while :; do sleep 1000; done", "kill -STOP $$"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let warden: u32 = line.trim().strip_prefix("ready ").unwrap().parse().unwrap();
        let mut all: Vec<u32> = ["a", "b", "c"].iter().flat_map(|name| members(&place, name)).collect();
        all.push(warden);
        all.extend(children(warden));
        assert!(all.iter().all(|&pid| runs(pid)));
        let start = Instant::now();
        node.kill().unwrap();
        node.wait().unwrap();
        until("all to end", || !all.iter().any(|&pid| runs(pid)));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_terminal_that_interrupts_does_not_end_the_warden() {
    let warden = warden();
    let mut process = warden.spawn(&shell("read line <&3; exit 7")).await.unwrap();
    let pid = Pid::from_raw(warden.pid() as i32).unwrap();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::HUP, rustix::process::Signal::TERM] {
        kill_process(pid, signal).unwrap();
    }
    process.socket.write_all(b"\n").unwrap();
    assert_eq!(exit(&mut process).await.how, How::Code(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn workers_die_with_a_warden_that_is_killed_and_a_new_one_can_start() {
    let warden = warden();
    let place = Place::new("warden-killed");
    let processes = [
        warden.spawn(&shell("exec sleep 1000")).await.unwrap(),
        warden.spawn(&shell(&family(&place, "a"))).await.unwrap(),
    ];
    let [_, child, runaway] = members(&place, "a");
    let closed = tokio::spawn({
        let warden = warden.clone();
        async move { warden.closed().await }
    });
    kill(warden.pid());
    within("closed", closed).await.unwrap();
    for mut process in processes {
        assert_eq!(process.exit.try_recv().unwrap(), Exit::unknown());
        until("a worker to die", || !runs(process.id.pid()));
    }
    until("its child to die", || !runs(child));
    kill(runaway);
    assert!(matches!(warden.spawn(&shell("true")).await, Err(SpawnError::WardenGone)));
    within("the end", warden.shutdown()).await;
    let next = common::warden();
    let mut process = next.spawn(&shell("exit 8")).await.unwrap();
    assert_eq!(exit(&mut process).await.how, How::Code(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_start_that_nobody_waits_for_any_more_is_undone() {
    let warden = warden();
    let mut kept = Vec::new();
    for wait in 0..20 {
        let spawn = shell("exec sleep 1000");
        let start = warden.spawn(&spawn);
        if let Ok(started) = tokio::time::timeout(Duration::from_micros(wait * 100), start).await {
            kept.push(started.unwrap());
        }
    }
    // The runtime has to run meanwhile: it is the node that undoes them.
    within("the end of all others", async {
        while children(warden.pid()).len() != kept.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(kept.iter().all(|process| runs(process.id.pid())));
    let mut last = warden.spawn(&shell("exit 9")).await.unwrap();
    assert_eq!(exit(&mut last).await.how, How::Code(9));
    within("the end", warden.shutdown()).await;
}

#[test]
fn a_warden_that_hears_nonsense_kills_all_and_fails() {
    for nonsense in [&b"\xff\xff\xff\xffnonsense"[..], b"\x02\x00\x00\x00{}", &spawn_without_descriptors()] {
        let (mut control, theirs) = UnixStream::pair().unwrap();
        let mut warden = toy("warden").stdin(OwnedFd::from(theirs)).stderr(Stdio::piped()).spawn().unwrap();
        control.write_all(nonsense).unwrap();
        let mut rest = Vec::new();
        let _ = control.read_to_end(&mut rest);
        assert_eq!(warden.wait().unwrap().code(), Some(1));
        let text = read_all(OwnedFd::from(warden.stderr.take().unwrap()));
        assert!(text.contains("its node sent"), "{text}");
    }
}

fn spawn_without_descriptors() -> Vec<u8> {
    let json = br#"{"Spawn":{"id":1,"program":"true","args":[],"env":[],"cwd":"/","memory":null,"stdin":false}}"#;
    [&(json.len() as u32).to_le_bytes()[..], json].concat()
}
