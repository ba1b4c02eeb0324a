//! What every front counts of its requests, under the names that dashboards know.
//!
//! Names: `<prefix>_request_counter`, `<prefix>_error_counter`, `<prefix>_request_duration`; counters have no suffix `_total`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric, family::Family, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds of all duration histograms, in seconds.
const DURATION_BOUNDS_S: [f64; 33] = [
    0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0,
    7.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 100.0,
];

/// Names and values of a series' labels.
pub type Labels = Vec<(&'static str, String)>;

/// A counter that is written without the suffix `_total`.
#[derive(Clone, Debug, Default)]
struct PlainCounter(Arc<AtomicU64>);

impl PlainCounter {
    fn increase(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
impl EncodeMetric for PlainCounter {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        // The encoder adds the suffix to counters only, and a gauge's line is otherwise the same.
        encoder.encode_gauge(&self.0.load(Ordering::Relaxed))
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
impl TypedMetric for PlainCounter {
    const TYPE: MetricType = MetricType::Counter;
}

/// Requests of one front. Cheap to clone. Whoever notes a request bounds the values of its labels.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: Family<Labels, PlainCounter>,
    errors: Family<Labels, PlainCounter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
}

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BOUNDS_S)
}

impl RequestMetrics {
    /// Counters that `registry` tells of; `what` says in the plural what is counted.
    pub fn register(registry: &mut Registry, prefix: &str, what: &str) -> RequestMetrics {
        let durations: Family<Labels, Histogram, fn() -> Histogram> = Family::new_with_constructor(duration_histogram);
        let metrics = RequestMetrics { requests: Family::default(), errors: Family::default(), durations };
        registry.register(format!("{prefix}_request_counter"), format!("Finished {what}"), metrics.requests.clone());
        registry.register(
            format!("{prefix}_error_counter"),
            format!("Of the {what}, those answered with an error"),
            metrics.errors.clone(),
        );
        registry.register(format!("{prefix}_request_duration"), format!("Seconds until the answer to {what}"), metrics.durations.clone());
        metrics
    }

    /// Counts an answered request; `failure`: the label `status_code` of one that failed.
    pub fn note(&self, labels: Labels, failure: Option<String>, took: Duration) {
        self.requests.get_or_create(&labels).increase();
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        if let Some(status) = failure {
            let labels = labels.into_iter().chain([("status_code", status)]).collect();
            self.errors.get_or_create(&labels).increase();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::RequestMetrics;

    #[test]
    fn a_failed_request_counts_as_request_and_as_error() {
        let mut registry = Registry::default();
        let metrics = RequestMetrics::register(&mut registry, "web", "requests to websites");
        metrics.note(vec![("method", "GET".into())], None, Duration::from_millis(3));
        metrics.note(vec![("method", "GET".into())], Some("404 Not Found".into()), Duration::from_millis(3));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "web_request_counter{method=\"GET\"} 2",
            "web_error_counter{method=\"GET\",status_code=\"404 Not Found\"} 1",
            "web_request_duration_count{method=\"GET\"} 2",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
