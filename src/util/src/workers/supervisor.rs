//! Runs the workers of a node and tells how they are.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{Report, Step, Wake, Worker, WorkerState, WorkerStatus, throttle};
use crate::runtime::Runtime;

/// Ended workers that are remembered; the oldest are forgotten first.
pub const DONE_WORKERS_MAX_COUNT: usize = 64;
/// The shortest pause of an idle worker, so that one that always names "no time at all" can't take a core.
pub const IDLE_MIN: Duration = Duration::from_millis(10);

/// A worker's number on its node, from 1, never used again while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The workers of a node. Cheap to clone.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    last_id: AtomicU64,
    statuses: Mutex<BTreeMap<WorkerId, WorkerStatus>>,
}

impl Workers {
    /// No workers yet; they will run in the tasks of `runtime`, which joins them when the node stops.
    pub fn new(runtime: Runtime) -> Workers {
        Workers(Arc::new(Inner { runtime, last_id: AtomicU64::new(0), statuses: Mutex::default() }))
    }

    /// Starts a worker; `wake` ends its idleness.
    pub fn start(&self, worker: impl Worker, wake: Wake) -> WorkerId {
        let id = WorkerId(self.0.last_id.fetch_add(1, Ordering::SeqCst) + 1);
        let status = WorkerStatus {
            id,
            name: worker.name(),
            state: WorkerState::Busy,
            errors_count: 0,
            consecutive_errors_count: 0,
            last_error: None,
            report: worker.report(),
        };
        self.0.statuses.lock().insert(id, status);
        let this = self.clone();
        self.0.runtime.spawn("worker", async move { this.run(id, worker, wake).await });
        id
    }

    /// All workers, by number.
    pub fn list(&self) -> Vec<WorkerStatus> {
        self.0.statuses.lock().values().cloned().collect()
    }

    /// One worker; `None`: there is none of this number, or it ended long ago.
    pub fn get(&self, id: WorkerId) -> Option<WorkerStatus> {
        self.0.statuses.lock().get(&id).cloned()
    }

    async fn run(&self, id: WorkerId, mut worker: impl Worker, wake: Wake) {
        let mut steps = throttle::Throttle::default();
        loop {
            self.update(id, |status| status.state = WorkerState::Busy);
            let begun = Instant::now();
            let stepped = worker.step().await;
            let (took, report) = (begun.elapsed(), worker.report());
            let tranquility = report.tranquility.unwrap_or(0);
            match stepped {
                Ok(step) => {
                    self.note_success(id, report, step);
                    match step {
                        Step::Busy => self.rest(id, steps.rest_after(took, tranquility)).await,
                        // A wake that is lost with the wait was for a worker that is about to step anyway.
                        Step::Idle(patience) => {
                            tokio::select! { biased; () = wake.woken() => {} () = sleep(patience.max(IDLE_MIN)) => {} }
                        }
                        Step::Done => return self.forget_oldest_done(),
                    }
                }
                Err(error) => {
                    let failed_count = self.note_failure(id, report, error.to_string());
                    sleep(throttle::backoff(failed_count)).await;
                }
            }
        }
    }

    async fn rest(&self, id: WorkerId, rest: Duration) {
        if rest.is_zero() {
            return tokio::task::yield_now().await;
        }
        self.update(id, |status| status.state = WorkerState::Throttled { rest });
        sleep(rest).await;
    }

    fn note_success(&self, id: WorkerId, report: Report, step: Step) {
        self.update(id, |status| {
            status.report = report;
            status.consecutive_errors_count = 0;
            status.state = match step {
                Step::Busy => WorkerState::Busy,
                Step::Idle(_) => WorkerState::Idle,
                Step::Done => WorkerState::Done,
            };
        });
    }

    /// Notes it; how many in a row there were.
    fn note_failure(&self, id: WorkerId, report: Report, reason: String) -> u64 {
        let now_ms = self.0.runtime.now_ms();
        self.update(id, |status| {
            tracing::warn!(worker = %status.name, error = %reason, "a background worker failed; it tries again after a back-off");
            status.report = report;
            status.state = WorkerState::Idle;
            status.errors_count += 1;
            status.consecutive_errors_count += 1;
            status.last_error = Some((reason, now_ms));
        });
        self.get(id).map_or(1, |status| status.consecutive_errors_count)
    }

    fn update(&self, id: WorkerId, change: impl FnOnce(&mut WorkerStatus)) {
        if let Some(status) = self.0.statuses.lock().get_mut(&id) {
            change(status);
        }
    }

    fn forget_oldest_done(&self) {
        let mut statuses = self.0.statuses.lock();
        let done: Vec<WorkerId> = statuses.values().filter(|status| status.state == WorkerState::Done).map(|status| status.id).collect();
        for id in done.iter().take(done.len().saturating_sub(DONE_WORKERS_MAX_COUNT)) {
            statuses.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures::{FutureExt, future::BoxFuture};
    use parking_lot::Mutex;
    use tokio::time::{Instant, sleep};

    use super::{DONE_WORKERS_MAX_COUNT, WorkerId, Workers};
    use crate::{
        runtime::Runtime,
        workers::{Report, Step, StepError, Wake, Worker, WorkerState},
    };

    /// Does what it is told, one after the other; each step takes a second. Notes when each began.
    struct Told {
        steps: Vec<Result<Step, &'static str>>,
        tranquility: u32,
        begun: Arc<Mutex<Vec<Duration>>>,
        start: Instant,
    }

    impl Worker for Told {
        fn name(&self) -> String {
            "told".to_string()
        }
        fn step(&mut self) -> BoxFuture<'_, Result<Step, StepError>> {
            self.begun.lock().push(self.start.elapsed());
            let step = if self.steps.is_empty() { Ok(Step::Idle(Duration::from_secs(3_600))) } else { self.steps.remove(0) };
            async move {
                sleep(Duration::from_secs(1)).await;
                step.map_err(StepError::from)
            }
            .boxed()
        }
        fn report(&self) -> Report {
            Report { tranquility: Some(self.tranquility), queue_length: Some(self.steps.len() as u64), ..Report::default() }
        }
    }

    fn told(
        workers: &Workers,
        steps: Vec<Result<Step, &'static str>>,
        tranquility: u32,
        wake: &Wake,
    ) -> (WorkerId, Arc<Mutex<Vec<Duration>>>) {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let worker = Told { steps, tranquility, begun: begun.clone(), start: Instant::now() };
        (workers.start(worker, wake.clone()), begun)
    }

    fn seconds(begun: &Mutex<Vec<Duration>>) -> Vec<f64> {
        begun.lock().iter().map(Duration::as_secs_f64).map(|seconds| (seconds * 10.0).round() / 10.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_worker_rests_in_proportion_and_a_failing_one_longer_each_time() {
        let (runtime, _tasks) = Runtime::real();
        let workers = Workers::new(runtime);
        let (id, begun) = told(&workers, vec![Ok(Step::Busy), Err("no"), Err("still no"), Ok(Step::Busy)], 2, &Wake::default());
        sleep(Duration::from_secs(60)).await;
        // A step of 1 s and a rest of 2 s; a failure of 1 s and 1.5 s; one of 1 s and 2.25 s; a step of 1 s and 2 s.
        assert_eq!(seconds(&begun), [0.0, 3.0, 5.5, 8.8, 11.8]);
        let status = workers.get(id).unwrap();
        assert_eq!((status.state, status.errors_count, status.consecutive_errors_count), (WorkerState::Idle, 2, 0));
        assert_eq!(status.last_error.unwrap().0, "still no");
        assert_eq!(status.report.queue_length, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_ends_idleness_even_if_it_came_during_a_step() {
        let (runtime, _tasks) = Runtime::real();
        let (workers, wake) = (Workers::new(runtime), Wake::default());
        let (_, begun) = told(&workers, Vec::new(), 0, &wake);
        sleep(Duration::from_millis(500)).await;
        wake.wake();
        sleep(Duration::from_secs(10)).await;
        wake.wake();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(seconds(&begun), [0.0, 1.0, 10.5]);
    }

    #[tokio::test(start_paused = true)]
    async fn ended_workers_are_remembered_up_to_a_limit() {
        let (runtime, _tasks) = Runtime::real();
        let workers = Workers::new(runtime);
        let (kept, _) = told(&workers, Vec::new(), 0, &Wake::default());
        for _ in 0..DONE_WORKERS_MAX_COUNT + 3 {
            told(&workers, vec![Ok(Step::Done)], 0, &Wake::default());
            sleep(Duration::from_secs(2)).await;
        }
        let done = workers.list().iter().filter(|status| status.state == WorkerState::Done).count();
        assert_eq!(done, DONE_WORKERS_MAX_COUNT);
        assert!(workers.get(kept).is_some() && workers.get(WorkerId(2)).is_none());
    }

    #[tokio::test]
    async fn workers_end_with_the_node() {
        let (runtime, tasks) = Runtime::real();
        let workers = Workers::new(runtime);
        told(&workers, vec![Ok(Step::Busy)], 0, &Wake::default());
        assert!(tasks.stop(Duration::from_secs(30)).await);
    }
}
