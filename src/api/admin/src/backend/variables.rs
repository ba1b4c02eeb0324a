//! Settings of the background workers, by name; each node has its own, and keeps them over a restart.

use std::collections::BTreeMap;

use super::{AdminApi, failure::internal};
use crate::{
    AdminError,
    types::{Variable, Variables},
};

const RESYNC_WORKERS: &str = "resync-worker-count";
const RESYNC_TRANQUILITY: &str = "resync-tranquility";
const SCRUB_TRANQUILITY: &str = "scrub-tranquility";
const READ_ONLY: [&str; 4] = ["scrub-last-completed", "scrub-next-run", "scrub-corruptions_detected", "lifecycle-last-completed"];

impl AdminApi {
    pub(super) fn variables(&self, wanted: Option<String>) -> Result<Variables, AdminError> {
        let all = self.all_variables();
        let Some(name) = wanted else { return Ok(all) };
        let unknown = || AdminError::internal(format!("there is no variable {name:?}; there are {}", names(&all)));
        let value = all.get(&name).cloned().ok_or_else(unknown)?;
        Ok(BTreeMap::from([(name, value)]))
    }

    fn all_variables(&self) -> Variables {
        let settings = self.node.resync.settings();
        let mut all = Variables::new();
        let mut add = |name: &str, value: String| drop(all.insert(name.to_string(), value));
        add(RESYNC_WORKERS, settings.workers_count().to_string());
        add(RESYNC_TRANQUILITY, settings.tranquility().to_string());
        if let Some(scrub) = &self.node.scrub {
            let state = scrub.state();
            let time = |time_ms: Option<u64>, none: &str| time_ms.map_or_else(|| none.to_string(), rfc3339);
            add(SCRUB_TRANQUILITY, state.tranquility.to_string());
            add("scrub-last-completed", time(state.last_completed_ms, "never"));
            add("scrub-next-run", time(state.next_run_ms(), "now"));
            add("scrub-corruptions_detected", state.corruptions_count.to_string());
        }
        all
    }

    pub(super) async fn set_variable(&self, variable: Variable) -> Result<Variable, AdminError> {
        let Variable { variable: name, value } = &variable;
        match name.as_str() {
            RESYNC_WORKERS => {
                let count = number(name, value)?;
                if !self.node.resync.set_workers_count(count as usize).await.map_err(internal)? {
                    return Err(AdminError::internal(format!("{name} must be from 1 to 8, not {value}")));
                }
            }
            RESYNC_TRANQUILITY => self.node.resync.set_tranquility(number(name, value)?).await.map_err(internal)?,
            SCRUB_TRANQUILITY => {
                let absent = || AdminError::internal("this node has no scrub: disable_scrub is set in its configuration");
                let scrub = self.node.scrub.as_ref().ok_or_else(absent)?;
                scrub.set_tranquility(number(name, value)?).await.map_err(internal)?;
            }
            read_only if READ_ONLY.contains(&read_only) => return Err(AdminError::internal(format!("{name} cannot be set"))),
            _ => return Err(AdminError::internal(format!("there is no variable {name:?}; there are {}", names(&self.all_variables())))),
        }
        Ok(variable)
    }
}

fn number(name: &str, value: &str) -> Result<u32, AdminError> {
    value.parse().map_err(|_| AdminError::internal(format!("{name} must be a number, not {value:?}")))
}

fn names(variables: &Variables) -> String {
    variables.keys().cloned().collect::<Vec<_>>().join(", ")
}

/// A time in RFC 3339, UTC, with milliseconds.
fn rfc3339(time_ms: u64) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|time_ms| jiff::Timestamp::from_millisecond(time_ms).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}
