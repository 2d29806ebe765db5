//! Heads of requests and of replies: what may stand in them, and how much.

use std::borrow::Cow;

use evener_core::{Code, Problem, Reply};
use evener_protocol::frame::PART;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};

use crate::node::Parcel;
use crate::origin::Origin;

/// Workers see an HTTP/2 request as if it had come by HTTP/1.1: with a `Host`, and with one `Cookie`.
pub(crate) fn as_in_http1<B>(request: &mut Request<B>) {
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let headers = request.headers_mut();
    if let Some(Ok(host)) = authority
        && !headers.contains_key(HOST)
    {
        headers.insert(HOST, host);
    }
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<Cow<'_, [u8]>> = headers.get_all(COOKIE).iter().map(|crumb| crumb.as_bytes().into()).collect();
        if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, whole);
        }
    }
}

/// The connection's buffer bounds a head roughly; this is the limit itself. Returns the size.
pub(crate) fn check_size(head: &Parts, most: usize) -> Result<usize, Problem> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let size = target + headers.sum::<usize>();
    if size <= most {
        return Ok(size);
    }
    let detail = format!("the path and the headers have {size} bytes, and {most} is the most");
    Err(Problem::new(Code::HeadersTooLarge, detail))
}

/// A head is larger as workers get it, as JSON, and must fit into one frame. One that is small as it comes always does: nothing
/// grows more than fivefold.
pub(crate) fn check_origin(origin: &Origin, size: usize) -> Result<(), Problem> {
    const SMALL: usize = 32 * 1024;
    const MOST: usize = PART - 4096;
    if size <= SMALL {
        return Ok(());
    }
    let size = serde_json::to_vec(origin).map_or(usize::MAX, |json| json.len());
    if size <= MOST {
        return Ok(());
    }
    let detail = format!("the path and the headers have {size} bytes as a worker gets them, and {MOST} is the most");
    Err(Problem::new(Code::HeadersTooLarge, detail))
}

/// Headers that belong to one connection and not to the answer: the node sets them itself.
const OF_THE_CONNECTION: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

pub(crate) fn of_reply(reply: &Reply<Parcel>) -> Result<(StatusCode, HeaderMap), String> {
    let status = StatusCode::from_u16(reply.status).map_err(|_| format!("{} is no HTTP status", reply.status))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &reply.headers {
        let header = HeaderName::try_from(name).map_err(|_| format!("Response.headers: {name:?} is no header name"))?;
        let value = HeaderValue::try_from(value)
            .map_err(|_| format!("Response.headers[{name:?}]: the value cannot stand in a header"))?;
        if !OF_THE_CONNECTION.contains(&header.as_str()) {
            headers.append(header, value);
        }
    }
    Ok((status, headers))
}
