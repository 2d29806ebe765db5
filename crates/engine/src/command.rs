//! Jobs that a program does which is started for each of them: the value is what it reads, and what it prints is the result.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evener_core::{Failure, Outcome, Stop};
use evener_protocol::{Content, Value};
use evener_supervisor::certificate::How;
use evener_supervisor::command::{Ask, Bounds, Done, Follow, Unkept, run};
use evener_supervisor::slot::Place;
use evener_supervisor::warden::Wardens;
use evener_supervisor::{Spawn, SpawnError};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::jq::template::{RenderError, Template};
use crate::jq::workers::{JqWorkers, Run, Want};
use crate::jq::{Limits, Program, check_json};
use crate::local::{LocalJob, accept, failed, input};

/// The most bytes of all arguments together: what Linux takes with its usual limits.
const MOST_ARGUMENTS: usize = 2 << 20;

/// A program to start for each job, in one of the places of its stage.
pub(crate) struct Command {
    pub(crate) wardens: Arc<Wardens>,
    /// Where its jobs run, whoever hands them out.
    pub(crate) runtime: Handle,
    /// The stage, and which of its places.
    pub(crate) place: Place,
    /// All but the arguments.
    pub(crate) spawn: Spawn,
    pub(crate) arguments: Arc<[Template]>,
    pub(crate) bounds: Bounds,
    /// How long a job may take.
    pub(crate) timeout: Duration,
    /// Whether it ends at once when nobody waits for its job any more.
    pub(crate) kill: bool,
    /// What it prints.
    pub(crate) output: Content,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("place", &self.place)
            .field("program", &self.spawn.program)
            .finish_non_exhaustive()
    }
}

/// How the node reaches the process of a job.
#[derive(Debug)]
pub(crate) struct Leash {
    asks: watch::Sender<Ask>,
    /// When its time is over.
    deadline: Option<Instant>,
    kill: bool,
}

impl Leash {
    /// For a job of this command that begins now, and the end of it that the job holds.
    pub(crate) fn new(command: &Command) -> (Leash, watch::Receiver<Ask>) {
        let (asks, asked) = watch::channel(Ask::Nothing);
        (Leash { asks, deadline: Instant::now().checked_add(command.timeout), kill: command.kill }, asked)
    }

    /// Nobody waits for the job, or its time is over. If it may, the process goes on until then.
    pub(crate) fn cancel(&self) {
        let now = Instant::now();
        match self.deadline {
            _ if self.kill => _ = self.asks.send(Ask::End(now)),
            Some(deadline) => _ = self.asks.send(Ask::End(deadline.max(now))),
            None => {}
        }
    }

    /// The process is to go.
    pub(crate) fn stop(&self, signal: Stop) {
        let _ = self.asks.send(match signal {
            Stop::Terminate => Ask::End(Instant::now()),
            Stop::Kill => Ask::Kill,
        });
    }
}

/// The warden was gone, and with it the process: what became of the job is unknown.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) &'static str);

/// Does a job.
pub(crate) async fn perform(
    command: &Arc<Command>,
    job: &LocalJob,
    workers: &Arc<JqWorkers>,
    asked: &mut watch::Receiver<Ask>,
    follower: &mut impl Follow,
) -> Result<Outcome<Value>, Lost> {
    let input = match job.seen(workers.memory()).await {
        Ok(input) => input,
        Err(failure) => return Ok(Outcome::Fail(failure)),
    };
    let args = tokio::select! {
        args = arguments(command, job, &input, workers) => args,
        () = job.cancelled.told() => Err(Failure::Cancelled),
    };
    let args = match args {
        Ok(args) => args,
        Err(failure) => return Ok(Outcome::Fail(failure)),
    };
    if job.cancelled.flag().load(Ordering::Relaxed) {
        return Ok(Outcome::Fail(Failure::Cancelled));
    }
    let spawn = Spawn { args, ..command.spawn.clone() };
    let warden = match command.wardens.get().await {
        Ok(warden) => warden,
        Err(error) => return Ok(not_started(&format!("the warden does not start: {error}"))),
    };
    let done = match run(&warden, &spawn, &input, command.bounds, asked, follower).await {
        Ok(done) => done,
        Err(SpawnError::WardenGone) => return Err(Lost("died before it had begun")),
        Err(error) => return Ok(not_started(&error.to_string())),
    };
    match done.how {
        How::Unknown => Err(Lost("died, and nobody saw how")),
        _ => Ok(outcome(command, done)),
    }
}

fn not_started(why: &str) -> Outcome<Value> {
    Outcome::Fail(Failure::Command { detail: "could not be started".to_owned(), stderr: why.to_owned() })
}

/// What a process comes to that has ended.
fn outcome(command: &Command, done: Done) -> Outcome<Value> {
    let Done { how, output, stderr } = done;
    let output = match output {
        Ok(output) => output,
        Err(Unkept::TooMuch) => {
            let most = command.bounds.output;
            let detail = format!("its command printed more than {most} bytes, which is the most");
            return Outcome::Fail(Failure::TooLarge { detail });
        }
        Err(Unkept::NoRoom) => {
            let detail = "limits.memory has no room for what its command printed".to_owned();
            return Outcome::Fail(Failure::NoRoom { detail });
        }
    };
    let detail = match how {
        How::Code(0) => return decoded(command.output.clone(), output),
        How::Signal(_) => format!("was {how}"),
        How::Code(_) | How::Unknown => how.to_string(),
    };
    Outcome::Fail(Failure::Command { detail, stderr: stderr.join("\n") })
}

/// What was printed, if it is what it should be.
fn decoded(content: Content, mut output: Vec<u8>) -> Outcome<Value> {
    let wrong = |detail| Outcome::Fail(Failure::Encode { detail });
    match content {
        Content::Text => {
            if let Err(error) = std::str::from_utf8(&output) {
                return wrong(format!("its command printed no UTF-8 text: {error}"));
            }
        }
        Content::Json => {
            if let Err(error) = check_json(&output) {
                return wrong(format!("its command printed no JSON: {error}"));
            }
            output.truncate(output.trim_ascii_end().len());
        }
        Content::Bytes | Content::Nothing | Content::Named(_) => {}
    }
    Outcome::Next(Value { content, bytes: output.into() })
}

/// The arguments for a job. Programs in them run like those of a stage.
async fn arguments(
    command: &Command,
    job: &LocalJob,
    input: &Bytes,
    workers: &Arc<JqWorkers>,
) -> Result<Vec<OsString>, Failure> {
    let literals: Option<Vec<OsString>> =
        command.arguments.iter().map(|template| template.literal().map(OsString::from)).collect();
    if let Some(arguments) = literals {
        return Ok(arguments);
    }
    let value = Value { content: job.content(), bytes: input.clone() };
    accept(&value.content)?;
    let mut left = MOST_ARGUMENTS;
    let mut arguments = Vec::new();
    for (template, number) in command.arguments.iter().zip(1..) {
        let mut given = Vec::new();
        for program in template.programs() {
            let json = evaluate(program, &value, command.timeout, workers).await;
            given.push(json.map_err(|failure| of_argument(number, failure))?);
        }
        let text = template.fill(given).map_err(|error| refused(number, error))?;
        left = left.checked_sub(text.len()).ok_or_else(|| Failure::Decode {
            detail: format!("the arguments of the command would have more than {MOST_ARGUMENTS} bytes"),
        })?;
        arguments.push(text.into());
    }
    Ok(arguments)
}

/// What a program in an argument gives, as JSON.
async fn evaluate(
    program: &Program,
    value: &Value,
    time: Duration,
    workers: &Arc<JqWorkers>,
) -> Result<Bytes, Failure> {
    if program.may_run_at_once(value.bytes.len()) {
        match program.run(input(&value.content, &value.bytes)?, &Limits::at_once()) {
            Err(error) if error.wants_more() => {}
            result => return result.map(Bytes::from).map_err(failed),
        }
    }
    let _turn = program.turn().await;
    let run = Run { program, want: Want::Value, input: value.clone(), time };
    workers.run_whatever(run).await.map(|value| value.bytes)
}

/// Why there is no argument of this number.
fn refused(number: usize, error: RenderError) -> Failure {
    match error {
        RenderError::Refused(why) => Failure::Decode { detail: format!("argument {number} of the command: {why}") },
        RenderError::Run(error) => of_argument(number, failed(error)),
    }
}

fn of_argument(number: usize, failure: Failure) -> Failure {
    match failure {
        Failure::Filter { detail } => Failure::Filter { detail: format!("argument {number} of the command: {detail}") },
        failure => failure,
    }
}
