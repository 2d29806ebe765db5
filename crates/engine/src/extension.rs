//! The cold fields of a job's frame.

use evener_core::{JobId, RequestId};
use evener_doors::Origin;
use evener_protocol::frame::PART;
use evener_protocol::{Value, outbox};
use serde::Serialize;

use crate::node::Waiter;

/// What there is to tell a worker about a job.
pub(crate) struct Told<'a> {
    pub(crate) id: JobId,
    pub(crate) request_id: RequestId,
    /// Whether the worker wants context.
    pub(crate) context: bool,
    /// Whether the worker gets the request as its value.
    pub(crate) is_request: bool,
    pub(crate) waiter: Option<&'a Waiter>,
}

#[derive(Serialize)]
struct Extension<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
}

/// The extension as bytes; mostly there is none.
pub(crate) fn of_job(told: &Told<'_>, value: &Value) -> Vec<u8> {
    let content_type = outbox::media_type_to_name(value);
    if !told.context && !told.is_request && content_type.is_none() {
        return Vec::new();
    }
    let origin = match told.waiter {
        Some(Waiter::Request { origin, .. }) => origin.as_deref(),
        Some(Waiter::Call(_)) | None => None,
    };
    let extension = Extension {
        job_id: told.context.then(|| told.id.to_string()),
        request_id: told.context.then(|| told.request_id.to_string()),
        request: origin.filter(|_| told.context || told.is_request),
        traceparent: origin.filter(|_| told.context).and_then(Origin::traceparent),
        content_type,
    };
    // Strings under string keys: nothing here can fail to be JSON.
    let bytes = serde_json::to_vec(&extension).unwrap_or_default();
    if bytes.len() <= PART || told.is_request {
        return bytes;
    }
    // The door lets no request in whose head is that large as JSON; so this is never reached, and costs context if it is.
    serde_json::to_vec(&Extension { request: None, traceparent: None, ..extension }).unwrap_or_default()
}
