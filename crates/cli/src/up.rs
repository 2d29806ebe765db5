//! `evener up`.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use evener_engine::Running;
use evener_engine::config::{Listener, Service};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::log::Format;
use crate::{BAD_CONFIGURATION, ServiceFile, load};

/// Arguments of `evener up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    file: ServiceFile,
    /// Where the service's own routes listen, in place of the file's `listen.http`.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Where Evener's API listens, in place of the file's `listen.api`.
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    /// How the log is written. EVENER_LOG sets what is in it: `debug`, or a filter such as `warn,worker=info`.
    #[arg(long, value_enum, default_value_t)]
    log: Format,
}

impl Up {
    pub(crate) fn run(self) -> ExitCode {
        let mut service = match load(&self.file.service) {
            Ok(loaded) => loaded.service,
            Err(code) => return code,
        };
        if let Err(why) = self.override_listeners(&mut service) {
            eprintln!("error: {why}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
        let guard = crate::log::start(self.log);
        let result = serve(service);
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
            listen.http = Some(moved(listen.http.take(), address).map_err(|why| format!("--http: {why}"))?);
        }
        if let Some(address) = &self.api {
            let api = moved(listen.api.take(), address).map_err(|why| format!("--api: {why}"))?;
            if !api.is_loopback() && api.tls.is_none() && !api.insecure {
                return Err(format!(
                    "--api: others can reach {address}, and the file's `listen.api` has no `tls`: give it a certificate, \
                     or say `insecure: true` there"
                ));
            }
            listen.api = Some(api);
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

fn serve(service: Service) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime does not start")?.block_on(async {
        // Caught from the start, so that a stop during warm-up is as clean as any other.
        let mut stops = Stops::listen().context("signals cannot be caught")?;
        let running = evener_engine::start(service, warden).await?;
        announce(&running)?;
        tokio::select! {
            ready = until_ready(&running) => {
                ready?;
                stops.next().await;
            }
            () = stops.next() => {}
        }
        tracing::info!("draining; once more gives up what is left");
        running.drain(async { stops.next().await }).await;
        tracing::info!("stopped");
        Ok(())
    })
}

async fn until_ready(running: &Running) -> anyhow::Result<()> {
    running.node().ready().await;
    say("ready")
}

fn announce(running: &Running) -> anyhow::Result<()> {
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
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output is closed")
}

/// This very program, in the mode that starts workers.
fn warden() -> Command {
    let mut command = if cfg!(target_os = "linux") {
        // Also after the file has been replaced by another version.
        Command::new("/proc/self/exe")
    } else {
        Command::new(std::env::current_exe().unwrap_or_else(|_| "evener".into()))
    };
    command.arg0("evener").arg(crate::WARDEN);
    command
}

/// The signals that ask the node to stop.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    /// None if it was ignored from the start, as under nohup.
    hang_up: Option<Signal>,
}

impl Stops {
    fn listen() -> std::io::Result<Stops> {
        Ok(Stops {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) {
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
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
