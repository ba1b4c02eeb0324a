//! The asking side of a request.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    Shared,
    link::Link,
    packed,
    reasons::{CANCELLED, call_broken, call_read, call_write},
    stream::{HeadError, Outgoing, Receiving, head_for},
};
use crate::{
    frame::{AnswerHeader, FrameError, Head, RequestHeader, decode_header},
    limits::{CALL_TIME_MAX, KIND_MAX_BYTES},
    types::{Answer, BodyStream, Call, CallError, Refusal},
};

/// Keeps a link open for a call; returned by drop, with the answer's body if it has one.
pub struct CallPermit {
    /// The link that the call goes over.
    pub link: Arc<Link>,
    /// Counts the call.
    pub _token: TaskTrackerToken,
}

/// Sends a call and gives its answer. Dropped at any point, it tells the other side to stop.
pub(super) async fn call(shared: &Shared, permit: CallPermit, call: Call) -> Result<Answer, CallError> {
    let now = Instant::now();
    let deadline = call.deadline.min(now + CALL_TIME_MAX);
    if deadline <= now {
        return Err(CallError::TimedOut);
    }
    timeout_at(deadline, exchange(shared, permit, call, deadline)).await.unwrap_or(Err(CallError::TimedOut))
}

async fn exchange(shared: &Shared, permit: CallPermit, mut call: Call, deadline: Instant) -> Result<Answer, CallError> {
    if KIND_MAX_BYTES < call.kind.len() {
        return Err(CallError::TooLarge { len_bytes: call.kind.len(), max_bytes: KIND_MAX_BYTES });
    }
    // Before a stream is opened: a message that does not fit costs the other side nothing.
    drop(request_head(&call, None, deadline)?);
    let (payload, packed_from_bytes) = packed::pack(shared, &permit.link, std::mem::take(&mut call.payload)).await;
    call.payload = payload;
    let (stream, receive) = permit.link.connection.open_bi().await.map_err(|error| call_broken(&error))?;
    let mut outgoing = Outgoing::new(stream);
    outgoing.set_priority(call.class.priority());
    let head = request_head(&call, packed_from_bytes, deadline)?;
    let mut receiving = Receiving::new(receive);
    let sending = send(&mut outgoing, head, call.payload, call.body);
    let head = answered(sending, &mut receiving).await?;
    // What is left of the body is of no use to a side that has answered; nothing happens if all was sent.
    outgoing.reset(CANCELLED);
    read_answer(shared, head, receiving, deadline, permit).await
}

/// The head of `call`, with the time that is left now.
fn request_head(call: &Call, packed_from_bytes: Option<u32>, deadline: Instant) -> Result<Bytes, CallError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let header = RequestHeader {
        kind: call.kind.to_owned(),
        class: call.class,
        left_ms: left.as_millis() as u64,
        trace: call.trace,
        layout: call.layout,
        body: call.body.is_some(),
        packed_from_bytes,
    };
    head_for(&header, &call.payload).map_err(|error| match error {
        FrameError::TooLarge { len_bytes, max_bytes, .. } => CallError::TooLarge { len_bytes, max_bytes },
        other => CallError::Broken(other.to_string()),
    })
}

/// Sends head, payload and body. A peer that stops reading has answered or will: not an error here.
async fn send(outgoing: &mut Outgoing, head: Bytes, payload: Bytes, body: Option<BodyStream>) -> Result<(), CallError> {
    let sent = async {
        outgoing.send_head(head, payload).await?;
        match body {
            Some(body) => outgoing.send_body(body).await,
            None => Ok(()),
        }
    };
    match sent.await {
        Ok(()) => outgoing.finish(),
        Err(error) => {
            if let Some(error) = call_write(&error) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Sends and waits for the answer at the same time: a refusal may come before the body is through.
async fn answered(sending: impl Future<Output = Result<(), CallError>>, receiving: &mut Receiving) -> Result<Head, CallError> {
    let mut sending = std::pin::pin!(sending);
    let reading = receiving.read_head(None);
    let mut reading = std::pin::pin!(reading);
    // An answer before the end of the body ends the sending; a sending that ends first leaves `reading` where it was.
    let head = tokio::select! {
        biased;
        sent = &mut sending => { sent?; reading.await }
        head = &mut reading => head,
    };
    head.map_err(|error| match error {
        HeadError::Read(error) => call_read(&error),
        HeadError::Frame(error) => CallError::Broken(format!("the answer is not readable: {error}")),
    })
}

/// The permit lives as long as the answer's body.
async fn read_answer(
    shared: &Shared,
    head: Head,
    receiving: Receiving,
    deadline: Instant,
    permit: CallPermit,
) -> Result<Answer, CallError> {
    let unreadable = |error: FrameError| CallError::Broken(format!("the answer is not readable: {error}"));
    let header: AnswerHeader = decode_header(&head.header).map_err(unreadable)?;
    if header.refused {
        let refusal: Refusal = decode_header(&head.payload).map_err(unreadable)?;
        return Err(CallError::Refused(refusal));
    }
    let payload = packed::unpack(shared, head.payload, header.packed_from_bytes).await.map_err(unreadable)?;
    let body = header.body.then(|| receiving.into_body(head.rest, deadline, permit));
    Ok(Answer { payload, body })
}
