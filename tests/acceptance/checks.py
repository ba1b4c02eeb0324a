"""What the Python flows share: checks that are counted, clients of each node, data to move."""

import hashlib
import os
import sys
import traceback

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["ENDPOINT"]
ENDPOINTS = os.environ["ENDPOINTS"].split()
# Nothing, small, just over what is stored inline, one block, several parts.
SIZES = [0, 1024, 16385, 1 << 20, 20 << 20]
if os.environ.get("ACCEPTANCE_ALL"):
    # With all that is small about 100 MB.
    SIZES.append(80 << 20)


def client(endpoint=ENDPOINT, retries=0, **arguments):
    """An S3 client of one node that does not repeat what fails, so that no failure is hidden."""
    config = Config(retries={"max_attempts": retries}, s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60)
    return boto3.client("s3", endpoint_url=endpoint, config=config, **arguments)


def data(size):
    """Fresh noise."""
    return os.urandom(size)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class check:
    """`with check("what"):` counts the block as one check: good unless it raises."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            print(f"ok - {self.what}", flush=True)
            return False
        if not issubclass(kind, Exception):
            return False
        print(f"not ok - {self.what}: {kind.__name__}: {error}", flush=True)
        line = traceback.extract_tb(trace)[-1]
        print(f"    {os.path.basename(line.filename)}:{line.lineno}: {line.line}", flush=True)
        answer = getattr(error, "response", None)
        if answer:
            print(f"    answer: {answer}", flush=True)
        return True


def equal(found, expected):
    """Raises unless both are equal; long bytes are shown by their hash."""
    if found != expected:
        show = lambda value: f"{len(value)} bytes, sha256 {sha256(value)}" if isinstance(value, bytes) else repr(value)
        raise AssertionError(f"found {show(found)}, expected {show(expected)}")


def refuses(call, status, *codes):
    """Raises unless `call()` is answered with this status and one of these codes."""
    try:
        call()
    except ClientError as error:
        found = (error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"].get("Code"))
        if found[0] != status or (codes and found[1] not in codes):
            raise AssertionError(f"refused with {found}, expected {status} {' or '.join(codes)}") from error
        return
    raise AssertionError(f"succeeded, expected {status} {' or '.join(codes)}")


def empty(s3, bucket):
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
            equal(answer.get("Errors", []), [])


def empty_and_remove(s3, bucket):
    empty(s3, bucket)
    s3.delete_bucket(Bucket=bucket)


if __name__ == "__main__":
    sys.exit("this file holds no flow")
