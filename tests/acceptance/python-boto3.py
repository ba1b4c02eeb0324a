"""boto3: single calls with every checksum, multipart by hand, presigned URLs, paging, conditions, refusals."""

import os
import urllib.error
import urllib.request

from checks import SIZES, check, client, data, empty_and_remove, equal, refuses

BUCKET = "acceptance-boto3"
s3 = client()


def fetch(url, body=None, method="GET"):
    request = urllib.request.Request(url, data=body, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def get(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


with check("make a bucket"):
    s3.create_bucket(Bucket=BUCKET)
with check("make it again"):
    try:
        s3.create_bucket(Bucket=BUCKET)
    except s3.exceptions.BucketAlreadyOwnedByYou:
        pass
with check("the bucket is listed"):
    equal(BUCKET in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]], True)
with check("location of the bucket"):
    equal(s3.get_bucket_location(Bucket=BUCKET).get("LocationConstraint"), "garage")

contents = {}
for size in SIZES:
    contents[size] = data(size)
    with check(f"put, head and get {size} bytes"):
        stored = s3.put_object(Bucket=BUCKET, Key=f"size/{size}", Body=contents[size])
        head = s3.head_object(Bucket=BUCKET, Key=f"size/{size}")
        equal((head["ContentLength"], head["ETag"]), (size, stored["ETag"]))
        equal(get(f"size/{size}"), contents[size])

for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"]:
    with check(f"checksum {algorithm} is kept and verified"):
        stored = s3.put_object(Bucket=BUCKET, Key="sum", Body=b"sum of " * 1000, ChecksumAlgorithm=algorithm)
        head = s3.head_object(Bucket=BUCKET, Key="sum", ChecksumMode="ENABLED")
        equal(head.get(f"Checksum{algorithm}"), stored[f"Checksum{algorithm}"])
        equal(get("sum", ChecksumMode="ENABLED"), b"sum of " * 1000)
with check("a wrong checksum is refused"):
    refuses(lambda: s3.put_object(Bucket=BUCKET, Key="bad", Body=b"x", ChecksumCRC32="AAAAAA=="), 400)
with check("a wrong Content-MD5 is refused"):
    refuses(lambda: s3.put_object(Bucket=BUCKET, Key="bad", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg=="), 400, "BadDigest")
with check("what was refused is not there"):
    refuses(lambda: s3.head_object(Bucket=BUCKET, Key="bad"), 404)

with check("multipart by hand: parts, list of parts, completion"):
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", Metadata={"kind": "parts"}, ContentType="text/x-parts")["UploadId"]
    parts = [data(5 << 20), data(5 << 20), data(123)]
    done = []
    for number, part in enumerate(parts, start=1):
        answer = s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=part)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    equal(upload in [entry["UploadId"] for entry in s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]], True)
    listed = s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=upload, MaxParts=2)
    equal(([part["Size"] for part in listed["Parts"]], listed["IsTruncated"]), ([5 << 20, 5 << 20], True))
    refuses(lambda: s3.head_object(Bucket=BUCKET, Key="parts"), 404)
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    head = s3.head_object(Bucket=BUCKET, Key="parts")
    equal((head["ContentLength"], head["ContentType"], head["Metadata"]), ((10 << 20) + 123, "text/x-parts", {"kind": "parts"}))
    equal(get("parts"), b"".join(parts))
with check("a range over the border of two parts"):
    equal(get("parts", Range=f"bytes={(5 << 20) - 7}-{(5 << 20) + 6}"), parts[0][-7:] + parts[1][:7])
with check("an aborted upload is gone"):
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="aborted")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="aborted", UploadId=upload)
    refuses(lambda: s3.upload_part(Bucket=BUCKET, Key="aborted", UploadId=upload, PartNumber=2, Body=b"x"), 404, "NoSuchUpload")
with check("completion with a wrong ETag is refused"):
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="wrong")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="wrong", UploadId=upload, PartNumber=1, Body=b"x")
    wrong = {"Parts": [{"PartNumber": 1, "ETag": '"00000000000000000000000000000000"'}]}
    refuses(lambda: s3.complete_multipart_upload(Bucket=BUCKET, Key="wrong", UploadId=upload, MultipartUpload=wrong), 400, "InvalidPart")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="wrong", UploadId=upload)

with check("metadata and headers round trip"):
    given = {"ContentType": "text/x", "CacheControl": "no-cache", "ContentEncoding": "x-none", "ContentLanguage": "en", "Metadata": {"a": "1", "b-c": "two"}}
    s3.put_object(Bucket=BUCKET, Key="meta", Body=b"m", **given)
    head = s3.head_object(Bucket=BUCKET, Key="meta")
    equal({name: head[name] for name in given}, given)
with check("copy keeps metadata, or replaces them when asked"):
    source = {"Bucket": BUCKET, "Key": "meta"}
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source)
    equal(s3.head_object(Bucket=BUCKET, Key="copied")["Metadata"], {"a": "1", "b-c": "two"})
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source, MetadataDirective="REPLACE", Metadata={"new": "3"}, ContentType="text/y")
    head = s3.head_object(Bucket=BUCKET, Key="copied")
    equal((head["Metadata"], head["ContentType"], get("copied")), ({"new": "3"}, "text/y", b"m"))

with check("conditions on reads"):
    etag = s3.head_object(Bucket=BUCKET, Key="meta")["ETag"]
    equal(get("meta", IfMatch=etag), b"m")
    refuses(lambda: get("meta", IfMatch='"other"'), 412)
    refuses(lambda: get("meta", IfNoneMatch=etag), 304)

names = [f"list/{letter}/{number:03}" for letter in "abc" for number in range(15)] + ["list/top"]
with check("list 46 keys in pages of 10"):
    for name in names:
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 10}))
    equal([entry["Key"] for page in pages for entry in page.get("Contents", [])], sorted(names))
    equal([page["KeyCount"] for page in pages], [10, 10, 10, 10, 6])
with check("list with a delimiter, page by page"):
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": 1}))
    equal([prefix["Prefix"] for page in pages for prefix in page.get("CommonPrefixes", [])], ["list/a/", "list/b/", "list/c/"])
    equal([entry["Key"] for page in pages for entry in page.get("Contents", [])], ["list/top"])
with check("list from a key on"):
    answer = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/c/", StartAfter="list/c/012")
    equal([entry["Key"] for entry in answer["Contents"]], ["list/c/013", "list/c/014"])
with check("list, version 1, by marker"):
    pages = list(s3.get_paginator("list_objects").paginate(Bucket=BUCKET, Prefix="list/", PaginationConfig={"PageSize": 7}))
    equal([entry["Key"] for page in pages for entry in page.get("Contents", [])], sorted(names))

with check("presigned GET"):
    equal(fetch(s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "size/16385"})), contents[16385])
with check("presigned GET with other headers in the answer"):
    params = {"Bucket": BUCKET, "Key": "meta", "ResponseContentType": "text/z"}
    with urllib.request.urlopen(s3.generate_presigned_url("get_object", Params=params), timeout=60) as answer:
        equal(answer.headers["content-type"], "text/z")
with check("presigned PUT"):
    fetch(s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "presigned"}), b"by url", "PUT")
    equal(get("presigned"), b"by url")
with check("a presigned URL with another method is refused"):
    try:
        fetch(s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "meta"}), b"x", "PUT")
        raise AssertionError("it was accepted")
    except urllib.error.HTTPError as error:
        equal(error.code, 403)

with check("NoSuchKey"):
    refuses(lambda: get("absent"), 404, "NoSuchKey")
with check("NoSuchBucket"):
    refuses(lambda: s3.list_objects_v2(Bucket="acceptance-absent"), 404, "NoSuchBucket")
with check("a wrong secret is refused"):
    refuses(lambda: client(aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="wrong").list_objects_v2(Bucket=BUCKET), 403, "SignatureDoesNotMatch")
with check("a range past the end is refused"):
    refuses(lambda: get("meta", Range="bytes=5-"), 416, "InvalidRange")
with check("a bucket name out of rules is refused"):
    refuses(lambda: s3.create_bucket(Bucket="acceptance_underscore"), 400, "InvalidBucketName")
with check("removing a bucket with objects is refused"):
    refuses(lambda: s3.delete_bucket(Bucket=BUCKET), 409, "BucketNotEmpty")

with check("versions"):
    kept = f"{BUCKET}-versions"
    s3.create_bucket(Bucket=kept)
    s3.put_bucket_versioning(Bucket=kept, VersioningConfiguration={"Status": "Enabled"})
    first, second = (s3.put_object(Bucket=kept, Key="file", Body=body)["VersionId"] for body in [b"first", b"second"])
    marker = s3.delete_object(Bucket=kept, Key="file")["VersionId"]
    refuses(lambda: s3.get_object(Bucket=kept, Key="file"), 404, "NoSuchKey")
    equal(s3.get_object(Bucket=kept, Key="file", VersionId=first)["Body"].read(), b"first")
    found = s3.list_object_versions(Bucket=kept)
    equal([entry["VersionId"] for entry in found["Versions"] + found["DeleteMarkers"]], [second, first, marker])
    s3.delete_object(Bucket=kept, Key="file", VersionId=marker)
    equal(s3.get_object(Bucket=kept, Key="file")["Body"].read(), b"second")
    answer = s3.delete_objects(Bucket=kept, Delete={"Objects": [{"Key": "file", "VersionId": version} for version in (first, second)]})
    equal((len(answer["Deleted"]), answer.get("Errors")), (2, None))
    s3.delete_bucket(Bucket=kept)
with check("delete, and delete again"):
    s3.delete_object(Bucket=BUCKET, Key="meta")
    refuses(lambda: s3.head_object(Bucket=BUCKET, Key="meta"), 404)
    s3.delete_object(Bucket=BUCKET, Key="meta")
with check("delete several, some of them absent"):
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "list/top"}, {"Key": "absent"}]})
    equal((sorted(entry["Key"] for entry in answer["Deleted"]), answer.get("Errors")), (["absent", "list/top"], None))
with check("empty and remove the bucket"):
    empty_and_remove(s3, BUCKET)
    refuses(lambda: s3.head_bucket(Bucket=BUCKET), 404)
