//! What the tests of the supervisor start.
//!
//! - `warden`: is a warden.
//! - `node SCRIPT…`: is a node. It runs each script in a shell as a worker, says `ready`, and waits
//!   to be killed.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use evener_supervisor::environment::worker_environment;
use evener_supervisor::warden::{self, Spawn, Warden};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|mode| mode.to_str()) {
        Some("warden") => warden::serve(),
        Some("node") => node(args.collect()),
        mode => {
            eprintln!("no such mode: {mode:?}");
            ExitCode::from(2)
        }
    }
}

fn node(scripts: Vec<OsString>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("warden");
        let warden = Warden::start(command).expect("a warden");
        let mut workers = Vec::new();
        for script in scripts {
            let spawn = Spawn {
                program: "sh".into(),
                args: vec!["-c".into(), script],
                env: worker_environment(std::env::vars_os()),
                cwd: "/".into(),
                memory: None,
            };
            workers.push(warden.spawn(&spawn).await.expect("a worker"));
        }
        println!("ready {}", warden.pid());
        warden.closed().await;
    });
    ExitCode::SUCCESS
}
