//! `s3-load`: one kind of S3 request, many times, in parallel; prints one line of JSON and fails when a request failed.
//!
//! The access key comes from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_DEFAULT_REGION`.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use garage_testkit::load::{Client, Credentials, Operation, Plan, Until, run};

/// One kind of S3 request, many times, in parallel
#[derive(Parser)]
struct Arguments {
    /// What each request does
    operation: Operation,
    /// http://host:port; several take turns
    #[arg(long, env = "AWS_ENDPOINT_URL", value_delimiter = ',', required = true)]
    endpoint: Vec<http::Uri>,
    /// The bucket, which must exist
    #[arg(long)]
    bucket: String,
    /// Objects are named by the prefix and 8 digits
    #[arg(long, default_value = "load/")]
    prefix: String,
    /// Size of the objects, bytes
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Requests at once
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Requests in all
    #[arg(long, required_unless_present = "duration_s")]
    count: Option<u64>,
    /// Instead of a count: no request begins after so many seconds
    #[arg(long, conflicts_with = "count")]
    duration_s: Option<u64>,
    /// How many objects there are [default: the count]; for a list: keys wanted on the page
    #[arg(long, required_unless_present = "count")]
    keys: Option<u64>,
    /// Loads of different numbers store different bytes; reads need the number of the writes
    #[arg(long, default_value_t = 0)]
    content: u32,
    /// Sign the SHA-256 of each body
    #[arg(long)]
    sign_bodies: bool,
    /// A request that takes longer has failed, seconds
    #[arg(long, default_value_t = 120)]
    request_time_max_s: u64,
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide = true)]
    access_key_id: String,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, hide = true)]
    secret_access_key: String,
    #[arg(long, env = "AWS_DEFAULT_REGION", default_value = "garage", hide = true)]
    region: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let credentials = Credentials { access_key_id: arguments.access_key_id, secret: arguments.secret_access_key, region: arguments.region };
    let request_time_max = Duration::from_secs(arguments.request_time_max_s);
    let client = Client::new(arguments.endpoint, arguments.bucket, credentials, arguments.sign_bodies, request_time_max);
    let until = match (arguments.count, arguments.duration_s) {
        (Some(count), _) => Until::Count(count),
        (None, seconds) => Until::Elapsed(Duration::from_secs(seconds.unwrap_or_default())),
    };
    let key_count = arguments.keys.or(arguments.count).unwrap_or_default();
    let plan = Plan {
        operation: arguments.operation,
        size_bytes: arguments.size,
        concurrency: arguments.concurrency,
        until,
        prefix: arguments.prefix,
        key_count,
        content_number: arguments.content,
    };
    match run(client, plan).await {
        Ok(report) => {
            println!("{}", serde_json::to_string(&report).expect("a report has only names, numbers and texts"));
            if report.error_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("s3-load: {error}");
            ExitCode::FAILURE
        }
    }
}
