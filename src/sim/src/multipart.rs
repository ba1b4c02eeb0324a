//! A client's multipart uploads: created, filled, completed (again and again) or aborted, each step through another node.

use std::{sync::Arc, time::Duration};

use garage_model::{
    ModelError,
    body::WholeBody,
    error::ClientError,
    node::Node,
    objects::StoredObject,
    rows::upload::UploadId,
    uploads::{CompleteRequest, CompletedPart, NewUpload},
};
use tokio::time::sleep;

use crate::{
    client::{Client, World, context},
    content::Fresh,
    history::{Action, Condition, Told},
};

/// All parts but the last have this length.
const FULL_PART_BYTES: usize = 5 << 20;
/// How often a client that was not answered tries again.
const ATTEMPTS_MAX: usize = 3;

/// An upload that has all its parts.
#[derive(Clone)]
struct Filled {
    key: usize,
    upload: UploadId,
    parts: Arc<Vec<CompletedPart>>,
}

impl Client {
    /// A whole upload.
    pub(crate) async fn multipart(&mut self) {
        let key = self.pick_key();
        let last_len_bytes = 4 + self.seed.pick(100 << 10) as usize;
        let lens_bytes = if self.seed.one_in(8) { vec![FULL_PART_BYTES, last_len_bytes] } else { vec![last_len_bytes] };
        let fresh = self.world.contents.fresh_parts(&lens_bytes);
        let Some(upload) = self.create(key).await else { return };
        let Some(parts) = self.fill(key, upload, &fresh).await else { return };
        let filled = Filled { key, upload, parts: Arc::new(parts) };
        match self.seed.pick(6) {
            0 => self.abort(&filled).await,
            1 => self.race(&filled, fresh.value).await,
            _ => {
                let condition = self.pick_condition(key);
                self.complete(&filled, fresh.value, condition).await;
            }
        }
    }

    fn pick_condition(&mut self, key: usize) -> Condition {
        match (self.seed.pick(4), self.known) {
            (0, _) => Condition::Absent,
            (1, Some((known, value))) if known == key && value != 0 => Condition::Is(value),
            _ => Condition::Always,
        }
    }

    /// Completes and aborts at once: one of them wins, and what the other is told says which.
    async fn race(&mut self, filled: &Filled, value: u32) {
        let (world, node, other) = (self.world.clone(), self.pick_node(), self.pick_node());
        let condition = self.pick_condition(filled.key);
        let pause = Duration::from_millis(self.seed.pick(100));
        let call = world.history.begin(filled.key, node, Action::Put(value), condition);
        let (bucket, name, upload) = (&world.bucket, &world.keys[filled.key], filled.upload);
        let aborting = async {
            sleep(pause).await;
            world.ask(other, |node| async move { node.uploads.abort(bucket, name, upload, context()).await }).await
        };
        let (completed, aborted) = futures::future::join(complete_once(&world, node, filled, condition), aborting).await;
        let is_gone = |error: &ModelError| matches!(error, ModelError::Client(ClientError::NoSuchUpload));
        let told = match (&completed, &aborted) {
            (Some(Ok(_)), Some(Ok(()))) => {
                world.history.anomaly("an upload was both completed and aborted".to_string());
                Told::Unknown
            }
            (Some(Ok(_)), _) => Told::Done,
            (Some(Err(ModelError::Client(ClientError::PreconditionFailed { .. } | ClientError::NoSuchKey))), _) => Told::PreconditionFailed,
            // Its abort was acknowledged, or it is gone and was not completed: it never will be.
            (_, Some(Ok(()))) => Told::Failed,
            (Some(Err(error)), _) if is_gone(error) => Told::Failed,
            // It is gone, and nobody aborted it.
            (_, Some(Err(error))) if is_gone(error) => Told::Done,
            _ => Told::Unknown,
        };
        world.history.end(call, told);
    }

    async fn create(&mut self, key: usize) -> Option<UploadId> {
        let (node, world) = (self.pick_node(), self.world.clone());
        let (bucket, name) = (&world.bucket, &world.keys[key]);
        world.ask(node, |node| async move { node.uploads.create(bucket, name, NewUpload::default(), context()).await }).await?.ok()
    }

    async fn fill(&mut self, key: usize, upload: UploadId, fresh: &Fresh) -> Option<Vec<CompletedPart>> {
        let world = self.world.clone();
        let (bucket, name) = (&world.bucket, &world.keys[key]);
        let mut parts = Vec::new();
        for (part_number, piece) in (1..).zip(&fresh.pieces) {
            let mut stored = None;
            for _ in 0..ATTEMPTS_MAX {
                let (node, body) = (self.pick_node(), Box::new(WholeBody::new(piece.clone())));
                let put = |node: Node| async move { node.uploads.put_part(bucket, name, upload, part_number, body, context()).await };
                match world.ask(node, put).await {
                    Some(Ok(part)) => {
                        stored = Some(part);
                        break;
                    }
                    Some(Err(ModelError::Client(error))) => world.history.anomaly(format!("a part of an open upload is refused: {error}")),
                    _ => {}
                }
            }
            parts.push(CompletedPart { part_number, etag: stored?.etag, checksum: None });
        }
        Some(parts)
    }

    async fn abort(&mut self, filled: &Filled) {
        let (node, world) = (self.pick_node(), self.world.clone());
        let (bucket, name, upload) = (&world.bucket, &world.keys[filled.key], filled.upload);
        let aborted = world.ask(node, |node| async move { node.uploads.abort(bucket, name, upload, context()).await }).await;
        if !matches!(aborted, Some(Ok(()))) {
            return;
        }
        let node = self.pick_node();
        match complete_once(&world, node, filled, Condition::Always).await {
            Some(Ok(_)) => world.history.anomaly("an upload whose abort was acknowledged was completed".to_string()),
            Some(Err(ModelError::Client(error))) if error != ClientError::NoSuchUpload => {
                world.history.anomaly(format!("completing an aborted upload: {error}"));
            }
            _ => {}
        }
    }

    /// Completes an upload, asking again until it is answered; afterwards, once in a while, asks again for the same answer.
    async fn complete(&mut self, filled: &Filled, value: u32, condition: Condition) {
        let (world, mut node) = (self.world.clone(), self.pick_node());
        let call = world.history.begin(filled.key, node, Action::Put(value), condition);
        let (mut told, mut first) = (Told::Failed, None);
        for _ in 0..ATTEMPTS_MAX {
            match complete_once(&world, node, filled, condition).await {
                Some(Ok(stored)) => {
                    (told, first) = (Told::Done, Some(stored));
                    break;
                }
                // Whatever an earlier attempt began was brought to its end first: it was not written, and never will be.
                Some(Err(ModelError::Client(ClientError::PreconditionFailed { .. } | ClientError::NoSuchKey)))
                    if condition != Condition::Always =>
                {
                    told = Told::PreconditionFailed;
                    break;
                }
                Some(Err(ModelError::Client(error))) => {
                    world.history.anomaly(format!("completing an upload with all its parts: {error}"));
                }
                // It may be in completion, which a later step may bring to its end.
                _ => told = Told::Unknown,
            }
            node = self.pick_node();
        }
        world.history.end(call, told);
        if let Some(first) = first
            && self.seed.one_in(2)
        {
            let condition = if self.seed.one_in(2) { Condition::Absent } else { condition };
            self.complete_again(filled, &first, condition).await;
        }
    }

    /// What was completed is answered alike, whatever the condition, and changes nothing.
    async fn complete_again(&mut self, filled: &Filled, first: &StoredObject, condition: Condition) {
        let pause_ms = self.seed.pick(4) * self.seed.pick(1_000);
        sleep(Duration::from_millis(pause_ms)).await;
        let (node, world) = (self.pick_node(), self.world.clone());
        match complete_once(&world, node, filled, condition).await {
            Some(Ok(again)) if again == *first => {}
            Some(Ok(again)) => world.history.anomaly(format!("a repeated completion answers {again:?} instead of {first:?}")),
            Some(Err(ModelError::Client(error))) => world.history.anomaly(format!("a repeated completion is refused: {error}")),
            _ => {}
        }
    }
}

async fn complete_once(world: &World, node: usize, filled: &Filled, condition: Condition) -> Option<Result<StoredObject, ModelError>> {
    world.history.note(|| format!("complete key {} through {node}", filled.key));
    let (bucket, name, upload) = (&world.bucket, &world.keys[filled.key], filled.upload);
    let complete = |node: Node| async move {
        let condition = world.condition(condition);
        let request =
            CompleteRequest { parts: &filled.parts, condition: &condition, checksum: None, size_bytes: None, combine: &|_, _| None };
        node.uploads.complete(bucket, name, upload, request, context()).await
    };
    let answer = world.ask(node, complete).await;
    world.history.note(|| format!("completed key {} through {node}: {answer:?}", filled.key));
    answer
}
