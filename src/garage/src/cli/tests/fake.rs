//! A node that gives prepared answers and remembers what it was asked.

use futures::future::BoxFuture;
use garage_api_admin::AdminError;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cli::{args, caller::AdminCaller, dispatch, format::LocalTime, output::Output, session::Session};

/// Prepared answers by endpoint; what has none is not implemented.
#[derive(Default)]
pub(super) struct Fake {
    answers: Vec<(&'static str, Result<Value, AdminError>)>,
    asked: Mutex<Vec<(String, Value)>>,
}

impl Fake {
    /// A node that answers `endpoint` so, and everything else as before.
    pub(super) fn answering(mut self, endpoint: &'static str, answer: Value) -> Self {
        self.answers.push((endpoint, Ok(answer)));
        self
    }

    /// A node that refuses `endpoint`.
    pub(super) fn refusing(mut self, endpoint: &'static str, error: AdminError) -> Self {
        self.answers.push((endpoint, Err(error)));
        self
    }

    /// Runs a command line: what it printed, or its error.
    pub(super) fn run(&self, line: &str) -> Result<Output, String> {
        let words = std::iter::once("garage").chain(line.split_whitespace()).map(Into::into);
        let cli = args::parse(words).map_err(|error| error.to_string())?;
        let mut session = Session::new(self, LocalTime { now_ms: 1_750_000_000_000, zone: TimeZone::UTC });
        let finished = futures::executor::block_on(dispatch(&mut session, cli.command, Some("https://s3.example.org".into())));
        finished.map(|()| session.out).map_err(|error| error.to_string())
    }

    /// What `endpoint` was asked last.
    pub(super) fn asked(&self, endpoint: &str) -> Value {
        let asked = self.asked.lock();
        asked.iter().rev().find(|(name, _)| name == endpoint).map_or(json!("never asked"), |(_, payload)| payload.clone())
    }
}

impl AdminCaller for Fake {
    fn call_raw<'a>(&'a self, endpoint: &'a str, body: Value) -> BoxFuture<'a, Result<Value, AdminError>> {
        self.asked.lock().push((endpoint.to_owned(), body));
        let answer = self.answers.iter().find(|(name, _)| *name == endpoint).map(|(_, answer)| answer.clone());
        Box::pin(async move { answer.unwrap_or_else(|| Err(AdminError::not_implemented(endpoint))) })
    }
}
