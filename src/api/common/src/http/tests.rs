//! The shell over real sockets: limits, refusals before the body, half-open connections, shutdown.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ::http::{Method, Request, Response, StatusCode};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use garage_util::runtime::{RealTasks, Runtime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Body, HttpService, ListenAddress, Listener, RequestBody, RequestContext, ServerOptions, full_body, serve,
    tls::{CertificateFiles, TlsChoice},
};
use crate::error::S3Error;

/// `/echo` sends the body back, `/wait` answers when told, everything else is refused without a look at the body.
#[derive(Default)]
struct Example {
    arrived: Notify,
    go_on: Notify,
}

impl HttpService for Example {
    fn serve(self: Arc<Self>, request: Request<RequestBody>, context: RequestContext) -> BoxFuture<'static, Response<Body>> {
        async move {
            match request.uri().path() {
                "/echo" => {
                    let mut all = Vec::new();
                    let mut body = request.into_body();
                    while let Some(Ok(piece)) = body.next().await {
                        all.extend_from_slice(&piece);
                    }
                    Response::new(full_body(all))
                }
                "/wait" => {
                    self.arrived.notify_one();
                    self.go_on.notified().await;
                    Response::new(full_body("waited"))
                }
                _ => S3Error::access_denied().to_response(request.method(), &context.ids),
            }
        }
        .boxed()
    }
}

struct Served {
    address: SocketAddr,
    example: Arc<Example>,
    stop: CancellationToken,
    server: JoinHandle<()>,
    _tasks: RealTasks,
}

async fn start(options: ServerOptions) -> Served {
    let listener = Listener::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into()), "test").await.unwrap();
    let address = listener.local_address().unwrap();
    let (example, stop) = (Arc::new(Example::default()), CancellationToken::new());
    let (runtime, tasks) = Runtime::real();
    let server = tokio::spawn(serve(listener, example.clone(), runtime, options, stop.clone()));
    Served { address, example, stop, server, _tasks: tasks }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
    /// Sends `request` on a new connection and reads until the server closes.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
    async fn assert_serves(&self) {
        let answer = self.ask("PUT /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }
}

/// Reads until `wanted` has appeared.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains(wanted) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn every_answer_has_ids_and_a_date() {
    let served = start(ServerOptions { host_id: "node1".into(), ..ServerOptions::default() }).await;
    let answer = served.ask("GET /refused HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    for wanted in [
        "x-amz-request-id: ",
        "x-amz-id-2: node1",
        "date: ",
        "content-type: application/xml",
        "<Code>AccessDenied</Code>",
        "<HostId>node1</HostId>",
    ] {
        assert!(answer.contains(wanted), "{wanted} in {answer}");
    }
}

#[tokio::test]
async fn a_header_of_a_mebibyte_is_refused_cleanly_and_others_go_on() {
    let served = start(ServerOptions::default()).await;
    for size in [40_000, 1 << 20] {
        let request = format!("GET /echo HTTP/1.1\r\nHost: x\r\nx-amz-meta-a: {}\r\n\r\n", "a".repeat(size));
        let answer = served.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{size}: {answer:?}");
    }
    let many = format!("GET /echo HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(served.ask(&many).await.starts_with("HTTP/1.1 431"));
    served.assert_serves().await;
}

#[tokio::test]
async fn headers_below_the_limit_pass() {
    let served = start(ServerOptions::default()).await;
    let request = format!("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-amz-meta-a: {}\r\n\r\n", "a".repeat(30_000));
    assert!(served.ask(&request).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refusal_comes_before_100_continue_and_the_connection_closes() {
    let served = start(ServerOptions::default()).await;
    let answer = served.ask("PUT /refused HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted() {
    let served = start(ServerOptions::default()).await;
    let mut stream = served.connect().await;
    stream.write_all(b"PUT /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"hello").await.unwrap();
    read_until(&mut stream, "hello").await;
}

#[tokio::test]
async fn a_refused_body_is_drained_so_that_the_answer_arrives_and_the_connection_lives() {
    let served = start(ServerOptions::default()).await;
    let mut stream = served.connect().await;
    stream.write_all(b"PUT /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n").await.unwrap();
    stream.write_all(&vec![b'x'; 4_000_000]).await.unwrap();
    read_until(&mut stream, "</Error>").await;
    stream.write_all(b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    read_until(&mut stream, "hello").await;
}

#[tokio::test]
async fn half_open_connections_make_room_for_those_that_ask() {
    let served = start(ServerOptions { connection_count_max: 50, ..ServerOptions::default() }).await;
    let mut kept_alive = served.connect().await;
    let request = b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    kept_alive.write_all(request).await.unwrap();
    read_until(&mut kept_alive, "hello").await;
    let mut half_open = Vec::new();
    for index in 0..300 {
        let mut stream = served.connect().await;
        if index % 2 == 0 {
            stream.write_all(b"GET /echo HT").await.unwrap();
        }
        half_open.push(stream);
    }
    served.assert_serves().await;
    served.assert_serves().await;
    kept_alive.write_all(request).await.unwrap();
    read_until(&mut kept_alive, "hello").await;
}

#[tokio::test]
async fn silent_and_idle_connections_are_closed() {
    let short = Duration::from_millis(50);
    let served = start(ServerOptions { header_read_timeout: short, idle_timeout: short, ..ServerOptions::default() }).await;
    for sent in ["", "GET /echo HTTP/1.1\r\nHost:", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = served.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest.starts_with(b"HTTP/1.1 200"), sent.ends_with("\r\n\r\n"), "{sent:?}");
    }
}

#[tokio::test]
async fn a_stop_lets_requests_under_way_finish_and_takes_no_new_ones() {
    let served = start(ServerOptions::default()).await;
    let idle = served.connect().await;
    let mut busy = served.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    served.example.arrived.notified().await;
    served.stop.cancel();
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    served.example.go_on.notify_one();
    read_until(&mut busy, "waited").await;
    served.server.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn requests_on_their_way_when_the_server_stops_are_answered_and_end_their_connections() {
    let served = start(ServerOptions::default()).await;
    let mut kept_alive = served.connect().await;
    kept_alive.write_all(b"GET /refused HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut kept_alive, "</Error>").await;
    let mut fresh = served.connect().await;
    served.stop.cancel();
    for stream in [&mut kept_alive, &mut fresh] {
        stream.write_all(b"GET /refused HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
    }
    served.server.await.unwrap();
}

#[tokio::test]
async fn half_open_connections_do_not_hold_up_a_stop() {
    let served = start(ServerOptions { drain_timeout: Duration::from_secs(3600), ..ServerOptions::default() }).await;
    let mut streams = Vec::new();
    for sent in ["", "GET /", "GET /echo HTTP/1.1\r\nHost:"] {
        let mut stream = served.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    served.assert_serves().await;
    served.stop.cancel();
    served.server.await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_up_a_stop() {
    let served = start(ServerOptions { drain_timeout: Duration::from_millis(50), ..ServerOptions::default() }).await;
    let mut busy = served.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    served.example.arrived.notified().await;
    served.stop.cancel();
    served.server.await.unwrap();
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_spoken_on_the_same_port() {
    let served = start(ServerOptions::default()).await;
    let io = hyper_util::rt::TokioIo::new(served.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(Method::PUT).uri("http://x/echo").body(full_body("hello")).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "hello");
    connection.abort();
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s3.sock");
    let listener = Listener::bind(&ListenAddress::Unix { path: path.clone(), mode: 0o600 }, "test").await.unwrap();
    let (runtime, _tasks) = Runtime::real();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Arc::new(Example::default()), runtime, ServerOptions::default(), stop.clone()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /refused HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    stop.cancel();
    server.await.unwrap();
}

/// A self-signed certificate for `localhost` and its key, written into `folder`; gives the certificate for clients to trust.
fn write_certificate(folder: &std::path::Path) -> rustls::pki_types::CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

/// A handshake by a client that trusts only `certificate`.
async fn connect_with_tls(
    address: SocketAddr,
    certificate: &rustls::pki_types::CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), TcpStream::connect(address).await?).await
}

#[tokio::test]
async fn a_certificate_in_files_is_served_over_both_protocols_and_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_certificate(folder.path());
    let (runtime, _tasks) = Runtime::real();
    let files = CertificateFiles::open(&folder.path().join("cert.pem"), &folder.path().join("key.pem"), &runtime).await.unwrap();
    let tls: Arc<dyn TlsChoice> = files;
    let served = start(ServerOptions { tls: Some(tls), ..ServerOptions::default() }).await;
    let mut stream = connect_with_tls(served.address, &certificate, b"http/1.1").await.unwrap();
    stream.write_all(b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");

    let stream = connect_with_tls(served.address, &certificate, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(Method::PUT).uri("https://localhost/echo").body(full_body("hello")).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    connection.abort();

    // What can't be used changes nothing; what can be is served to the next client.
    std::fs::write(folder.path().join("cert.pem"), "half a file").unwrap();
    let renewed = write_certificate(folder.path());
    while connect_with_tls(served.address, &renewed, b"http/1.1").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_client_without_tls_does_not_stop_a_server_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_certificate(folder.path());
    let (runtime, _tasks) = Runtime::real();
    let files = CertificateFiles::open(&folder.path().join("cert.pem"), &folder.path().join("key.pem"), &runtime).await.unwrap();
    let tls: Arc<dyn TlsChoice> = files;
    let served = start(ServerOptions { tls: Some(tls), header_read_timeout: Duration::from_millis(200), ..ServerOptions::default() }).await;
    let answer = served.ask("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    let silent = served.connect().await;
    assert!(connect_with_tls(served.address, &certificate, b"http/1.1").await.is_ok());
    drop(silent);
}

#[tokio::test]
async fn certificate_files_that_cannot_be_used_are_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (runtime, _tasks) = Runtime::real();
    let reason = async || CertificateFiles::open(&cert, &key, &runtime).await.err().unwrap().to_string();
    assert!(reason().await.contains("cert.pem can't be read"));
    write_certificate(folder.path());
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&key, other.serialize_pem()).unwrap();
    assert!(reason().await.contains("do not fit together"), "{}", reason().await);
    std::fs::write(&key, "no key").unwrap();
    assert!(reason().await.contains("no private key"), "{}", reason().await);
    std::fs::write(&cert, "").unwrap();
    assert!(reason().await.contains("no certificate"), "{}", reason().await);
}
