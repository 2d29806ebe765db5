//! Processes for one job: what they read and print, and how they end.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use evener_supervisor::command::{Ask, Bounds, Done, Follow, Unkept, run};
use evener_supervisor::{How, SpawnError, Warden};
use tokio::sync::watch;

const BOUNDS: Bounds = Bounds { output: 1 << 20, grace: DEADLINE };

/// Writes down what it hears.
#[derive(Default)]
struct Follower {
    lines: Vec<String>,
    most: usize,
    /// How many bytes it has room for, if that is bounded.
    room: Option<usize>,
}

impl Follow for Follower {
    fn said(&mut self, pid: u32, line: &str) {
        assert_ne!(pid, 0);
        self.lines.push(line.to_owned());
    }

    fn holds(&mut self, bytes: usize) -> bool {
        self.most = self.most.max(bytes);
        bytes <= self.room.unwrap_or(usize::MAX)
    }
}

async fn perform(warden: &Warden, script: &str, input: &[u8], bounds: Bounds, asked: Ask) -> (Done, Vec<String>) {
    let (_asks, mut asked) = watch::channel(asked);
    let mut follower = Follower::default();
    let spawn = shell(script);
    let done = run(warden, &spawn, input, bounds, &mut asked, &mut follower);
    let done = within("its end", done).await.unwrap();
    assert!(follower.most >= done.output.as_ref().map_or(bounds.output, Vec::len));
    assert!(follower.most <= 2 * bounds.output + (64 << 10), "{}", follower.most);
    (done, follower.lines)
}

#[tokio::test]
async fn what_goes_in_comes_out() {
    let warden = warden();
    let (done, _) = perform(&warden, "cat; exit 0", b"\x00text\n", BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output.as_deref()), (How::Code(0), Ok(&b"\x00text\n"[..])));
    let (done, _) = perform(&warden, "cat", b"", BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output.as_deref()), (How::Code(0), Ok(&b""[..])));
    let large = vec![7; 900 << 10];
    let (done, _) = perform(&warden, "cat", &large, BOUNDS, Ask::Nothing).await;
    assert!(done.output.as_deref() == Ok(&large[..]), "all of it, and as it was");
}

#[tokio::test]
async fn what_there_is_no_memory_for_is_not_kept() {
    let warden = warden();
    let (_asks, mut asked) = watch::channel(Ask::Nothing);
    let mut follower = Follower { room: Some(100 << 10), ..Follower::default() };
    let spawn = shell("head -c 900000 /dev/zero; sleep 1000");
    let done = within("its end", run(&warden, &spawn, b"", BOUNDS, &mut asked, &mut follower)).await.unwrap();
    assert_eq!((done.how, done.output), (How::Signal(9), Err(Unkept::NoRoom)));
    assert!(follower.most < 400 << 10, "{}", follower.most);
}

#[tokio::test]
async fn it_has_three_descriptors_and_its_own_group() {
    let warden = warden();
    let script =
        "readlink /proc/$$/fd/0; test -e /proc/$$/fd/3 || echo no more; ps -o pgid= -p $$ | grep -qw $$ && echo leads";
    let (done, _) = perform(&warden, script, b"", BOUNDS, Ask::Nothing).await;
    let output = String::from_utf8(done.output.unwrap()).unwrap();
    assert!(output.starts_with("pipe:") && output.ends_with("no more\nleads\n"), "{output}");
}

#[tokio::test]
async fn one_that_does_not_read_is_not_waited_for() {
    let warden = warden();
    let (done, _) = perform(&warden, "echo fine", &vec![0; 4 << 20], BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output.as_deref()), (How::Code(0), Ok(&b"fine\n"[..])));
    let (done, _) = perform(&warden, "exec 0<&-; sleep 0.05; echo on", &vec![0; 4 << 20], BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output.as_deref()), (How::Code(0), Ok(&b"on\n"[..])));
}

#[tokio::test]
async fn its_last_lines_are_kept_and_all_are_told() {
    let warden = warden();
    let script = "i=0; while [ $i -lt 50 ]; do echo line $i >&2; i=$((i+1)); done; printf end >&2; exit 3";
    let (done, lines) = perform(&warden, script, b"", BOUNDS, Ask::Nothing).await;
    assert_eq!(done.how, How::Code(3));
    assert_eq!((lines.len(), lines[0].as_str(), lines[50].as_str()), (51, "line 0", "end"));
    assert_eq!(done.stderr, lines[lines.len() - done.stderr.len()..]);
    assert_eq!(done.stderr.len(), evener_supervisor::output::TAIL_LINES);
}

#[tokio::test]
async fn one_that_prints_too_much_is_killed() {
    let warden = warden();
    for script in ["yes", "trap '' TERM; yes", "head -c 1048577 /dev/zero; sleep 1000"] {
        let (done, _) = perform(&warden, script, b"", BOUNDS, Ask::Nothing).await;
        assert_eq!((done.how, done.output), (How::Signal(9), Err(Unkept::TooMuch)), "{script}");
    }
    let (done, _) = perform(&warden, "head -c 1048576 /dev/zero", b"", BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output.map(|output| output.len())), (How::Code(0), Ok(1 << 20)));
    let (done, _) = perform(&warden, "yes >&2 & yes >&2 & sleep 0.05", b"", BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output), (How::Code(0), Ok(vec![])), "what is on standard error is not counted");
}

#[tokio::test]
async fn who_is_asked_to_end_has_its_grace() {
    let warden = warden();
    let (done, _) = perform(&warden, "sleep 1000", b"", BOUNDS, Ask::End(Instant::now())).await;
    assert_eq!(done.how, How::Signal(15));
    let polite = "trap 'echo bye; exit 4' TERM; while :; do sleep 0.01; done";
    // By then it has set its trap.
    let later = Instant::now() + Duration::from_millis(300);
    let (done, _) = perform(&warden, polite, b"", BOUNDS, Ask::End(later)).await;
    assert_eq!((done.how, done.output.as_deref()), (How::Code(4), Ok(&b"bye\n"[..])));
    assert!(Instant::now() >= later, "it was asked in time, and not before");
    let short = Bounds { grace: Duration::from_millis(50), ..BOUNDS };
    let deaf = "trap '' TERM; while :; do sleep 0.01; done";
    let (done, _) = perform(&warden, deaf, b"", short, Ask::End(Instant::now() + Duration::from_millis(300))).await;
    assert_eq!(done.how, How::Signal(9));
    let (done, _) = perform(&warden, deaf, b"", BOUNDS, Ask::Kill).await;
    assert_eq!(done.how, How::Signal(9));
}

#[tokio::test]
async fn what_has_left_its_group_is_not_waited_for() {
    let warden = warden();
    let (done, _) = perform(&warden, "setsid sleep 1000 & echo gone", b"", BOUNDS, Ask::Nothing).await;
    assert_eq!((done.how, done.output.as_deref()), (How::Code(0), Ok(&b"gone\n"[..])));
    within("the end", warden.shutdown()).await;
}

#[tokio::test]
async fn one_that_is_dropped_is_killed() {
    let warden = warden();
    let place = Place::new("dropped");
    let file = place.0.join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
    let (_asks, mut asked) = watch::channel(Ask::Nothing);
    let spawn = shell(&script);
    let mut follower = Follower::default();
    {
        let running = run(&warden, &spawn, b"", BOUNDS, &mut asked, &mut follower);
        let started = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = running => panic!("it ended by itself"),
            () = within("its start", started) => {}
        }
    }
    let pid: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    within("its end", async {
        while runs(pid) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_that_cannot_start_says_why() {
    let warden = warden();
    let mut spawn = shell("");
    spawn.program = "no-such-program-anywhere".into();
    let mut follower = Follower::default();
    let (_asks, mut asked) = watch::channel(Ask::Nothing);
    let error = run(&warden, &spawn, b"", BOUNDS, &mut asked, &mut follower).await.unwrap_err();
    assert!(matches!(&error, SpawnError::Program { reason } if reason.contains("no such program")), "{error}");
}

#[tokio::test]
async fn nobody_sees_the_end_when_the_warden_dies() {
    let warden = warden();
    let pid = rustix::process::Pid::from_raw(i32::try_from(warden.pid()).unwrap()).unwrap();
    let kill = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let ((done, _), ()) = tokio::join!(perform(&warden, "sleep 1000", b"", BOUNDS, Ask::Nothing), kill);
    assert_eq!(done.how, How::Unknown);
}
