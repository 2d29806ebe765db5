//! What the log says of requests and of what workers print.

use evener_core::{Answer, Cause, Problem, RequestId};
use evener_doors::Answered;
use evener_supervisor::output::printable;

use super::Node;

impl Node {
    pub(super) fn report(&self, request_id: RequestId, answer: &Answered) {
        self.metrics.answered(answer);
        if let Answer::Problem(problem) | Answer::Fallback(problem) = answer {
            self.log(request_id, problem, "");
        }
    }

    /// Writes a problem into the log, with what the client is not told. `goes_on`: how the request goes on, if this is not its answer.
    pub(super) fn log(&self, request_id: RequestId, problem: &Problem, goes_on: &str) {
        let topology = self.topology();
        let stage = problem.stage.map(|stage| topology.stage(stage).name.as_str());
        let job = problem.job.map(tracing::field::display);
        // Workers, and through them clients, have a say in what it says.
        let (code, detail) = (problem.code.name(), printable(&problem.detail));
        let (then, said, cause) = match &problem.cause {
            Some(Cause::Raised { message, traceback, .. }) => {
                (format!("\n{}", Lines(traceback)), Some(printable(message)), None)
            }
            Some(Cause::Died(certificate)) => (String::new(), None, Some(certificate.as_str())),
            Some(Cause::Said(words)) if words.is_empty() => (String::new(), None, None),
            Some(Cause::Said(words)) => (format!("\n{}", Lines(words)), None, None),
            None => (String::new(), None, None),
        };
        let said = said.as_deref();
        match problem.status {
            _ if !goes_on.is_empty() => {
                tracing::warn!(%request_id, job, stage, code, said, cause, "{detail}{goes_on}{then}");
            }
            500.. if problem.cause.is_some() => {
                tracing::error!(%request_id, job, stage, code, said, cause, "{detail}{then}");
            }
            500.. => tracing::warn!(%request_id, job, stage, code, "{detail}"),
            _ => tracing::debug!(%request_id, job, stage, code, "{detail}"),
        }
    }

    /// Writes down how a call ended. Its caller is told all of it, so that is for those who look for faults here.
    pub(super) fn report_call(&self, request_id: RequestId, answer: &Answered) {
        self.metrics.answered(answer);
        if let Answer::Problem(problem) | Answer::Fallback(problem) | Answer::Raised(problem, _) = answer {
            let topology = self.topology();
            let stage = problem.stage.map(|stage| topology.stage(stage).name.as_str());
            let (code, detail) = (problem.code.name(), printable(&problem.detail));
            tracing::debug!(%request_id, stage, code, "{detail}");
        }
    }
}

/// The level of a line that a worker wrote, and the line without it: `<3>` to begin with is an error, `<4>` a warning, `<6>` or
/// nothing is for information, `<7>` for finding faults. That is how services tell systemd (sd-daemon(3)).
pub(super) fn priority(line: &str) -> (u8, &str) {
    match line.as_bytes() {
        [b'<', level @ b'0'..=b'7', b'>', ..] => (level - b'0', line[3..].trim_start()),
        _ => (6, line),
    }
}

/// Text from a worker with its lines kept, and each made harmless for a terminal.
struct Lines<'a>(&'a str);

impl std::fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, line) in self.0.trim_end().lines().enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            write!(f, "{newline}    {}", printable(line))?;
        }
        Ok(())
    }
}
