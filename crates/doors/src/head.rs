//! Heads of requests and of replies: what may stand in them, and how much.

use std::borrow::Cow;

use evener_core::{Code, Problem, Reply};
use evener_protocol::frame::PART;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode, Version};

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

/// What is wrong with how a request says whom it is for, or how its body travels; RFC 9112, 3.2 and 6.1, and RFC 9113, 8.3.1.
pub(crate) fn check_form(head: &Parts) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(Code::BadRequest, detail));
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.count());
    if more > 0 {
        return bad(format!("the request has {} Host headers, and one is the most", more + 1));
    }
    let authority = head.uri.authority().map(Authority::as_str);
    match host.map(HeaderValue::to_str) {
        None if head.version == Version::HTTP_11 => {
            return bad("the request has no Host header, which HTTP/1.1 demands".to_owned());
        }
        None if head.version == Version::HTTP_2 && authority.is_none() => {
            return bad("the request has neither :authority nor a Host header".to_owned());
        }
        Some(Err(_)) => return bad("the Host header is no host and port".to_owned()),
        Some(Ok(host)) if !host.is_empty() && !is_host(host) => {
            return bad(format!("the Host header {host:?} is no host and port"));
        }
        Some(Ok(host)) if authority.is_some_and(|authority| !is_same_host(host, authority, head.uri.scheme_str())) => {
            let authority = authority.unwrap_or_default();
            return bad(format!(
                "the Host header {host:?} is another than that of the request's target, {authority:?}"
            ));
        }
        _ => {}
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if let Some(coding) = codings.find(|coding| !is_chunked(coding)) {
        let detail = format!("the Transfer-Encoding {coding:?} is not known here; `chunked` is");
        return Err(Problem { status: StatusCode::NOT_IMPLEMENTED.as_u16(), ..Problem::new(Code::BadRequest, detail) });
    }
    Ok(())
}

/// Whether two texts name the same host and port; a port that is not named is that of the scheme (RFC 9110, 4.2.3).
fn is_same_host(one: &str, other: &str, scheme: Option<&str>) -> bool {
    let default = if scheme == Some("https") { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).trim_end_matches(':').to_ascii_lowercase();
    bare(one) == bare(other)
}

/// Whether a text is a host, and perhaps a port; there are no users in one.
fn is_host(text: &str) -> bool {
    !text.contains('@') && text.parse::<Authority>().is_ok()
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
