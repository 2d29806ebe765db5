//! How workers start, what they find, and what is said when they do not.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use common::*;
use evener_supervisor::environment::worker_environment;
use evener_supervisor::{How, SpawnError};

#[tokio::test]
async fn a_worker_exits_with_its_code_and_its_lines_arrive() {
    let warden = warden();
    let process = warden.spawn(&shell("echo to out; echo to err >&2; exit 3")).await.unwrap();
    let (out, err, exit) = output(process).await;
    assert_eq!((out, err), (vec!["to out".to_owned()], vec!["to err".to_owned()]));
    assert_eq!(exit.how, How::Code(3));
    assert!(exit.peak_rss.unwrap() > 100 << 10, "{exit:?}");
    within("the end", warden.shutdown()).await;
}

#[tokio::test]
async fn the_socket_is_at_3_and_goes_both_ways() {
    let warden = warden();
    let mut process = warden.spawn(&shell("read line <&3; echo \"got $line\" >&3")).await.unwrap();
    process.socket.write_all(b"hello\n").unwrap();
    assert_eq!(exit(&mut process).await.how, How::Code(0));
    let mut answer = String::new();
    process.socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "got hello\n");
}

#[tokio::test]
async fn a_worker_has_the_descriptors_0_to_3_and_no_others() {
    // Some of this test's own, without the mark that would close them, which must not reach it.
    let (_reader, writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let warden = warden();
    let process = warden.spawn(&shell("exec sleep 1000")).await.unwrap();
    let folder = std::path::PathBuf::from(format!("/proc/{}/fd", process.id.pid()));
    // While it loads its libraries it has one more for a moment; one that leaked would stay.
    until("the descriptors to be these four", || {
        let mut open: Vec<_> =
            folder.read_dir().unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        open.sort();
        open == ["0", "1", "2", "3"]
    });
    let target = |number: &str| std::fs::read_link(folder.join(number)).unwrap().display().to_string();
    assert_eq!(target("0"), "/dev/null");
    assert!(target("1").starts_with("pipe:") && target("2").starts_with("pipe:"));
    assert!(target("3").starts_with("socket:"));
}

#[tokio::test]
async fn a_worker_sees_its_environment_and_nothing_else() {
    let warden = warden();
    let mut spawn = shell("env");
    let parent = [("PATH", "/usr/bin:/bin"), ("EVENER_TOKEN_FILE", "secret"), ("NOTIFY_SOCKET", "/x"), ("A", "b c")];
    spawn.env = worker_environment(parent.map(|(name, value)| (name.into(), value.into())));
    let (mut out, _, _) = output(warden.spawn(&spawn).await.unwrap()).await;
    out.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
    out.sort();
    assert_eq!(out, ["A=b c", "PATH=/usr/bin:/bin"]);
}

#[tokio::test]
async fn an_environment_of_half_a_mebibyte_arrives_whole() {
    let warden = warden();
    let mut spawn = shell("env | wc -c");
    let value = "x".repeat(60 << 10);
    spawn.env.extend((0..8).map(|number| (format!("LARGE_{number}").into(), value.clone().into())));
    let (out, err, exit) = output(warden.spawn(&spawn).await.unwrap()).await;
    assert_eq!((exit.how, err), (How::Code(0), vec![]));
    assert!(out[0].trim().parse::<usize>().unwrap() > 480 << 10, "{out:?}");
}

#[tokio::test]
async fn signals_are_as_a_program_expects_them() {
    let warden = warden();
    let (out, _, _) = output(warden.spawn(&shell("grep -E '^Sig(Blk|Ign)' /proc/self/status")).await.unwrap()).await;
    let mask = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask(&out[0]), 0, "none is blocked");
    // 32 and 33 are the C library's own: they stay as whoever started this test left them.
    let reserved = 0b11 << 31;
    assert_eq!(mask(&out[1]) & !reserved, 0, "none is ignored");
}

#[tokio::test]
async fn a_worker_leads_a_process_group_away_from_the_terminal() {
    let warden = warden();
    let process = warden.spawn(&shell("cut -d ' ' -f 5,6,7 /proc/$$/stat")).await.unwrap();
    let pid = process.id.pid();
    let (out, _, _) = output(process).await;
    assert_eq!(out, [format!("{pid} {} 0", warden.pid())], "group, session, terminal");
}

#[tokio::test]
async fn memory_is_limited() {
    let warden = warden();
    let mut spawn = shell("ulimit -v");
    spawn.memory = Some(512 << 20);
    let (out, _, _) = output(warden.spawn(&spawn).await.unwrap()).await;
    assert_eq!(out, [(512 << 10).to_string()]);
    let (out, _, _) = output(warden.spawn(&shell("ulimit -v")).await.unwrap()).await;
    assert_eq!(out, ["unlimited"], "the limit is the worker's, not the warden's");
}

#[tokio::test]
async fn the_folder_is_where_it_starts_and_where_relative_programs_are() {
    let place = Place::new("folder");
    std::fs::write(place.file("worker"), "#!/bin/sh\npwd\n").unwrap();
    std::fs::set_permissions(place.file("worker"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let warden = warden();
    let mut spawn = shell("");
    (spawn.program, spawn.cwd) = ("./worker".into(), place.0.clone());
    spawn.args.clear();
    let (out, _, _) = output(warden.spawn(&spawn).await.unwrap()).await;
    assert_eq!(out, [place.0.display().to_string()]);
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named() {
    let place = Place::new("unstartable");
    std::fs::write(place.file("plain"), "").unwrap();
    std::fs::write(place.file("orphan"), "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(place.file("orphan"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let warden = warden();
    for (program, part) in [
        ("no-such-program", "no such program on the PATH"),
        ("./missing", "missing does not exist"),
        ("./plain", "plain is not executable"),
        ("./orphan", "the interpreter that its first line names is not"),
        ("/tmp", "is a folder"),
    ] {
        let mut spawn = shell("");
        (spawn.program, spawn.cwd) = (program.into(), place.0.clone());
        let error = warden.spawn(&spawn).await.unwrap_err();
        assert!(matches!(error, SpawnError::Program { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot start `{program}`: ")) && text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_entered_is_named() {
    let warden = warden();
    for (folder, part) in [("/no/such/folder", "does not exist"), ("/dev/null", "is not a folder")] {
        let mut spawn = shell("true");
        spawn.cwd = folder.into();
        let error = warden.spawn(&spawn).await.unwrap_err();
        assert!(matches!(error, SpawnError::Folder { .. }), "{error:?}");
        assert!(error.to_string().contains(folder) && error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn what_no_system_takes_is_refused() {
    let warden = warden();
    let mut spawn = shell("true");
    spawn.args.push("a\0b".into());
    assert!(matches!(warden.spawn(&spawn).await, Err(SpawnError::ZeroByte("an argument"))));
    let mut spawn = shell("true");
    spawn.env.push(("LARGE".into(), "x".repeat(8 << 20).into()));
    let error = warden.spawn(&spawn).await.unwrap_err();
    assert!(matches!(error, SpawnError::System { errno: Some(libc::E2BIG), .. }), "{error:?}");
    assert!(error.to_string().contains("too large"), "{error}");
    // And the warden goes on.
    let mut process = warden.spawn(&shell("exit 4")).await.unwrap();
    assert_eq!(exit(&mut process).await.how, How::Code(4));
}

#[tokio::test]
async fn two_hundred_starts_leave_no_descriptor_behind() {
    let warden = warden();
    let mut first = warden.spawn(&shell("true")).await.unwrap();
    exit(&mut first).await;
    drop(first);
    let before = descriptors();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let warden = warden.clone();
        tasks.spawn(async move {
            let mut process = warden.spawn(&shell(&format!("exit {}", number % 100))).await.unwrap();
            (number % 100, exit(&mut process).await.how)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let (code, how) = ended.unwrap();
        assert_eq!(how, How::Code(code));
    }
    for _ in 0..20 {
        warden
            .spawn(&{
                let mut spawn = shell("");
                spawn.program = "no-such-program".into();
                spawn
            })
            .await
            .unwrap_err();
    }
    assert_eq!(descriptors(), before);
    let of_warden = std::fs::read_dir(format!("/proc/{}/fd", warden.pid())).unwrap().count();
    assert_eq!(of_warden, 6, "standard ones, the control socket, and two ends that tell of children");
}

#[test]
fn the_warden_is_only_for_a_node() {
    let output = toy("warden").stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this mode is for a node"));
    assert_eq!(output.status.signal(), None);
}
