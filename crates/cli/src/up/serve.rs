//! A service that runs, until a signal says that it is enough.

use std::sync::Arc;

use anyhow::Context;
use evener_engine::config::{Loaded, Service};
use evener_engine::{Planned, Planner, Running, StartError};
use tokio::task::JoinHandle;

use super::fresh::Fresh;
use super::signals::{HangUp, Stops};
use super::{Refused, Up, announce, say};
use crate::parent::Parent;

/// Runs a service until a signal says that it is enough.
pub(super) async fn serve(service: Service, up: Up) -> anyhow::Result<()> {
    // Caught from the start, so that a stop during warm-up is as clean as any other.
    let mut stops = Stops::listen().context("signals cannot be caught")?;
    let parent = match up.end_with_parent {
        true => Some(Parent::of_this_process().context("--end-with-parent: the parent of this process is not known")?),
        false => None,
    };
    let fresh = Fresh::of(&service.files);
    let mut running = evener_engine::start(service, evener_engine::this_program).await?;
    let told = match until_told(&mut running, up, fresh, &mut stops, parent.as_ref()).await {
        Ok(told) => told,
        Err(error) => {
            running.end().await;
            return Err(error);
        }
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

/// Serves, and lets new files take over. False if the parent that is watched has ended.
async fn until_told(
    running: &mut Running,
    up: Up,
    mut fresh: Fresh,
    stops: &mut Stops,
    parent: Option<&Parent>,
) -> anyhow::Result<bool> {
    announce(running)?;
    // Without a file, one is told in the log what to do with it.
    if let Some(api) = running.addresses().iter().find(|address| up.service.is_none() && address.name == "api") {
        tracing::info!("to call functions here from another terminal: export EVENER_URL={}", api.url);
    }
    let up = Arc::new(up);
    let node = running.node().clone();
    let mut hang_ups = up.service.is_some().then(|| stops.take_hang_ups());
    let mut is_ready = false;
    // The files that are being read, if they are, and whether they have to be read once more after that.
    let mut reading: Option<JoinHandle<Read>> = None;
    let mut again = false;
    loop {
        if again && reading.is_none() {
            again = false;
            reading = Some(read(&up, running.planner()));
        }
        let read = async {
            match &mut reading {
                Some(reading) => reading.await,
                None => std::future::pending().await,
            }
        };
        let hang_up = async {
            match &mut hang_ups {
                Some(hang_ups) => hang_ups.next().await,
                None => std::future::pending().await,
            }
        };
        let stale = async {
            match up.watch {
                true => fresh.stale(&node).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = node.ready(), if !is_ready => {
                is_ready = true;
                say("ready")?;
                continue;
            }
            () = stops.next() => return Ok(true),
            () = end_of(parent) => return Ok(false),
            () = running.failed() => anyhow::bail!("the node has a fault and cannot go on; please report what the log says"),
            hang_up = hang_up => {
                if let HangUp::TerminalGone = hang_up {
                    return Ok(true);
                }
                again = true;
            }
            () = stale => again = true,
            read = read => {
                reading = None;
                if let Some(now) = reload(running, read.context("the service file was not read")?) {
                    fresh = now;
                }
            }
        }
    }
}

/// What came of reading the files.
type Read = Result<Version, Refused>;

/// Files as they were read, and what they are to the node.
struct Version {
    /// Warnings, as text.
    warnings: Option<String>,
    planned: Result<Planned, StartError>,
    fresh: Fresh,
}

/// Reads the files as they are now, and plans what becomes of them. That is not for the thread that everything else runs on: it may take long, or never end where a
/// file system does not answer.
fn read(up: &Arc<Up>, planner: Planner) -> JoinHandle<Read> {
    let up = up.clone();
    tokio::task::spawn_blocking(move || {
        let Loaded { service, warnings, programs } = up.read()?;
        // What is written from here on is looked at next time.
        let fresh = Fresh::of(&service.files);
        let warnings = Some(warnings).filter(|warnings| !warnings.is_empty()).map(|warnings| warnings.render(false));
        let planned = planner.plan(service);
        // As long as they are there, nobody compiles them again.
        drop(programs);
        Ok(Version { warnings, planned, fresh })
    })
}

/// Lets the files take over as they were read. What is wrong with them is logged, and what runs goes on.
fn reload(running: &mut Running, read: Read) -> Option<Fresh> {
    match read {
        Ok(Version { warnings, planned, fresh }) => {
            if let Some(warnings) = warnings {
                tracing::warn!("the service file:\n{}", warnings.trim_end());
            }
            take_over(running, planned);
            Some(fresh)
        }
        Err(Refused::File(report)) => {
            let why = report.render(false);
            tracing::error!("the service file is refused, and the one before runs on:\n{}", why.trim_end());
            // It may be mended in a file that it did not include before.
            Some(Fresh::of_refused(report.files()))
        }
        Err(Refused::Asked(why)) => {
            tracing::error!("the service file is refused, and the one before runs on: {why}");
            None
        }
    }
}

fn take_over(running: &mut Running, planned: Result<Planned, StartError>) {
    match planned.and_then(|planned| running.take_over(planned)) {
        Ok(reloaded) => {
            let renewed = Some(reloaded.renewed.join(" ")).filter(|stages| !stages.is_empty());
            match reloaded.same {
                true => tracing::info!("nothing has changed"),
                false => tracing::info!(renewed, "the service file has taken over"),
            }
            for part in reloaded.later {
                tracing::warn!("`{part}` has changed, which counts from the next start on");
            }
        }
        Err(error) => tracing::error!("the service file is refused, and the one before runs on: {error}"),
    }
}

/// Waits for the end of a parent that is watched; for ever if none is.
async fn end_of(parent: Option<&Parent>) {
    match parent {
        Some(parent) => parent.ended().await,
        None => std::future::pending().await,
    }
}
