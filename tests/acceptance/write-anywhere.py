"""Whatever is written through one node is read at once through each other one: objects, overwrites, lists, deletes, uploads, buckets."""

from checks import ENDPOINTS, SIZES, check, client, data, empty_and_remove, equal, refuses

BUCKET = "acceptance-anywhere"
ROUND_COUNT = 5
nodes = [client(endpoint) for endpoint in ENDPOINTS]


def others(index):
    return [node for other, node in enumerate(nodes) if other != index]


def keys_of(node, prefix):
    pages = node.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


with check("a bucket made through one node is there through all"):
    nodes[0].create_bucket(Bucket=BUCKET)
    for node in nodes:
        node.head_bucket(Bucket=BUCKET)

for index, writer in enumerate(nodes):
    name = f"node {index + 1}"
    for size in SIZES:
        with check(f"{size} bytes written through {name} are read, found and listed through each other"):
            for turn in range(ROUND_COUNT if size < 1 << 20 else 1):
                key, body = f"{index}/{size}/{turn}", data(size)
                etag = writer.put_object(Bucket=BUCKET, Key=key, Body=body)["ETag"]
                for node in others(index):
                    equal(node.get_object(Bucket=BUCKET, Key=key)["Body"].read(), body)
                    equal(node.head_object(Bucket=BUCKET, Key=key)["ETag"], etag)
                    equal(key in keys_of(node, f"{index}/{size}/"), True)
    with check(f"an upload in parts begun through {name} goes on and ends through the others"):
        key = f"{index}/parts"
        upload = writer.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        bodies = [data(5 << 20), data(1000)]
        parts = []
        for number, body in enumerate(bodies, start=1):
            node = nodes[(index + number) % len(nodes)]
            etag = node.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        last = others(index)[-1]
        last.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        for node in nodes:
            equal(node.get_object(Bucket=BUCKET, Key=key)["Body"].read(), b"".join(bodies))

with check("the last of alternating overwrites is what every node reads"):
    for turn in range(30):
        body = f"turn {turn}".encode()
        nodes[turn % len(nodes)].put_object(Bucket=BUCKET, Key="contested", Body=body)
        for node in nodes:
            equal(node.get_object(Bucket=BUCKET, Key="contested")["Body"].read(), body)

for index, deleter in enumerate(nodes):
    with check(f"what is deleted through node {index + 1} is gone through each other"):
        key = f"{index}/1024/0"
        deleter.delete_object(Bucket=BUCKET, Key=key)
        for node in nodes:
            refuses(lambda: node.get_object(Bucket=BUCKET, Key=key), 404, "NoSuchKey")
            equal(key in keys_of(node, f"{index}/"), False)

with check("a bucket removed through one node is gone through all"):
    empty_and_remove(nodes[-1], BUCKET)
    for node in nodes:
        refuses(lambda: node.head_bucket(Bucket=BUCKET), 404)
