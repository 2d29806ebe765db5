//! `evener up --private`: the engine that belongs to one Python script.
//!
//! The Python package starts it, and says on standard input what it needs. It has one function pool, listens on a Unix
//! socket alone, and ends at once when the script ends, however that comes about. It is no command for people, so clap
//! does not know it.

use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use evener_engine::config::{Service, Workers};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::BAD_CONFIGURATION;
use crate::log::Format;
use crate::parent::Parent;
use crate::up::{announce, ignores_hang_up, on_runtime, say, workers};

/// The most bytes of the line on standard input.
const LONGEST: u64 = 16 << 20;

/// How long a worker that is told to stop has before SIGTERM. Nobody can set it, and there are few workers to wait for one of them.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) fn run() -> ExitCode {
    let guard = crate::log::start(Format::Text, "error");
    let result = on_runtime(serve());
    drop(guard);
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn serve() -> anyhow::Result<ExitCode> {
    // Before anything else: whoever started this by hand, or in the script's own process group, has Ctrl-C sent to both alike, and
    // the script decides.
    let mut signals = Signals::listen().context("signals cannot be caught")?;
    let script = match Script::read() {
        Ok(script) => script,
        Err(why) => {
            eprintln!("error: `evener up --private` is for the Python package, and what it was told is wrong: {why}");
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
    };
    let Some(parent) = Parent::watch(script.parent) else {
        // It has ended by now, or something stands between it and this process.
        anyhow::ensure!(
            test_kill_process(script.parent) == Err(Errno::SRCH),
            "process {} has not started this one itself, so its end would not be noticed",
            script.parent.as_raw_pid()
        );
        return Ok(ExitCode::SUCCESS);
    };
    let folder = std::env::current_dir().context("the working directory is not known")?;
    let running = evener_engine::start(script.service(folder), evener_engine::this_program).await?;
    announce(&running)?;
    let tell_ready = async {
        running.node().ready().await;
        // Perhaps nobody reads any more: the script knows all that it needs.
        let _ = say("ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = tell_ready => {}
        () = parent.ended() => {}
        () = signals.terminated() => {}
    }
    running.end().await;
    Ok(ExitCode::SUCCESS)
}

/// What a script wants of its engine.
#[derive(Debug)]
struct Script {
    executable: PathBuf,
    path: Vec<PathBuf>,
    workers: Workers,
    /// The script's process, which has started this one.
    parent: Pid,
}

/// The same as it is told: one line of JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    /// `sys.executable`.
    executable: String,
    /// `sys.path`.
    path: Vec<Folder>,
    workers: Option<u32>,
    parent: i32,
}

/// A folder, as text or, where it is none in UTF-8, as bytes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Folder {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl From<Folder> for PathBuf {
    fn from(folder: Folder) -> PathBuf {
        match folder {
            Folder::Text(text) => text.into(),
            Folder::Bytes { bytes } => OsString::from_vec(bytes).into(),
        }
    }
}

impl Script {
    /// Reads it from standard input, or says what is wrong there.
    fn read() -> Result<Self, String> {
        let mut line = Vec::new();
        let mut input = std::io::stdin().lock().take(LONGEST);
        input.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        Self::parse(&line)
    }

    fn parse(line: &[u8]) -> Result<Self, String> {
        let told: Told = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if told.executable.is_empty() {
            return Err("`executable` is empty".into());
        }
        let count = |count: u32| workers(&count.to_string()).map_err(|why| format!("`workers`: {why}"));
        Ok(Self {
            executable: told.executable.into(),
            path: told.path.into_iter().map(PathBuf::from).collect(),
            workers: told.workers.map_or(Ok(Workers::Auto), count)?,
            parent: Some(told.parent)
                .filter(|parent| *parent > 0)
                .and_then(Pid::from_raw)
                .ok_or("`parent` is not a process")?,
        })
    }

    /// A service for it alone, whose workers find what it finds.
    fn service(self, folder: PathBuf) -> Service {
        let mut service = Service::functions_only("private", self.workers, folder);
        for pool in &mut service.functions {
            pool.interpreter = Some(self.executable.clone());
            pool.sys_path = Some(self.path.clone());
            pool.grace = GRACE;
        }
        service
    }
}

/// The signals of a private engine: only SIGTERM counts.
struct Signals {
    terminate: Signal,
    /// Caught and never looked at. Were they ignored, the workers would inherit that.
    _deaf: Vec<Signal>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let mut deaf = vec![signal(SignalKind::interrupt())?];
        if !ignores_hang_up() {
            deaf.push(signal(SignalKind::hangup())?);
        }
        Ok(Self { terminate: signal(SignalKind::terminate())?, _deaf: deaf })
    }

    async fn terminated(&mut self) {
        self.terminate.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_what_it_needs() {
        let line = br#"{"executable": "/usr/bin/python3", "path": ["", "/a b"], "workers": 3, "parent": 7}"#;
        let script = Script::parse(line).expect("it is good");
        assert_eq!(script.parent.as_raw_pid(), 7);
        let service = script.service("/srv".into());
        let [pool] = &service.functions[..] else { panic!("{:?}", service.functions) };
        assert_eq!(pool.name, "default");
        assert_eq!(pool.workers, Workers::Count(3));
        assert_eq!(pool.cwd, PathBuf::from("/srv"));
        assert_eq!(pool.interpreter, Some("/usr/bin/python3".into()));
        assert_eq!(pool.sys_path, Some(vec![PathBuf::new(), "/a b".into()]));
        assert!(service.stages.is_empty() && service.listen.http.is_none() && service.listen.api.is_none());
    }

    #[test]
    fn workers_may_be_left_to_the_engine() {
        for workers in [r#""workers": null, "#, ""] {
            let line = format!(r#"{{"executable": "python3", "path": [], {workers}"parent": 7}}"#);
            assert_eq!(Script::parse(line.as_bytes()).expect("it is good").workers, Workers::Auto);
        }
    }
}
