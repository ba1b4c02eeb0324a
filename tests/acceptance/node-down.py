"""One node is killed: everything goes on through the others, and through it as soon as it is back."""

import os
import socket
import subprocess
import time
import urllib.parse

from checks import ENDPOINTS, check, client, data, empty_and_remove, equal, refuses

BUCKET = "acceptance-node-down"
VICTIM = len(ENDPOINTS)
DEV_CLUSTER = os.environ["DEV_CLUSTER"]
# A request may take this much longer when a node has just gone.
SLOWER_MAX_S = 1.0
STARTS_WITHIN_S = 60

nodes = [client(endpoint) for endpoint in ENDPOINTS]
survivors, victim = nodes[:-1], nodes[-1]
written = {}


def cluster(*arguments):
    subprocess.run([DEV_CLUSTER, *arguments], check=True, stdout=subprocess.DEVNULL)


def await_port(endpoint):
    """Waits until the node takes connections; what it answers then is what is tested."""
    address = urllib.parse.urlparse(endpoint)
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            socket.create_connection((address.hostname, address.port), timeout=1).close()
            return
        except OSError:
            if deadline < time.monotonic():
                raise
            time.sleep(0.02)


def timed(call):
    started = time.monotonic()
    answer = call()
    return answer, time.monotonic() - started


def put(node, key, size):
    body = data(size)
    _, seconds = timed(lambda: node.put_object(Bucket=BUCKET, Key=key, Body=body))
    written[key] = body
    return seconds


def read_all(node):
    slowest = 0.0
    for key, body in sorted(written.items()):
        found, seconds = timed(lambda: node.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        equal(found, body)
        slowest = max(slowest, seconds)
    keys = [entry["Key"] for page in node.get_paginator("list_objects_v2").paginate(Bucket=BUCKET) for entry in page.get("Contents", [])]
    equal(keys, sorted(written))
    return slowest


with check("write through all nodes"):
    nodes[0].create_bucket(Bucket=BUCKET)
    for index, node in enumerate(nodes):
        for size in [100, 20_000, 3 << 20]:
            put(node, f"before/{index}/{size}", size)

baseline_s = 0.0
with check("read through all nodes"):
    baseline_s = max(read_all(node) for node in nodes)

with check("kill a node"):
    cluster("kill", str(VICTIM))

with check("the first writes after it succeed through each other node, none much slower"):
    slowest = 0.0
    for turn in range(20):
        for index, node in enumerate(survivors):
            slowest = max(slowest, put(node, f"during/{index}/{turn}", [100, 20_000, 1 << 20][turn % 3]))
    if baseline_s + SLOWER_MAX_S < slowest:
        raise AssertionError(f"a request took {slowest:.2f} s; the slowest before was {baseline_s:.2f} s")
with check("all is read and listed through each other node, none much slower"):
    slowest = max(read_all(node) for node in survivors)
    if baseline_s + SLOWER_MAX_S < slowest:
        raise AssertionError(f"a request took {slowest:.2f} s; the slowest before was {baseline_s:.2f} s")
with check("overwrites, deletes and uploads in parts succeed without it"):
    put(survivors[0], "before/0/100", 200)
    survivors[-1].delete_object(Bucket=BUCKET, Key="before/1/100")
    del written["before/1/100"]
    upload = survivors[0].create_multipart_upload(Bucket=BUCKET, Key="during/parts")["UploadId"]
    bodies = [data(5 << 20), data(10)]
    parts = []
    for number, body in enumerate(bodies, start=1):
        node = survivors[number % len(survivors)]
        etag = node.upload_part(Bucket=BUCKET, Key="during/parts", UploadId=upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    survivors[-1].complete_multipart_upload(Bucket=BUCKET, Key="during/parts", UploadId=upload, MultipartUpload={"Parts": parts})
    written["during/parts"] = b"".join(bodies)
    for node in survivors:
        refuses(lambda: node.head_object(Bucket=BUCKET, Key="before/1/100"), 404)
        read_all(node)

with check("start it again"):
    cluster("start", str(VICTIM))
    await_port(ENDPOINTS[VICTIM - 1])
with check("through it, at once: all that was written, nothing that was deleted"):
    read_all(victim)
    refuses(lambda: victim.head_object(Bucket=BUCKET, Key="before/1/100"), 404)
with check("through it, at once: new writes, read through the others"):
    for size in [100, 20_000, 3 << 20]:
        put(victim, f"after/{size}", size)
    for node in nodes:
        read_all(node)
with check("clean up"):
    empty_and_remove(nodes[0], BUCKET)
