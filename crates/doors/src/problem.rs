//! Problems as clients see them: `application/problem+json` (RFC 9457).

use bytes::Bytes;
use evener_core::{Cause, Code, FallbackOn, Problem, RequestId};
use serde::Serialize;

use crate::http::REQUEST_ID;
use crate::node::Node;

/// A problem as it is written out. Fields that do not apply are left out.
#[derive(Debug, Serialize)]
pub struct ProblemView<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<CauseView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum CauseView<'a> {
    Raised { r#type: &'a str, message: &'a str, traceback: &'a str },
    Died(&'a str),
    Said(&'a str),
}

impl<'a> ProblemView<'a> {
    /// The view of a problem: with its cause only if `debug` says so.
    pub fn new(problem: &'a Problem, request_id: RequestId, stage: Option<&'a str>, debug: bool) -> ProblemView<'a> {
        let cause = problem.cause.as_ref().filter(|_| debug).map(|cause| match cause {
            Cause::Raised { name, message, traceback } => CauseView::Raised { r#type: name, message, traceback },
            Cause::Died(certificate) => CauseView::Died(certificate),
            Cause::Said(words) => CauseView::Said(words),
        });
        ProblemView {
            r#type: format!("urn:evener:error:{}", problem.code.name()),
            title: problem.code.title(),
            status: problem.status,
            detail: &problem.detail,
            code: problem.code.name(),
            request_id: request_id.to_string(),
            job_id: problem.job.map(|job| job.to_string()),
            stage,
            tries: Some(problem.tries).filter(|tries| *tries > 0),
            retryable: problem.code.is_retryable(),
            cause,
        }
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Bytes {
        // Strings, numbers and booleans under string keys: nothing here can fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The whole answer to a head that cannot be parsed: the HTTP library only says with which status. `headers` is the most bytes
/// of a head.
pub(crate) fn unparsed<N: Node>(node: &N, status: u16, headers: usize) -> Vec<u8> {
    let problem = match status {
        414 | 431 => {
            let detail = format!("the path and the headers are far over the limit of {headers} bytes, or too many");
            Problem::new(Code::HeadersTooLarge, detail)
        }
        413 => Problem::new(Code::BodyTooLarge, "the Content-Length is beyond any that could be taken"),
        _ => Problem::new(Code::BadRequest, "the request is not HTTP/1.1, or not well-formed"),
    };
    let id = node.new_id();
    node.refused(id, problem.clone(), FallbackOn::default());
    let body = ProblemView::new(&problem, id, None, false).to_json();
    let status = http::StatusCode::from_u16(problem.status).unwrap_or(http::StatusCode::BAD_REQUEST);
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\n{REQUEST_ID}: {id}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or(""),
        body.len(),
    );
    [head.as_bytes(), &body].concat()
}
