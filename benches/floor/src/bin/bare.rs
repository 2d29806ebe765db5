//! A bare echo server on hyper: the limit that any HTTP service on this machine can come near.
//!
//! It answers every request with the body it got. No routes, no limits, no timeouts, no drain: it measures, it does
//! not serve. It announces itself as `evener up` does, so that the harness starts both in the same way.

use std::convert::Infallible;
use std::io::{self, Write};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = match body.collect().await {
        Ok(body) => Response::new(Full::new(body.to_bytes())),
        Err(_) => {
            let mut refused = Response::new(Full::default());
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            refused
        }
    };
    if let Some(content_type) = head.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    Ok(response)
}

async fn serve(stream: TcpStream) {
    // A connection that breaks is the load generator's to count.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo)).await;
}

async fn run() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening http http://{}\nready", listener.local_addr()?)?;
    stdout.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_io().build()?.block_on(run())
}
