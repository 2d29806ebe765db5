//! `evener up`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use evener_engine::Running;
use evener_engine::config::{FunctionPool, Listener, Service, Workers};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::log::Format;
use crate::parent::Parent;
use crate::{BAD_CONFIGURATION, Settings, load};

/// Arguments of `evener up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The service file to run. Without one, it is a pool of workers for Python functions.
    #[arg(value_name = "SERVICE.yaml", value_hint = clap::ValueHint::FilePath)]
    service: Option<PathBuf>,
    /// How many workers the function pool `default` has: a number, or `auto` for one per core. Without it, what the
    /// file says, or else `auto`.
    #[arg(long, value_name = "N|auto", value_parser = workers)]
    workers: Option<Workers>,
    /// Where the service's own routes listen, in place of the file's `listen.http`.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Where Evener's API listens, in place of the file's `listen.api`. Without either, on a Unix socket alone.
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// End at once when the process that started this one ends, however that comes about: for tests and scripts.
    #[arg(long)]
    end_with_parent: bool,
    /// How the log is written. EVENER_LOG sets what is in it: `debug`, or a filter such as `warn,worker=info`.
    #[arg(long, value_enum, default_value_t)]
    log: Format,
}

/// Reads `--workers`. A pool without workers would take calls and never run one, so 0 is left to service files.
pub(crate) fn workers(text: &str) -> Result<Workers, String> {
    match text.parse()? {
        Workers::Count(0) => Err("without workers no call ever runs: give 1 or more, or `auto`".into()),
        workers => Ok(workers),
    }
}

impl Up {
    pub(crate) fn run(self) -> ExitCode {
        let mut service = match &self.service {
            Some(file) => match load(file, &self.settings.set) {
                Ok(loaded) => loaded.service,
                Err(code) => return code,
            },
            None if !self.settings.set.is_empty() => {
                eprintln!("error: --set: it changes a service file, and there is none");
                return ExitCode::from(BAD_CONFIGURATION);
            }
            None => match std::env::current_dir() {
                Ok(folder) => Service::functions_only("functions", Workers::Auto, folder),
                Err(error) => {
                    eprintln!("error: the working directory is not known: {error}");
                    return ExitCode::FAILURE;
                }
            },
        };
        if let Err(why) = self.override_listeners(&mut service).and_then(|()| self.size_pool(&mut service)) {
            eprintln!("error: {why}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
        let guard = crate::log::start(self.log, "info");
        let result = on_runtime(serve(service, self.service.is_none(), self.end_with_parent));
        drop(guard);
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn override_listeners(&self, service: &mut Service) -> Result<(), String> {
        let listen = &mut service.listen;
        if let Some(address) = &self.http {
            if self.service.is_none() {
                let why = "--http: without a service file there are no routes to be served there; clients that call \
                           functions come to `--api`";
                return Err(why.into());
            }
            listen.http = Some(moved(listen.http.take(), address).map_err(|why| format!("--http: {why}"))?);
        }
        if let Some(address) = &self.api {
            let api = moved(listen.api.take(), address).map_err(|why| format!("--api: {why}"))?;
            if !api.is_loopback() && api.tls.is_none() && !api.insecure {
                let remedy = match self.service {
                    Some(_) => {
                        "the file's `listen.api` has no `tls`: give it a certificate, or say `insecure: true` there"
                    }
                    None => "it is not encrypted: take 127.0.0.1, or write a service file whose `listen.api` has `tls`",
                };
                return Err(format!("--api: others can reach {address}, and {remedy}"));
            }
            listen.api = Some(api);
        }
        Ok(())
    }

    fn size_pool(&self, service: &mut Service) -> Result<(), String> {
        let Some(workers) = self.workers else { return Ok(()) };
        let name = FunctionPool::DEFAULT;
        match service.functions.iter_mut().find(|pool| pool.name == name) {
            Some(pool) => pool.workers = workers,
            None => {
                return Err(format!(
                    "--workers: it sizes the function pool `{name}`, and {} has none: add \
                     `functions: {{{name}: {{}}}}` to it; how many workers a stage has is said by its key `workers`",
                    service.file.display()
                ));
            }
        }
        Ok(())
    }
}

/// The listener of the file at another address.
fn moved(listener: Option<Listener>, address: &str) -> Result<Listener, String> {
    let there = Listener::new(address)?;
    Ok(match listener {
        Some(listener) => Listener { address: there.address, ..listener },
        None => there,
    })
}

/// Runs a service until a signal says that it is enough. `explain` says in the log what one does with it.
async fn serve(service: Service, explain: bool, end_with_parent: bool) -> anyhow::Result<()> {
    // Caught from the start, so that a stop during warm-up is as clean as any other.
    let mut stops = Stops::listen().context("signals cannot be caught")?;
    let parent = match end_with_parent {
        true => Some(Parent::of_this_process().context("--end-with-parent: the parent of this process is not known")?),
        false => None,
    };
    let running = evener_engine::start(service, evener_engine::this_program).await?;
    announce(&running)?;
    if let Some(api) = running.addresses().iter().find(|address| explain && address.name == "api") {
        tracing::info!("to call functions here from another terminal: export EVENER_URL={}", api.url);
    }
    let told = tokio::select! {
        ready = until_ready(&running) => {
            ready?;
            tokio::select! {
                () = stops.next() => true,
                () = end_of(parent.as_ref()) => false,
            }
        }
        () = stops.next() => true,
        () = end_of(parent.as_ref()) => false,
    };
    if told {
        tracing::info!("draining; once more gives up what is left");
        let hurry = async {
            tokio::select! {
                () = stops.next() => {}
                () = end_of(parent.as_ref()) => {}
            }
        };
        running.drain(hurry).await;
    } else {
        tracing::info!("the process that started this one has ended");
        running.end().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Waits for the end of a parent that is watched; for ever if none is.
async fn end_of(parent: Option<&Parent>) {
    match parent {
        Some(parent) => parent.ended().await,
        None => std::future::pending().await,
    }
}

/// Runs the node, which wants a single thread.
pub(crate) fn on_runtime<T>(node: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime does not start")?.block_on(node)
}

async fn until_ready(running: &Running) -> anyhow::Result<()> {
    running.node().ready().await;
    say("ready")
}

pub(crate) fn announce(running: &Running) -> anyhow::Result<()> {
    for address in running.addresses() {
        say(&format!("listening {} {}", address.name, address.url))?;
    }
    for (stage, interpreter) in running.interpreters() {
        let python = interpreter.path.display();
        tracing::info!(stage, %python, found = %interpreter.origin, "workers warming up");
    }
    Ok(())
}

/// Writes a line to standard output, at once: others wait for it.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output is closed")
}

/// The signals that ask the node to stop.
pub(crate) struct Stops {
    interrupt: Signal,
    terminate: Signal,
    /// None if it was ignored from the start, as under nohup.
    hang_up: Option<Signal>,
}

impl Stops {
    pub(crate) fn listen() -> std::io::Result<Stops> {
        Ok(Stops {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    pub(crate) async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Whether SIGHUP was set to be ignored by whoever started this process. Known on Linux only.
pub(crate) fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
