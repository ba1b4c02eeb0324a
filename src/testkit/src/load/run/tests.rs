//! Loads against a small server in memory.

use std::{collections::BTreeMap, convert::Infallible};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::{super::sign::Credentials, *};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Stores what is put under its path and gives it back; a list names all keys.
async fn answer(objects: Objects, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path().to_owned();
    let mut objects = objects.lock();
    let found = objects.get(&path).cloned();
    let (status, body) = match (parts.method, found) {
        (Method::PUT, _) => (StatusCode::OK, objects.insert(path, body).map(|_| Bytes::new()).unwrap_or_default()),
        (Method::DELETE, _) => (StatusCode::NO_CONTENT, objects.remove(&path).map(|_| Bytes::new()).unwrap_or_default()),
        (Method::GET, _) if parts.uri.query().is_some() => {
            (StatusCode::OK, objects.keys().map(|key| format!("<Key>{key}</Key>")).collect::<String>().into())
        }
        (Method::GET | Method::HEAD, Some(found)) => (StatusCode::OK, found),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"<Code>NoSuchKey</Code>")),
    };
    Ok(Response::builder().status(status).body(Full::new(body)).unwrap())
}

async fn server() -> (Client, Objects) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let objects = Objects::default();
    let store = objects.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let store = store.clone();
            let service = service_fn(move |request| answer(store.clone(), request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let credentials = Credentials { access_key_id: "GK1".into(), secret: "secret".into(), region: "garage".into() };
    (Client::new(vec![endpoint], "bucket".into(), credentials, true, Duration::from_secs(60)), objects)
}

fn plan(operation: Operation, count: u64) -> Plan {
    Plan {
        operation,
        size_bytes: 10_000,
        concurrency: 4,
        until: Until::Count(count),
        prefix: "load/".into(),
        key_count: 20,
        content_number: 0,
    }
}

async fn check(client: &Client, plan: Plan, done_count: usize, error_count: usize) -> Report {
    let report = run(client.clone(), plan).await.unwrap();
    assert_eq!((report.done_count, report.error_count), (done_count, error_count), "{report:?}");
    report
}

#[tokio::test]
async fn what_is_put_is_found_and_counted_until_it_is_deleted() {
    let (client, objects) = server().await;
    check(&client, plan(Operation::Put, 20), 20, 0).await;
    check(&client, plan(Operation::Get, 50), 50, 0).await;
    check(&client, plan(Operation::Head, 20), 20, 0).await;
    check(&client, plan(Operation::List, 5), 5, 0).await;
    check(&client, plan(Operation::Delete, 20), 20, 0).await;
    assert!(objects.lock().is_empty());
    let report = check(&client, plan(Operation::Get, 3), 0, 3).await;
    assert!(report.first_error.unwrap().contains("NoSuchKey"));
}

#[tokio::test]
async fn loads_of_different_numbers_store_different_bytes() {
    let (client, _) = server().await;
    check(&client, Plan { content_number: 1, ..plan(Operation::Put, 20) }, 20, 0).await;
    check(&client, Plan { content_number: 1, ..plan(Operation::Get, 20) }, 20, 0).await;
    check(&client, Plan { content_number: 2, ..plan(Operation::Get, 20) }, 0, 20).await;
}

#[tokio::test]
async fn a_changed_byte_is_an_error() {
    let (client, objects) = server().await;
    check(&client, plan(Operation::Put, 20), 20, 0).await;
    for object in objects.lock().values_mut() {
        let mut bytes = object.to_vec();
        bytes[9_999] ^= 1;
        *object = bytes.into();
    }
    check(&client, plan(Operation::Get, 20), 0, 20).await;
}

#[tokio::test]
async fn loads_out_of_bounds_are_refused_before_they_begin() {
    let (client, objects) = server().await;
    let refused = [
        Plan { concurrency: 0, ..plan(Operation::Put, 1) },
        Plan { concurrency: CONCURRENCY_MAX + 1, ..plan(Operation::Put, 1) },
        Plan { key_count: 1_001, ..plan(Operation::List, 1) },
        Plan { until: Until::Elapsed(Duration::from_secs(3_601)), ..plan(Operation::Put, 1) },
        Plan { until: Until::Elapsed(Duration::from_secs(1)), ..plan(Operation::Delete, 1) },
        plan(Operation::Put, REQUESTS_MAX + 1),
        plan(Operation::Delete, 21),
    ];
    for plan in refused {
        assert!(run(client.clone(), plan.clone()).await.is_err(), "{plan:?}");
    }
    assert!(objects.lock().is_empty());
}
