//! What programs do with the AWS SDK for Rust: each check prints one line.
//!
//! main BUCKET; the access key and the endpoint come from the AWS variables and ENDPOINT.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
    VersioningConfiguration,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Nothing, small, just over what is stored inline, one block, several parts.
const SIZES: [usize; 5] = [0, 1024, 16385, 1 << 20, 20 << 20];
const PART_BYTES: usize = 5 << 20;

#[tokio::main]
async fn main() -> Outcome {
    let bucket = std::env::args().nth(1).ok_or("which bucket?")?;
    let run = Run { client: client()?, bucket, contents: SIZES.iter().map(|size| (*size, noise(*size))).collect() };
    check("make a bucket", run.make().await);
    check("upload all sizes with metadata", run.upload().await);
    check("read them, with their sums", run.read().await);
    check("upload a file as it is read", run.upload_file().await);
    check("upload in parts", run.upload_parts().await);
    check("a range, and what is not there", run.range().await);
    check("a conditional write", run.conditional().await);
    check("copy", run.copy().await);
    check("presigned requests", run.presigned().await);
    check("list in pages", run.list().await);
    check("versions, and a delete that is taken back", run.versions().await);
    check("delete everything", run.delete().await);
    Ok(())
}

fn client() -> Outcome<Client> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let keys = Credentials::new(variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?, None, None, "environment");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(variable("ENDPOINT")?)
        .region(Region::new("garage"))
        .credentials_provider(keys)
        .force_path_style(true);
    Ok(Client::from_conf(config.build()))
}

fn check(what: &str, outcome: Outcome) {
    match outcome {
        Ok(()) => println!("ok - {what}"),
        Err(error) => println!("not ok - {what}: {error}: {error:?}"),
    }
}

fn equal<T: PartialEq + Debug>(found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}").into()) }
}

fn same(found: &[u8], expected: &[u8]) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(format!("found {} bytes that differ from the {} expected", found.len(), expected.len()).into())
    }
}

/// The code of what is expected to be refused.
fn code<T, E: ProvideErrorMetadata, R>(answer: Result<T, SdkError<E, R>>) -> String {
    answer.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
}

fn noise(size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut content)).expect("the system has noise");
    content
}

/// Status and body of a request that needs nothing but its URL.
fn fetch(request: &PresignedRequest, body: &[u8]) -> Outcome<(u16, Vec<u8>)> {
    let uri = request.uri().strip_prefix("http://").ok_or("not plain HTTP")?;
    let (host, path) = uri.split_once('/').ok_or("no path")?;
    let mut stream = TcpStream::connect(host)?;
    let mut head =
        format!("{} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n", request.method(), body.len());
    for (name, value) in request.headers() {
        if !name.eq_ignore_ascii_case("content-length") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|found| found == b"\r\n\r\n").ok_or("no end of the head")?;
    let status = std::str::from_utf8(&answer[9..12])?.parse()?;
    Ok((status, answer[end + 4..].to_vec()))
}

struct Run {
    client: Client,
    bucket: String,
    contents: BTreeMap<usize, Vec<u8>>,
}

impl Run {
    async fn make(&self) -> Outcome {
        self.client.create_bucket().bucket(&self.bucket).send().await?;
        self.client.head_bucket().bucket(&self.bucket).send().await?;
        Ok(())
    }

    async fn upload(&self) -> Outcome {
        for (size, content) in &self.contents {
            let put = self.client.put_object().bucket(&self.bucket).key(format!("sizes/{size}")).metadata("size", size.to_string());
            put.body(ByteStream::from(content.clone())).send().await?;
        }
        Ok(())
    }

    async fn read(&self) -> Outcome {
        for (size, content) in &self.contents {
            let get = self.client.get_object().bucket(&self.bucket).key(format!("sizes/{size}"));
            let answer = get.checksum_mode(ChecksumMode::Enabled).send().await?;
            let listed = answer.metadata().and_then(|found| found.get("size").cloned());
            equal((listed, answer.checksum_crc32().is_some()), (Some(size.to_string()), true))?;
            same(&answer.body.collect().await?.into_bytes(), content)?;
        }
        Ok(())
    }

    async fn upload_file(&self) -> Outcome {
        let path = std::env::temp_dir().join(format!("s3-programs-{}", std::process::id()));
        std::fs::write(&path, &self.contents[&(1 << 20)])?;
        let put = self.client.put_object().bucket(&self.bucket).key("file").checksum_algorithm(ChecksumAlgorithm::Sha256);
        let sent = put.body(ByteStream::from_path(&path).await?).send().await;
        std::fs::remove_file(&path)?;
        equal(sent?.checksum_sha256().is_some(), true)?;
        let answer = self.client.get_object().bucket(&self.bucket).key("file").send().await?;
        same(&answer.body.collect().await?.into_bytes(), &self.contents[&(1 << 20)])
    }

    async fn upload_parts(&self) -> Outcome {
        let content = &self.contents[&(20 << 20)];
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key("parts").checksum_algorithm(ChecksumAlgorithm::Crc32C);
        let upload = begin.send().await?.upload_id.ok_or("no upload id")?;
        let mut parts = Vec::new();
        for (number, piece) in (1..).zip(content.chunks(PART_BYTES)) {
            let part = self.client.upload_part().bucket(&self.bucket).key("parts").upload_id(&upload).part_number(number);
            let sent = part.checksum_algorithm(ChecksumAlgorithm::Crc32C).body(ByteStream::from(piece.to_vec())).send().await?;
            let done = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).set_checksum_crc32_c(sent.checksum_crc32_c);
            parts.push(done.build());
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        self.client.complete_multipart_upload().bucket(&self.bucket).key("parts").upload_id(upload).multipart_upload(all).send().await?;
        let answer = self.client.get_object().bucket(&self.bucket).key("parts").checksum_mode(ChecksumMode::Enabled).send().await?;
        same(&answer.body.collect().await?.into_bytes(), content)
    }

    async fn range(&self) -> Outcome {
        let answer = self.client.get_object().bucket(&self.bucket).key("sizes/1048576").range("bytes=100-199").send().await?;
        same(&answer.body.collect().await?.into_bytes(), &self.contents[&(1 << 20)][100..200])?;
        equal(code(self.client.get_object().bucket(&self.bucket).key("absent").send().await), "NoSuchKey".to_owned())?;
        let head = self.client.head_object().bucket(&self.bucket).key("absent").send().await;
        equal(head.is_err_and(|error| error.into_service_error().is_not_found()), true)
    }

    async fn conditional(&self) -> Outcome {
        let put = self.client.put_object().bucket(&self.bucket).key("sizes/1024").if_none_match("*");
        equal(code(put.body(ByteStream::from_static(b"x")).send().await), "PreconditionFailed".to_owned())
    }

    async fn copy(&self) -> Outcome {
        let copy = self.client.copy_object().bucket(&self.bucket).key("copy").copy_source(format!("{}/sizes/16385", self.bucket));
        copy.send().await?;
        let head = self.client.head_object().bucket(&self.bucket).key("copy").send().await?;
        equal(head.content_length(), Some(16385))
    }

    async fn presigned(&self) -> Outcome {
        let valid = PresigningConfig::expires_in(Duration::from_secs(60))?;
        let put = self.client.put_object().bucket(&self.bucket).key("presigned").presigned(valid.clone()).await?;
        equal(fetch(&put, b"content")?.0, 200)?;
        let get = self.client.get_object().bucket(&self.bucket).key("presigned").presigned(valid).await?;
        equal(fetch(&get, b"")?, (200, b"content".to_vec()))
    }

    async fn list(&self) -> Outcome {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).into_paginator().page_size(3).send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page?.contents().iter().filter_map(|entry| entry.key().map(str::to_owned)));
        }
        let mut expected: Vec<String> = ["copy", "file", "parts", "presigned"].map(str::to_owned).to_vec();
        expected.extend(SIZES.map(|size| format!("sizes/{size}")));
        expected.sort();
        equal(keys, expected)
    }

    async fn versions(&self) -> Outcome {
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        self.client.put_bucket_versioning().bucket(&self.bucket).versioning_configuration(on).send().await?;
        let put =
            |body: &'static [u8]| self.client.put_object().bucket(&self.bucket).key("versioned").body(ByteStream::from_static(body)).send();
        let first = put(b"first").await?.version_id.ok_or("no version id")?;
        put(b"second").await?;
        let marker = self.client.delete_object().bucket(&self.bucket).key("versioned").send().await?.version_id.ok_or("no marker")?;
        equal(code(self.client.get_object().bucket(&self.bucket).key("versioned").send().await), "NoSuchKey".to_owned())?;
        let old = self.client.get_object().bucket(&self.bucket).key("versioned").version_id(first).send().await?;
        same(&old.body.collect().await?.into_bytes(), b"first")?;
        self.client.delete_object().bucket(&self.bucket).key("versioned").version_id(marker).send().await?;
        let answer = self.client.get_object().bucket(&self.bucket).key("versioned").send().await?;
        same(&answer.body.collect().await?.into_bytes(), b"second")
    }

    async fn delete(&self) -> Outcome {
        let list = self.client.list_object_versions().bucket(&self.bucket).send().await?;
        let mut all = Vec::new();
        for version in list.versions() {
            all.push(ObjectIdentifier::builder().set_key(version.key.clone()).set_version_id(version.version_id.clone()).build()?);
        }
        let several = Delete::builder().set_objects(Some(all)).build()?;
        let answer = self.client.delete_objects().bucket(&self.bucket).delete(several).send().await?;
        equal(answer.errors().len(), 0)?;
        self.client.delete_bucket().bucket(&self.bucket).send().await?;
        Ok(())
    }
}
