//! A client's multipart uploads: created, filled, completed (again and again) or aborted, each step through another node.

use std::{sync::Arc, time::Duration};

use garage_model::{
    ModelError,
    body::WholeBody,
    error::ClientError,
    node::Node,
    objects::{StoredObject, WriteCondition},
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
        if self.seed.one_in(4) {
            return self.abort(&filled).await;
        }
        self.complete(&filled, fresh.value).await;
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
        match complete_once(&world, node, filled).await {
            Some(Ok(_)) => world.history.anomaly("an upload whose abort was acknowledged was completed".to_string()),
            Some(Err(ModelError::Client(error))) if error != ClientError::NoSuchUpload => {
                world.history.anomaly(format!("completing an aborted upload: {error}"));
            }
            _ => {}
        }
    }

    /// Completes an upload, asking again until it is answered; afterwards, once in a while, asks again for the same answer.
    async fn complete(&mut self, filled: &Filled, value: u32) {
        let (world, mut node) = (self.world.clone(), self.pick_node());
        let call = world.history.begin(filled.key, node, Action::Put(value), Condition::Always);
        let (mut told, mut first) = (Told::Failed, None);
        for _ in 0..ATTEMPTS_MAX {
            match complete_once(&world, node, filled).await {
                Some(Ok(stored)) => {
                    (told, first) = (Told::Done, Some(stored));
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
            self.complete_again(filled, &first).await;
        }
    }

    /// What was completed is answered alike, and changes nothing.
    async fn complete_again(&mut self, filled: &Filled, first: &StoredObject) {
        let pause_ms = self.seed.pick(4) * self.seed.pick(1_000);
        sleep(Duration::from_millis(pause_ms)).await;
        let (node, world) = (self.pick_node(), self.world.clone());
        match complete_once(&world, node, filled).await {
            Some(Ok(again)) if again == *first => {}
            Some(Ok(again)) => world.history.anomaly(format!("a repeated completion answers {again:?} instead of {first:?}")),
            Some(Err(ModelError::Client(error))) => world.history.anomaly(format!("a repeated completion is refused: {error}")),
            _ => {}
        }
    }
}

async fn complete_once(world: &World, node: usize, filled: &Filled) -> Option<Result<StoredObject, ModelError>> {
    world.history.note(|| format!("complete key {} through {node}", filled.key));
    let (bucket, name, upload) = (&world.bucket, &world.keys[filled.key], filled.upload);
    let complete = |node: Node| async move {
        let condition = WriteCondition::default();
        let request =
            CompleteRequest { parts: &filled.parts, condition: &condition, checksum: None, size_bytes: None, combine: &|_, _| None };
        node.uploads.complete(bucket, name, upload, request, context()).await
    };
    let answer = world.ask(node, complete).await;
    world.history.note(|| format!("completed key {} through {node}: {answer:?}", filled.key));
    answer
}
