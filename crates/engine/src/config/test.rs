//! What a service file says about the tests of its service: requests, and what has to come of them.

use std::time::Duration;

use super::Overlay;
use super::service::Filter;

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// What it is about; no other test of the service has this name.
    pub name: String,
    /// The file that it is in, as messages name it: the service file, or one that it includes.
    pub file: String,
    /// The line where it begins, from 1.
    pub line: usize,
    /// What is sent.
    pub request: TestRequest,
    /// What has to come back.
    pub expect: Expect,
    /// What is different about the service while this test runs; with it the service is good, too.
    pub with: Option<Overlay>,
}

/// The request of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRequest {
    /// In upper case (POST where there is a body, else GET).
    pub method: String,
    /// The path, with the query if there is one; it begins with a slash.
    pub path: String,
    /// The headers in the order of the file, the content type of a body included.
    pub headers: Vec<(String, String)>,
    /// The body as it is sent.
    pub body: Option<Vec<u8>>,
}

/// What has to come back. All of it must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    /// The status; `None` takes any. A file that does not name it means 200.
    pub status: Option<u16>,
    /// Headers that the answer must have, with these values.
    pub headers: Vec<(String, String)>,
    /// The whole body as text.
    pub body: Option<String>,
    /// What must hold of a JSON body. A file has at most one.
    pub json: Vec<Expectation>,
    /// The longest that the answer may take.
    pub within: Option<Duration>,
    /// The shortest that it may take.
    pub at_least: Option<Duration>,
}

/// What must hold of a JSON body.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// The program gives `true` for it.
    Predicate(Filter),
    /// It is this value.
    Equal(serde_json::Value),
}

impl Default for Expect {
    fn default() -> Self {
        Self { status: Some(200), headers: Vec::new(), body: None, json: Vec::new(), within: None, at_least: None }
    }
}
