//! Every error code: a request that provokes it, or why none of the calls here answers with it.

use garage_api_common::ErrorCode;
use garage_model::{
    limits::BUCKETS_MAX,
    rows::{
        BUCKET,
        bucket::{BucketRow, BucketState, Permissions, Quotas},
    },
};
use garage_rpc::register::WriteId;
use garage_table::{
    Tables,
    control::{Effect, control_group},
    group::RegisterWrite,
    key::SortKey,
};
use garage_util::encoding::Stored;

use crate::{
    client::{Answer, Call, Client, Signed},
    forms::{BOUNDARY, Form, post},
    server::{Cluster, Server, context},
};

enum Provoked {
    Answer(Answer),
    /// Another test provokes it, or nothing can: why.
    Elsewhere(&'static str),
}
use Provoked::{Answer as Answered, Elsewhere};

const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const RULE: &str = "<CORSConfiguration><CORSRule><AllowedOrigin>https://a</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>";

async fn put(server: &Server, name: &str, value: &str) -> Provoked {
    Answered(server.client.call("PUT", "/bkt/k").header(name, value).body("content").send().await)
}
async fn get(server: &Server, target: &str) -> Provoked {
    Answered(server.client.get(target).await)
}
async fn send(call: Call<'_>) -> Provoked {
    Answered(call.send().await)
}
fn chunked<'a>(server: &'a Server, body: &str) -> Call<'a> {
    let call = server.client.call("PUT", "/bkt/k").payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    call.header("x-amz-decoded-content-length", "7").body(body)
}
/// Completes an upload of two parts of a byte each with the list that is made of their ETags.
async fn complete(server: &Server, list: impl Fn(&[String]) -> String) -> Provoked {
    let client = &server.client;
    let id = client.post("/bkt/k?uploads", "").await.ok().element("UploadId").unwrap();
    let mut etags = Vec::new();
    for number in [1, 2] {
        let part = client.put(&format!("/bkt/k?partNumber={number}&uploadId={id}"), "x").await.ok();
        etags.push(part.header("etag").unwrap().to_owned());
    }
    let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", list(&etags));
    Answered(client.post(&format!("/bkt/k?uploadId={id}"), body).await)
}
fn part(number: u32, etag: &str) -> String {
    format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;"))
}
async fn preflight(server: &Server, headers: &[(&str, &str)]) -> Provoked {
    let call = server.client.call("OPTIONS", "/bkt/k").signed(Signed::No);
    send(headers.iter().fold(call, |call, (name, value)| call.header(name, value))).await
}
async fn create_bucket(server: &Server, name: &str, document: &str) -> Provoked {
    Answered(server.client.put(&format!("/{name}"), document).await)
}

/// Adds rows of buckets until there are as many as a cluster may have.
async fn fill_with_buckets(server: &Server) {
    let cluster = &server.node.cluster;
    let content = BucketRow::new(0, 1).to_stored();
    let row = |number: usize| RegisterWrite {
        table: BUCKET,
        key: SortKey([&[0; 24][..], &(number as u64).to_be_bytes()].concat()),
        id: WriteId::random(cluster.runtime()),
        content: content.clone(),
        companions: Vec::new(),
    };
    let tables = Tables::new(cluster.clone(), &server.node.store);
    let written = tables.write(&control_group(), (1..BUCKETS_MAX).map(row).collect(), context()).await.unwrap();
    assert!(written.iter().all(|row| row.is_ok()));
}
/// The state of a bucket while it is checked to be empty, before it is gone.
async fn begin_to_delete(server: &Server) {
    let buckets = server.node.access.buckets();
    let bucket = buckets.resolve(None, "bkt", context()).await.unwrap().unwrap();
    let mark = |row: &mut BucketRow| {
        row.state = BucketState::Deleting;
        Ok(())
    };
    buckets.change(bucket.id, Effect::Restricts, context(), mark).await.unwrap();
}

/// Exhaustive, so that a new code must choose.
async fn provoke(code: ErrorCode, server: &Server) -> Provoked {
    use ErrorCode as Code;
    let client = &server.client;
    match code {
        Code::AccessControlListNotSupported => put(server, "x-amz-acl", "public-read").await,
        Code::AuthorizationHeaderMalformed => {
            send(client.call("GET", "/bkt").signed(Signed::No).header("authorization", "AWS4-HMAC-SHA256 x")).await
        }
        Code::AuthorizationQueryParametersError => send(client.call("GET", "/bkt").signed(Signed::Presigned(604_801, 0))).await,
        Code::BadDigest => put(server, "content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==").await,
        Code::BadRequest => preflight(server, &[]).await,
        Code::EntityTooLarge => {
            send(client.call("PUT", "/bkt/k").payload("UNSIGNED-PAYLOAD").header("content-length", (6u64 << 30).to_string())).await
        }
        Code::EntityTooSmall => complete(server, |etags| part(1, &etags[0]) + &part(2, &etags[1])).await,
        Code::ExpiredToken => Elsewhere("no tokens are given out; all are refused as InvalidToken"),
        Code::IllegalLocationConstraintException => Elsewhere("a constraint that is not this region is InvalidLocationConstraint"),
        Code::IllegalVersioningConfigurationException => Elsewhere("versioning has tests of its own"),
        Code::IncompleteBody => send(chunked(server, "7\r\ncont")).await,
        Code::InvalidArgument => get(server, "/bkt?max-keys=-1").await,
        Code::InvalidBucketAclWithObjectOwnership => send(client.call("PUT", "/new-bucket").header("x-amz-acl", "public-read")).await,
        Code::InvalidBucketName => create_bucket(server, "UPPER", "").await,
        Code::InvalidDigest => put(server, "content-md5", "x").await,
        Code::InvalidEncryptionAlgorithmError => Elsewhere("encryption has tests of its own"),
        Code::InvalidLocationConstraint => {
            let document = "<CreateBucketConfiguration><LocationConstraint>mars</LocationConstraint></CreateBucketConfiguration>";
            create_bucket(server, "new-bucket", document).await
        }
        Code::InvalidPart => complete(server, |_| part(1, "\"00000000000000000000000000000000\"")).await,
        Code::InvalidPartOrder => complete(server, |etags| part(2, &etags[1]) + &part(1, &etags[0])).await,
        Code::InvalidPolicyDocument => Answered(Form::new(client, "x").condition("5").send().await),
        Code::InvalidRedirectLocation => put(server, "x-amz-website-redirect-location", "nowhere").await,
        Code::InvalidRequest => put(server, "x-amz-checksum-crc32", "x").await,
        Code::InvalidStorageClass => put(server, "x-amz-storage-class", "x").await,
        Code::InvalidTag => Elsewhere("tags have tests of their own"),
        Code::InvalidToken => put(server, "x-amz-security-token", "x").await,
        Code::InvalidURI => get(server, "/bkt/%ff").await,
        Code::KeyTooLongError => get(server, &format!("/bkt/{}", "k".repeat(1025))).await,
        Code::MalformedACLError => Answered(client.put("/bkt?acl", "<x/>").await),
        Code::MalformedPOSTRequest => Answered(post(client, "/bkt", b"no form").await),
        Code::MalformedPolicy => Elsewhere("policies have tests of their own"),
        Code::MalformedTrailerError => {
            send(chunked(server, "7\r\ncontent\r\n0\r\n\r\n").header("x-amz-trailer", "x-amz-checksum-crc32")).await
        }
        Code::MalformedXML => Answered(client.post("/bkt?delete", "<Delete>").await),
        Code::MaxMessageLengthExceeded => Answered(client.put("/bkt?cors", " ".repeat(65 << 10)).await),
        Code::MaxPostPreDataLengthExceededError => {
            let form = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n{}", "k".repeat(30_000));
            Answered(post(client, "/bkt", form.as_bytes()).await)
        }
        Code::MetadataTooLarge => put(server, "x-amz-meta-a", &"v".repeat(2048)).await,
        Code::MissingRequestBodyError => Answered(client.post("/bkt?delete", "").await),
        Code::MissingSecurityHeader => Elsewhere("access control has tests of its own"),
        Code::RequestHeaderSectionTooLarge => put(server, "cache-control", &"v".repeat(17 << 10)).await,
        Code::RequestTimeout => Elsewhere("a test of the body's stream waits less long"),
        Code::TooManyBuckets => {
            fill_with_buckets(server).await;
            create_bucket(server, "one-too-many", "").await
        }
        Code::UnexpectedContent => Elsewhere("access control has tests of its own"),
        Code::UnresolvableGrantByEmailAddress => Elsewhere("access control has tests of its own"),
        Code::UserKeyMustBeSpecified => Elsewhere("a form without key is InvalidArgument, as S3 answers"),
        Code::XAmzContentSHA256Mismatch => send(client.call("PUT", "/bkt/k").body("content").payload(NOBODY)).await,
        Code::AccessDenied => send(client.call("GET", "/").signed(Signed::No)).await,
        Code::AccessForbidden => {
            client.put("/bkt?cors", RULE).await.ok();
            preflight(server, &[("origin", "https://b"), ("access-control-request-method", "GET")]).await
        }
        Code::AllAccessDisabled => Elsewhere("no object is disabled"),
        Code::InvalidAccessKeyId => {
            let unknown = Client { address: client.address, key: "GK000000000000000000000000".into(), secret: NOBODY.into() };
            Answered(unknown.get("/bkt").await)
        }
        Code::InvalidChunkSizeError => Elsewhere("small chunks are accepted: clients send them"),
        Code::InvalidObjectState => Elsewhere("nothing is archived"),
        Code::InvalidSecurity => Elsewhere("what is wrong has codes of its own"),
        Code::QuotaExceeded => {
            server.set_quotas(Quotas { size_max_bytes: Some(1), objects_max: None }).await;
            put(server, "x-amz-meta-a", "1").await
        }
        Code::RequestTimeTooSkewed => send(client.call("GET", "/bkt").ago(3600)).await,
        Code::SignatureDoesNotMatch => {
            let wrong = Client { address: client.address, key: client.key.clone(), secret: NOBODY.into() };
            Answered(wrong.get("/bkt").await)
        }
        Code::NoSuchBucket => get(server, "/nowhere").await,
        Code::NoSuchBucketPolicy => get(server, "/bkt?policy").await,
        Code::NoSuchCORSConfiguration => get(server, "/bkt?cors").await,
        Code::NoSuchConfiguration => get(server, "/bkt?metrics&id=x").await,
        Code::NoSuchKey => get(server, "/bkt/none").await,
        Code::NoSuchLifecycleConfiguration => get(server, "/bkt?lifecycle").await,
        Code::NoSuchObjectLockConfiguration => {
            client.call("PUT", "/locked").header("x-amz-bucket-object-lock-enabled", "true").send().await.ok();
            client.put("/locked/k", "x").await.ok();
            get(server, "/locked/k?retention").await
        }
        Code::NoSuchPublicAccessBlockConfiguration => get(server, "/bkt?publicAccessBlock").await,
        Code::NoSuchTagSet => get(server, "/bkt?tagging").await,
        Code::NoSuchUpload => get(server, &format!("/bkt/k?uploadId={NOBODY}")).await,
        Code::NoSuchVersion => get(server, &format!("/bkt/k?versionId={}", &NOBODY[..32])).await,
        Code::NoSuchWebsiteConfiguration => get(server, "/bkt?website").await,
        Code::ObjectLockConfigurationNotFoundError => get(server, "/bkt?object-lock").await,
        Code::OwnershipControlsNotFoundError => Elsewhere("access control has tests of its own"),
        Code::ReplicationConfigurationNotFoundError => get(server, "/bkt?replication").await,
        Code::ServerSideEncryptionConfigurationNotFoundError => get(server, "/bkt?encryption").await,
        Code::NotModified => {
            client.put("/bkt/k", "x").await.ok();
            send(client.call("GET", "/bkt/k").header("if-none-match", "*")).await
        }
        Code::MethodNotAllowed => send(client.call("PATCH", "/bkt/k")).await,
        Code::MissingContentLength => send(client.call("PUT", "/bkt/k").payload("UNSIGNED-PAYLOAD").unframed()).await,
        Code::PreconditionFailed => {
            client.put("/bkt/k", "x").await.ok();
            put(server, "if-none-match", "*").await
        }
        Code::InvalidRange => {
            client.put("/bkt/k", "x").await.ok();
            send(client.call("GET", "/bkt/k").header("range", "bytes=5-")).await
        }
        Code::InvalidPartNumber => {
            client.put("/bkt/k", "x").await.ok();
            get(server, "/bkt/k?partNumber=2").await
        }
        Code::BucketAlreadyExists => {
            let other = server.other_client(Permissions::default(), true).await;
            Answered(other.put("/bkt", "").await)
        }
        Code::BucketAlreadyOwnedByYou => create_bucket(server, "bkt", "").await,
        Code::BucketNotEmpty => {
            client.put("/bkt/k", "x").await.ok();
            Answered(client.delete("/bkt").await)
        }
        Code::ConditionalRequestConflict => Elsewhere("takes rivals that do not give way; a test of the errors maps contention to it"),
        Code::InvalidBucketState => Elsewhere("object lock has tests of its own"),
        Code::OperationAborted => {
            begin_to_delete(server).await;
            put(server, "x-amz-meta-a", "1").await
        }
        Code::InternalError => {
            client.put("/bkt/k", vec![7; 100 << 10]).await.ok();
            std::fs::remove_dir_all(server.data_dir()).unwrap();
            get(server, "/bkt/k").await
        }
        Code::NotImplemented => put(server, "x-amz-write-offset-bytes", "1").await,
        Code::ServiceUnavailable => {
            let cluster = Cluster::start().await;
            cluster.isolate(0);
            Answered(cluster.owners[0].put("/bkt/k", "x").await)
        }
        Code::SlowDown => Elsewhere("takes contention; a test of the errors maps it"),
        Code::InsufficientStorage => Elsewhere("a test of whole processes fills a disk"),
    }
}

#[tokio::test]
async fn every_code_is_provoked_or_has_its_test_elsewhere() {
    let mut elsewhere = Vec::new();
    for code in ErrorCode::ALL {
        // Fresh for each, so that no case depends on another; without I/O it starts in no time.
        let server = Server::start().await;
        match provoke(*code, &server).await {
            Answered(answer) if *code == ErrorCode::NotModified => assert_eq!((answer.status, answer.body.len()), (304, 0)),
            Answered(answer) => {
                answer.is(code.status().as_u16(), code.name());
                assert!(answer.element("Message").is_some_and(|message| !message.is_empty()), "{code:?}");
                assert_eq!(answer.element("RequestId").as_deref(), answer.header("x-amz-request-id"), "{code:?}");
                assert_eq!(answer.header("content-type"), Some("application/xml"), "{code:?}");
            }
            Elsewhere(why) => elsewhere.push((code, why)),
        }
    }
    assert!(elsewhere.len() < ErrorCode::ALL.len() / 3, "most codes are provoked here: {elsewhere:?}");
}
