//! Requests as bytes on a socket: for clients that break the rules of HTTP.

use std::{net::SocketAddr, time::Duration};

use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wait::PATIENCE;

/// The head of a request with these headers too, and the empty line.
pub fn head(request: &Request<()>, more: &[(&str, &str)]) -> Vec<u8> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{} {target} HTTP/1.1\r\n", request.method()).into_bytes();
    let own = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in own.chain(more.iter().map(|(name, value)| (*name, value.as_bytes()))) {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Sends bytes, then the end of the stream, and returns all that comes back until the server closes.
///
/// What the server no longer wants to read is not an error.
pub async fn exchange(address: SocketAddr, sent: &[u8]) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = stream.split();
        let sending = async {
            let _ = write.write_all(sent).await;
            let _ = write.shutdown().await;
        };
        let mut received = Vec::new();
        let receiving = async {
            let _ = read.read_to_end(&mut received).await;
        };
        tokio::join!(sending, receiving);
        String::from_utf8_lossy(&received).into_owned()
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("the server answers or closes")
}

/// Sends a whole request, keeps the stream open, and returns all that comes back until the server closes.
pub async fn ask(address: SocketAddr, sent: &[u8]) -> String {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = stream.split();
        let mut received = Vec::new();
        let sending = async { write.write_all(sent).await };
        let receiving = async { read.read_to_end(&mut received).await };
        // What the server no longer wants to read is not an error.
        let _ = tokio::join!(sending, receiving);
        String::from_utf8_lossy(&received).into_owned()
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the server answers or closes")
}

/// A connection whose request never ends: a line of it is sent, and no more.
pub async fn half_open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let connecting = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(address));
    let mut stream = connecting.await.map_err(std::io::Error::other)??;
    stream.write_all(b"GET /bucket/key HTTP/1.1\r\nhost: ").await?;
    Ok(stream)
}

/// Status line and S3 code of an answer.
pub fn status_and_code(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let code = answer.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    (status, code.map_or_else(String::new, |(code, _)| code.to_owned()))
}
