//! The answering side of a request.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, WriteError};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::{
    Shared,
    link::Link,
    packed,
    reasons::{CANCELLED, DEADLINE, STREAM_STOPPING},
    stream::{HeadError, Outgoing, Receiving, head_for},
};
use crate::{
    frame::{AnswerHeader, FrameError, Head, RequestHeader, decode_header},
    limits::{CALL_TIME_MAX, HEAD_TIME_MAX, KIND_MAX_BYTES, PAYLOAD_MAX_BYTES},
    types::{Answer, Caller, Incoming, Refusal, refusal_code},
};

/// Serves one stream in a task of its own; the task is counted until the answer has arrived.
pub fn spawn(shared: &Arc<Shared>, link: &Arc<Link>, send: SendStream, receive: RecvStream) {
    let mut outgoing = Outgoing::new(send);
    if shared.closing.is_cancelled() {
        return outgoing.reset(STREAM_STOPPING);
    }
    let token = shared.serving.token();
    let (shared, link) = (shared.clone(), link.clone());
    shared.runtime.clone().spawn("serve a request", async move {
        serve(&shared, &link, outgoing, Receiving::new(receive)).await;
        drop(token);
    });
}

async fn serve(shared: &Shared, link: &Link, mut outgoing: Outgoing, mut receiving: Receiving) {
    let head = match timeout(HEAD_TIME_MAX, receiving.read_head(Some(&shared.payload_budget))).await {
        Ok(Ok(head)) => head,
        Ok(Err(HeadError::Frame(error))) => return refuse(outgoing, unreadable(&error)).await,
        // The caller gave up or went away: nobody waits for a word.
        Ok(Err(HeadError::Read(_))) => return outgoing.reset(CANCELLED),
        Err(_) => return outgoing.reset(DEADLINE),
    };
    let incoming = match read_request(shared, head, link.caller(), receiving).await {
        Ok(incoming) => incoming,
        Err(refusal) => return refuse(outgoing, refusal).await,
    };
    outgoing.set_priority(incoming.class.priority());
    let deadline = incoming.deadline;
    let stopped = outgoing.stopped();
    let work = work(shared, link, incoming, &mut outgoing);
    // `stopped` first: dropping the work of a caller who gave up is the point. After the whole answer is sent, it means that it arrived.
    let ended = tokio::select! {
        biased;
        () = stopped => CANCELLED,
        worked = timeout_at(deadline, work) => match worked { Ok(Ok(())) => return, Ok(Err(_)) => CANCELLED, Err(_) => DEADLINE },
    };
    outgoing.reset(ended);
}

/// Asks the service and sends what it says; returns when the other side has it.
async fn work(shared: &Shared, link: &Link, incoming: Incoming, outgoing: &mut Outgoing) -> Result<(), WriteError> {
    let (head, answer) = match shared.service.serve(incoming).await {
        Ok(answer) if answer.payload.len() <= PAYLOAD_MAX_BYTES => {
            let (payload, packed_from_bytes) = packed::pack(shared, link, answer.payload).await;
            encode_answer(Ok(Answer { payload, ..answer }), packed_from_bytes)
        }
        answer => encode_answer(answer, None),
    };
    send_answer(outgoing, head, answer).await?;
    outgoing.stopped().await;
    Ok(())
}

async fn send_answer(outgoing: &mut Outgoing, head: Bytes, answer: Answer) -> Result<(), WriteError> {
    outgoing.send_head(head, answer.payload).await?;
    if let Some(body) = answer.body {
        outgoing.send_body(body).await?;
    }
    outgoing.finish();
    Ok(())
}

/// Head and content of what goes back. An answer that does not fit becomes a refusal that says so.
fn encode_answer(answer: Result<Answer, Refusal>, packed_from_bytes: Option<u32>) -> (Bytes, Answer) {
    let refusal = match answer {
        Ok(answer) => match head_for(&AnswerHeader { refused: false, body: answer.body.is_some(), packed_from_bytes }, &answer.payload) {
            Ok(head) => return (head, answer),
            Err(error) => Refusal::new(refusal_code::ANSWER_TOO_LARGE, format!("the answer does not fit: {error}")),
        },
        Err(refusal) => refusal,
    };
    let payload = Bytes::from(rmp_serde::to_vec_named(&refusal).unwrap_or_default());
    match head_for(&AnswerHeader { refused: true, body: false, packed_from_bytes: None }, &payload) {
        Ok(head) => (head, Answer::of(payload)),
        // Its detail is what is too large; code and sentence must arrive all the same.
        Err(_) => encode_answer(Err(Refusal::new(refusal.code, refusal.message.chars().take(1000).collect::<String>())), None),
    }
}

async fn refuse(mut outgoing: Outgoing, refusal: Refusal) {
    // The sender of garbage may not read either; then its time is up soon.
    let (head, answer) = encode_answer(Err(refusal), None);
    let sent = timeout(REFUSAL_TIME_MAX, send_answer(&mut outgoing, head, answer)).await;
    if !matches!(sent, Ok(Ok(()))) {
        outgoing.reset(CANCELLED);
    }
}

/// A refused frame's refusal must leave within this time.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(5);

fn unreadable(error: &FrameError) -> Refusal {
    let code = match error {
        FrameError::TooLarge { .. } => refusal_code::FRAME_TOO_LARGE,
        FrameError::Malformed(_) | FrameError::Truncated => refusal_code::MALFORMED_FRAME,
    };
    Refusal::new(code, format!("the request cannot be read: {error}"))
}

async fn read_request(shared: &Shared, head: Head, from: Caller, receiving: Receiving) -> Result<Incoming, Refusal> {
    let header: RequestHeader = decode_header(&head.header).map_err(|error| unreadable(&error))?;
    if KIND_MAX_BYTES < header.kind.len() {
        return Err(unreadable(&FrameError::TooLarge { what: "kind", len_bytes: header.kind.len(), max_bytes: KIND_MAX_BYTES }));
    }
    let deadline = Instant::now() + Duration::from_millis(header.left_ms).min(CALL_TIME_MAX);
    let payload = packed::unpack(shared, head.payload, header.packed_from_bytes).await.map_err(|error| unreadable(&error))?;
    Ok(Incoming {
        from,
        kind: header.kind,
        class: header.class,
        deadline,
        trace: header.trace,
        layout: header.layout,
        payload,
        body: header.body.then(|| receiving.into_body(head.rest, deadline, ())),
    })
}
