"""Moving in: script/move-in copies a bucket with all that belongs to it, is killed on the way, goes on, and verifies; from Garage and from MinIO."""

import os
import subprocess
import sys
import time

from botocore.exceptions import BotoCoreError, ClientError

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty_and_remove, equal
from pages import CLIENTS, ROOT, WORK, Program, block, end_all, free_port, keys

SMALL_OBJECTS = 60
OBJECTS = SMALL_OBJECTS + 4
# MinIO takes no other letters.
TAGS = [{"Key": "a b", "Value": "c+d= /@"}, {"Key": "empty", "Value": ""}]
MORE_TAGS = [{"Key": "a b", "Value": "c+d=ä /@"}, {"Key": "empty", "Value": ""}]
BUCKET_TAGS = [{"Key": "team", "Value": "web"}]
RULE = {"ID": "old", "Filter": {"Prefix": "small/"}, "Status": "Enabled", "Expiration": {"Days": 4000}}
REDIRECT = {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/", "HttpRedirectCode": "302"}}
SITE = {"IndexDocument": {"Suffix": "page"}, "ErrorDocument": {"Key": "lost"}, "RoutingRules": [REDIRECT]}
CORS = [{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}]
OTHER = next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT)
MINIO_KEY, MINIO_SECRET = "of-the-old-server", "secret-of-the-old-server"
HEADERS = ["ContentLength", "ContentType", "CacheControl", "ContentDisposition", "ContentLanguage", "Metadata", "ETag"]
new_side = client()


class Move:
    """A bucket of an old server, and where it goes."""

    def __init__(self, name, endpoint, key, secret, region):
        self.name, self.old, self.new, self.tags = name, f"acceptance-move-{name}", f"acceptance-move-{name}-new", TAGS
        self.source = client(endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name=region)
        exchange = {"http://old.example.org:9000": endpoint, "us-east-1": region, "OLD-KEY-ID": key, "OLD-SECRET": secret, "http://localhost:3900": ENDPOINT}
        config = WORK / f"aws-config-{name}"
        config.write_text(block("moving-in.md", "config", exchange | keys()))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment |= {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true"}
        self.command = [sys.executable, str(ROOT / "script/move-in"), "--from-profile", "old", "--to-profile", "new"]

    def check(self, what):
        return check(f"{self.name}: {what}")

    def run(self, *arguments, status=0):
        command = [*self.command, *arguments, f"{self.old}={self.new}"]
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        if done.returncode != status:
            raise AssertionError(f"exit {done.returncode}: {done.stdout[-1500:]}")
        return done.stdout

    def is_made(self):
        try:
            new_side.head_bucket(Bucket=self.new)
            return True
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return False

    def count(self):
        return sum(page["KeyCount"] for page in new_side.get_paginator("list_objects_v2").paginate(Bucket=self.new))

    def fill(self):
        s3, bucket = self.source, self.old
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for number in range(SMALL_OBJECTS):
            s3.put_object(Bucket=bucket, Key=f"small/{number:03} ä", Body=data(2000))
        headers = {"ContentType": "text/html", "CacheControl": "max-age=5", "ContentDisposition": 'attachment; filename="ü.html"', "ContentLanguage": "de"}
        s3.put_object(Bucket=bucket, Key="page", Body=b"<p>", Metadata={"a": "b", "long-name": "c d"}, **headers)
        s3.put_object_tagging(Bucket=bucket, Key="page", Tagging={"TagSet": self.tags})
        s3.put_object(Bucket=bucket, Key="empty", Body=b"")
        # Of the old versions the last counts, and what was deleted is not there.
        for content in [b"first", b"second"]:
            s3.put_object(Bucket=bucket, Key="versions", Body=content)
        s3.put_object(Bucket=bucket, Key="deleted", Body=b"")
        s3.delete_object(Bucket=bucket, Key="deleted")
        upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", ContentType="video/mp4")["UploadId"]
        # Sizes that no client would choose again by itself.
        sizes = [(1, 5 << 20), (2, 7 << 20), (3, 10)]
        parts = [s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=n, Body=data(size)) for n, size in sizes]
        listed = [{"PartNumber": n, "ETag": part["ETag"]} for n, part in enumerate(parts, 1)]
        s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": listed})
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": BUCKET_TAGS})
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [RULE]})

    def begin_and_kill(self):
        process = subprocess.Popen([*self.command, "--workers", "1", f"{self.old}={self.new}"], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        try:
            # Not whether it is listed: that it is while it is being made, too.
            while not self.is_made() or self.count() < 20:
                if deadline < time.monotonic() or process.poll() is not None:
                    raise AssertionError("nothing was copied")
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()

    def compare(self):
        for key in ["page", "empty", "parts", "versions", "small/007 ä"]:
            old, new = self.source.head_object(Bucket=self.old, Key=key), new_side.head_object(Bucket=self.new, Key=key)
            equal([new.get(name) for name in HEADERS], [old.get(name) for name in HEADERS])
            contents = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for s3, bucket in [(self.source, self.old), (new_side, self.new)]]
            equal(contents[1], contents[0])
        equal(sorted(new_side.get_object_tagging(Bucket=self.new, Key="page")["TagSet"], key=lambda tag: tag["Key"]), self.tags)
        equal(new_side.get_bucket_tagging(Bucket=self.new)["TagSet"], BUCKET_TAGS)
        equal(new_side.get_bucket_versioning(Bucket=self.new)["Status"], "Enabled")
        [rule] = new_side.get_bucket_lifecycle_configuration(Bucket=self.new)["Rules"]
        equal({name: rule.get(name) for name in RULE}, RULE)

    def differ(self):
        new_side.put_object(Bucket=self.new, Key="page", Body=b"other")
        new_side.delete_object(Bucket=self.new, Key="empty")
        new_side.put_object(Bucket=self.new, Key="new", Body=b"")
        shown = self.run("--verify-only", status=1)
        for words in ["page: 5 bytes", "empty: is missing", "new: is there, but not at the source", "3 problems"]:
            equal((words, words in shown), (words, True))
        new_side.delete_object(Bucket=self.new, Key="new")

    def differ_unseen(self):
        """What neither size nor ETag shows."""
        new_side.copy_object(Bucket=self.new, Key="page", CopySource=f"{self.new}/page", MetadataDirective="REPLACE", ContentType="text/plain", TaggingDirective="REPLACE")
        self.run("--verify-only")
        names = ["CacheControl", "ContentDisposition", "ContentLanguage", "ContentType", "Metadata", "tags"]
        equal(f"page: differs in {', '.join(names)}\n" in self.run("--verify-only", "--read", status=1), True)
        equal(f"{OBJECTS} are there already" in self.run("--by-size"), True)

    def clean_up(self):
        for s3, bucket in [(self.source, self.old), (new_side, self.new)]:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for found in page.get("Versions", []) + page.get("DeleteMarkers", []):
                    s3.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])
            empty_and_remove(s3, bucket)


def move(side, fill_more, compare_more):
    with side.check("fill the old bucket"):
        side.fill()
        fill_more(side)
    with side.check("begin to move, and be killed"):
        side.begin_and_kill()
    with side.check("go on"):
        there = side.count()
        shown = side.run()
        if OBJECTS <= there or f"{there} are there already" not in shown or f"] {OBJECTS - there}/{OBJECTS - there} objects" not in shown:
            raise AssertionError(f"{there} objects were there: {shown}")
    with side.check("everything came along"):
        side.compare()
        compare_more(side)
    with side.check("a second run copies nothing, and finds all the same"):
        equal(f"{OBJECTS} are there already" in side.run("--read"), True)
    with side.check("verification finds what differs"):
        side.differ()
    with side.check("another run puts it right"):
        side.run()
        side.run("--verify-only", "--read")
    with side.check("reading finds other metadata, too"):
        side.differ_unseen()
    with side.check("clean up"):
        side.clean_up()


def fill_site(side):
    """What MinIO does not know."""
    side.source.put_bucket_cors(Bucket=side.old, CORSConfiguration={"CORSRules": CORS})
    side.source.put_bucket_website(Bucket=side.old, WebsiteConfiguration=SITE)
    side.source.put_object(Bucket=side.old, Key="small/007 ä", Body=b"", WebsiteRedirectLocation="/x")
    side.tags = MORE_TAGS
    side.source.put_object_tagging(Bucket=side.old, Key="page", Tagging={"TagSet": side.tags})


def compare_site(side):
    equal(new_side.get_bucket_cors(Bucket=side.new)["CORSRules"], CORS)
    found = new_side.get_bucket_website(Bucket=side.new)
    equal({name: found.get(name) for name in SITE}, SITE)
    equal(new_side.head_object(Bucket=side.new, Key="small/007 ä")["WebsiteRedirectLocation"], "/x")


def start_minio():
    port = free_port()
    environment = os.environ | {"HOME": str(WORK), "MINIO_ROOT_USER": MINIO_KEY, "MINIO_ROOT_PASSWORD": MINIO_SECRET}
    command = [CLIENTS / "bin" / "minio", "server", "--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{free_port()}", WORK / "minio"]
    minio = Program(command, "minio.log", port, env=environment)
    s3 = client(f"http://127.0.0.1:{port}", aws_access_key_id=MINIO_KEY, aws_secret_access_key=MINIO_SECRET, region_name="us-east-1")
    deadline = time.monotonic() + 60
    while True:
        # It listens before it has set everything up.
        try:
            s3.list_buckets()
            return port
        except (ClientError, BotoCoreError) as error:
            if deadline < time.monotonic():
                raise AssertionError(f"MinIO does not answer: {minio.tail()}") from error
            time.sleep(0.2)


try:
    move(Move("garage", OTHER, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], "garage"), fill_site, compare_site)
    port = None
    with check("MinIO starts"):
        port = start_minio()
    if port:
        nothing = lambda side: None
        move(Move("minio", f"http://127.0.0.1:{port}", MINIO_KEY, MINIO_SECRET, "us-east-1"), nothing, nothing)
finally:
    end_all()
