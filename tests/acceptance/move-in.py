"""Moving in: script/move-in copies a bucket with all that belongs to it, is killed on the way, goes on, and verifies."""

import os
import subprocess
import sys
import time

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty_and_remove, equal
from pages import ROOT, WORK, block, keys

OLD, NEW = "acceptance-move-old", "acceptance-move-new"
SMALL_OBJECTS = 60
TAGS = [{"Key": "a b", "Value": "c+d=ä /@"}, {"Key": "empty", "Value": ""}]
OTHER = next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT)

s3 = client()
config = WORK / "aws-config"
config.write_text(
    block(
        "moving-in.md",
        "config",
        {
            "http://old.example.org:9000": OTHER,
            "us-east-1": "garage",
            "OLD-KEY-ID": os.environ["AWS_ACCESS_KEY_ID"],
            "OLD-SECRET": os.environ["AWS_SECRET_ACCESS_KEY"],
            "http://localhost:3900": ENDPOINT,
        }
        | keys(),
    )
)
environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
environment |= {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true"}
COMMAND = [sys.executable, str(ROOT / "script/move-in"), "--from-profile", "old", "--to-profile", "new"]


def move(*arguments, status=0):
    done = subprocess.run([*COMMAND, *arguments, f"{OLD}={NEW}"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    if done.returncode != status:
        raise AssertionError(f"exit {done.returncode}: {done.stdout[-1500:]}")
    return done.stdout


def count(bucket):
    return sum(page["KeyCount"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket))


with check("fill the old bucket"):
    s3.create_bucket(Bucket=OLD)
    for number in range(SMALL_OBJECTS):
        s3.put_object(Bucket=OLD, Key=f"small/{number:03} ä", Body=data(2000))
    s3.put_object(Bucket=OLD, Key="page", Body=b"<p>", ContentType="text/html", CacheControl="max-age=5", Metadata={"a": "b"}, WebsiteRedirectLocation="/x")
    s3.put_object_tagging(Bucket=OLD, Key="page", Tagging={"TagSet": TAGS})
    s3.put_object(Bucket=OLD, Key="empty", Body=b"")
    upload = s3.create_multipart_upload(Bucket=OLD, Key="parts", ContentType="video/mp4")["UploadId"]
    # Sizes that no client would choose again by itself.
    parts = [s3.upload_part(Bucket=OLD, Key="parts", UploadId=upload, PartNumber=n, Body=data(size)) for n, size in [(1, 5 << 20), (2, 7 << 20), (3, 10)]]
    listed = [{"PartNumber": n, "ETag": part["ETag"]} for n, part in enumerate(parts, 1)]
    s3.complete_multipart_upload(Bucket=OLD, Key="parts", UploadId=upload, MultipartUpload={"Parts": listed})
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    s3.put_bucket_cors(Bucket=OLD, CORSConfiguration={"CORSRules": [rule]})
    redirect = {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/", "HttpRedirectCode": "302"}}
    site = {"IndexDocument": {"Suffix": "page"}, "ErrorDocument": {"Key": "lost"}, "RoutingRules": [redirect]}
    s3.put_bucket_website(Bucket=OLD, WebsiteConfiguration=site)
with check("begin to move, and be killed"):
    process = subprocess.Popen([*COMMAND, "--workers", "1", f"{OLD}={NEW}"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(bucket["Name"] == NEW for bucket in s3.list_buckets()["Buckets"]) or count(NEW) < 20:
        if deadline < time.monotonic() or process.poll() is not None:
            raise AssertionError("nothing was copied")
        time.sleep(0.05)
    process.kill()
    process.wait()
with check("go on"):
    there = count(NEW)
    shown = move()
    if SMALL_OBJECTS + 3 <= there or f"{there} are there already" not in shown:
        raise AssertionError(f"{there} objects were there: {shown}")
with check("everything came along"):
    for key in ["page", "empty", "parts", "small/007 ä"]:
        names = ["ContentLength", "ContentType", "CacheControl", "Metadata", "WebsiteRedirectLocation", "ETag"]
        old, new = (s3.head_object(Bucket=bucket, Key=key) for bucket in (OLD, NEW))
        equal([new.get(name) for name in names], [old.get(name) for name in names])
        equal(s3.get_object(Bucket=NEW, Key=key)["Body"].read(), s3.get_object(Bucket=OLD, Key=key)["Body"].read())
    equal(s3.get_bucket_cors(Bucket=NEW)["CORSRules"], s3.get_bucket_cors(Bucket=OLD)["CORSRules"])
    equal(sorted(s3.get_object_tagging(Bucket=NEW, Key="page")["TagSet"], key=lambda tag: tag["Key"]), TAGS)
    found = s3.get_bucket_website(Bucket=NEW)
    equal({name: found.get(name) for name in site}, site)
with check("a second run copies nothing"):
    equal(f"{SMALL_OBJECTS + 3} are there already" in move("--read"), True)
with check("verification finds what differs"):
    s3.put_object(Bucket=NEW, Key="page", Body=b"other")
    s3.delete_object(Bucket=NEW, Key="empty")
    s3.put_object(Bucket=NEW, Key="new", Body=b"")
    shown = move("--verify-only", status=1)
    for words in ["page: 5 bytes", "empty: is missing", "new: is there, but not at the source", "3 problems"]:
        equal((words, words in shown), (words, True))
with check("another run puts it right"):
    s3.delete_object(Bucket=NEW, Key="new")
    move()
with check("clean up"):
    for bucket in [OLD, NEW]:
        empty_and_remove(s3, bucket)
