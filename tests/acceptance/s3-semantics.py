"""What the S3 documentation says of objects, asked with boto3 and plain HTTP, each call through the next of the three nodes."""

import base64
import datetime
import hashlib
import itertools
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid

import botocore.awsrequest
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.exceptions import ClientError

from checks import ENDPOINTS, check, client, data, empty_and_remove, equal, refuses

BUCKET, OTHER = "acceptance-semantics", "acceptance-semantics-2"
nodes = [client(endpoint) for endpoint in ENDPOINTS]
turns = itertools.cycle(range(len(nodes)))
MIB = 1 << 20


class Everywhere:
    """A client that asks the next node each time."""

    def __getattr__(self, name):
        return getattr(nodes[next(turns)], name)


s3 = Everywhere()


def raw(method, path, body=b"", headers=None, signed=True, query=""):
    """One request over plain HTTP: (status, headers, body). `path` is sent as it stands."""
    endpoint = ENDPOINTS[next(turns)]
    url = endpoint + path + (f"?{query}" if query else "")
    headers = dict(headers or {})
    if signed:
        request = botocore.awsrequest.AWSRequest(method=method, url=url, data=body, headers=headers)
        S3SigV4Auth(botocore.session.get_session().get_credentials(), "s3", "garage").add_auth(request)
        headers = dict(request.headers.items())
    sent = urllib.request.Request(url, data=body if method in ("PUT", "POST") else None, method=method, headers=headers)
    opener = urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(sent, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def get(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


def put(key, body=b"", **arguments):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **arguments)


def head(key, **arguments):
    return s3.head_object(Bucket=BUCKET, Key=key, **arguments)


def code_of(call):
    try:
        call()
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"], error.response
    raise AssertionError("it succeeded")


for name in (BUCKET, OTHER):
    with check(f"make the bucket {name}"):
        s3.create_bucket(Bucket=name)

# ---- metadata -------------------------------------------------------------------------------------------------------------------------

with check("all system metadata come back on GET and HEAD"):
    given = {
        "CacheControl": "max-age=60",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de-CH",
        "ContentType": "text/plain; charset=utf-8",
        "Metadata": {"plain": "value", "with-dash": "a, b", "empty": ""},
        "StorageClass": "STANDARD_IA",
        "WebsiteRedirectLocation": "/elsewhere",
    }
    expires = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    put("meta", b"m", Expires=expires, **given)
    for answer in (head("meta"), s3.get_object(Bucket=BUCKET, Key="meta")):
        equal({name: answer.get(name) for name in given}, given)
        equal(answer["ExpiresString"], "Wed, 02 Jan 2030 03:04:05 GMT")
with check("metadata that are not ASCII come back as encoded words"):
    put("umlaut", b"x", Metadata={"word": "=?UTF-8?Q?gr=C3=BCn?=", "latin": "=?ISO-8859-1?Q?gr=FCn?=", "no-word": "=?what"})
    equal(head("umlaut")["Metadata"], {"word": "=?UTF-8?B?Z3LDvG4=?=", "latin": "=?UTF-8?B?Z3LDvG4=?=", "no-word": "=?what"})
with check("2,048 bytes of metadata fit and no more"):
    put("meta-limit", Metadata={"a": "v" * 2047})
    refuses(lambda: put("meta-limit", Metadata={"a": "v" * 2048}), 400, "MetadataTooLarge")
with check("an object without type is binary, one without class standard"):
    put("plain", b"x")
    answer = head("plain")
    equal((answer["ContentType"], answer.get("StorageClass")), ("binary/octet-stream", None))
for storage_class in ["STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"]:
    with check(f"storage class {storage_class} is accepted, echoed and listed"):
        put("class", b"x", StorageClass=storage_class)
        equal(head("class").get("StorageClass", "STANDARD"), storage_class)
        equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="class")["Contents"][0]["StorageClass"], storage_class)
with check("storage classes that do not exist are refused"):
    refuses(lambda: put("class", b"x", StorageClass="NONSENSE"), 400, "InvalidStorageClass")
with check("redirects lead to paths and URLs only"):
    refuses(lambda: put("redirect", b"x", WebsiteRedirectLocation="elsewhere"), 400, "InvalidRedirectLocation")

# ---- keys -----------------------------------------------------------------------------------------------------------------------------

KEYS = ["a b", "a+b", "a%20b", "a%b", "ä/ö", "dir/", "/lead", "//", "a//b", "..", "a/../b", "\u4e2d\u6587", "\U0001f600", "tab\there", "line\nend", "cr\rkey",
        "q?x=1&y=2", "semi;colon", "<xml>&'\"", "x" * 1024, "~-._!*'()", "\x7f", "\x01"]
# XML 1.0 has no way to write it, so clients can't read an answer that names it, unless it is encoded.
UNSPEAKABLE = "\x01"
with check(f"{len(KEYS)} odd keys are stored, read and listed as they are"):
    for key in KEYS:
        put(f"odd/{key}"[:1024], key.encode())
    for key in KEYS:
        equal(get(f"odd/{key}"[:1024]), key.encode())
    for call in (s3.list_objects_v2, s3.list_objects):
        listed = [entry["Key"] for entry in call(Bucket=BUCKET, Prefix="odd/", EncodingType="url")["Contents"]]
        # boto decodes what it asked to be encoded, unless the caller asked.
        decoded = sorted(urllib.parse.unquote_plus(key) for key in listed)
        equal(decoded, sorted(f"odd/{key}"[:1024] for key in KEYS))
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="odd/")["Contents"]]
    equal(listed, sorted((f"odd/{key}"[:1024] for key in KEYS), key=lambda key: key.encode()))
with check("a key of 1,025 bytes is refused"):
    refuses(lambda: put("k" * 1025), 400, "KeyTooLongError")
with check("a key that is not UTF-8 is refused"):
    equal(raw("PUT", f"/{BUCKET}/%ff", b"x")[0], 400)
with check("odd keys are copied and deleted"):
    for key in KEYS:
        s3.copy_object(Bucket=OTHER, Key=key, CopySource={"Bucket": BUCKET, "Key": f"odd/{key}"[:1024]})
        equal(s3.get_object(Bucket=OTHER, Key=key)["Body"].read(), key.encode())
    s3.delete_object(Bucket=OTHER, Key=UNSPEAKABLE)
    s3.delete_object(Bucket=BUCKET, Key=f"odd/{UNSPEAKABLE}")
    answer = s3.delete_objects(Bucket=OTHER, Delete={"Objects": [{"Key": key} for key in KEYS if key != UNSPEAKABLE]})
    equal((len(answer["Deleted"]), answer.get("Errors")), (len(KEYS) - 1, None))
    equal(s3.list_objects_v2(Bucket=OTHER)["KeyCount"], 0)

# ---- ranges ---------------------------------------------------------------------------------------------------------------------------

for size in (1000, 3 * MIB):
    body = data(size)
    put("ranged", body)
    with check(f"ranges of {size} bytes"):
        for text, start, end in [("0-0", 0, 1), ("0-9", 0, 10), (f"{size - 1}-", size - 1, size), ("-1", size - 1, size), (f"-{size * 2}", 0, size), (f"5-{size * 9}", 5, size)]:
            answer = s3.get_object(Bucket=BUCKET, Key="ranged", Range=f"bytes={text}")
            equal(answer["ResponseMetadata"]["HTTPStatusCode"], 206)
            equal((answer["Body"].read(), answer["ContentRange"]), (body[start:end], f"bytes {start}-{end - 1}/{size}"))
            equal(head("ranged", Range=f"bytes={text}")["ContentLength"], end - start)
    with check(f"ranges past {size} bytes are not satisfiable"):
        status, code, answer = code_of(lambda: get("ranged", Range=f"bytes={size}-"))
        equal((status, code, answer["Error"].get("ActualObjectSize")), (416, "InvalidRange", str(size)))
        equal(answer["ResponseMetadata"]["HTTPHeaders"]["content-range"], f"bytes */{size}")
        refuses(lambda: get("ranged", Range="bytes=-0"), 416, "InvalidRange")
    with check(f"what is no single range of bytes is ignored ({size})"):
        for text in ("bytes=0-1,3-4", "items=0-1", "bytes=9-3", "bytes=a-b", "0-1"):
            answer = s3.get_object(Bucket=BUCKET, Key="ranged", Range=text)
            equal((answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentLength"]), (200, size))
with check("ranges of an empty object"):
    put("empty")
    refuses(lambda: get("empty", Range="bytes=0-"), 416, "InvalidRange")
    equal(get("empty", Range="bytes=-5"), b"")
    equal((head("empty")["ContentLength"], get("empty")), (0, b""))

# ---- conditions -----------------------------------------------------------------------------------------------------------------------

etag = put("conditional", b"content", CacheControl="max-age=9")["ETag"]
modified = head("conditional")["LastModified"]
before, after = modified - datetime.timedelta(days=1), modified + datetime.timedelta(days=1)
CONDITIONS = [
    ({"IfMatch": etag}, 200),
    ({"IfMatch": etag.strip('"')}, 200),
    ({"IfMatch": '"other"'}, 412),
    ({"IfNoneMatch": etag}, 304),
    ({"IfNoneMatch": '"other"'}, 200),
    ({"IfModifiedSince": before}, 200),
    ({"IfModifiedSince": modified}, 304),
    ({"IfModifiedSince": after}, 200),
    ({"IfUnmodifiedSince": before}, 412),
    ({"IfUnmodifiedSince": modified}, 200),
    ({"IfMatch": etag, "IfUnmodifiedSince": before}, 200),
    ({"IfMatch": '"other"', "IfUnmodifiedSince": after}, 412),
    ({"IfNoneMatch": etag, "IfModifiedSince": before}, 304),
    ({"IfNoneMatch": '"other"', "IfModifiedSince": modified}, 200),
    ({"IfMatch": etag, "IfNoneMatch": etag}, 304),
    ({"IfMatch": '"other"', "IfNoneMatch": etag}, 412),
    ({"IfNoneMatch": etag, "Range": "bytes=99-"}, 304),
    ({"IfMatch": '"other"', "Range": "bytes=99-"}, 412),
    ({"IfMatch": etag, "Range": "bytes=99-"}, 416),
    ({"IfMatch": etag, "Range": "bytes=0-1"}, 206),
]
with check(f"{len(CONDITIONS)} conditions on GET and HEAD"):
    for arguments, expected in CONDITIONS:
        for call in (s3.get_object, s3.head_object):
            try:
                found = call(Bucket=BUCKET, Key="conditional", **arguments)["ResponseMetadata"]["HTTPStatusCode"]
            except ClientError as error:
                found = error.response["ResponseMetadata"]["HTTPStatusCode"]
            equal((arguments, found), (arguments, expected))
with check("304 keeps the validators and has no body"):
    status, headers, body = raw("GET", f"/{BUCKET}/conditional", headers={"If-None-Match": etag})
    equal((status, headers["ETag"], headers["Cache-Control"], body), (304, etag, "max-age=9", b""))
with check("412 names the condition"):
    _, code, answer = code_of(lambda: get("conditional", IfMatch='"other"'))
    equal((code, answer["Error"].get("Condition")), ("PreconditionFailed", "If-Match"))

# ---- overrides ------------------------------------------------------------------------------------------------------------------------

OVERRIDES = {
    "ResponseContentType": ("content-type", "text/x-other"),
    "ResponseContentLanguage": ("content-language", "fr"),
    "ResponseCacheControl": ("cache-control", "no-store"),
    "ResponseContentDisposition": ("content-disposition", "attachment; filename=\"\u00fc.txt\""),
    "ResponseContentEncoding": ("content-encoding", "x-none"),
}
with check("headers of the answer can be chosen, presigned too"):
    arguments = {name: value for name, (_, value) in OVERRIDES.items()}
    url = nodes[0].generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "meta", **arguments}, ExpiresIn=60)
    with urllib.request.urlopen(url, timeout=60) as fetched:
        for header, value in OVERRIDES.values():
            equal(fetched.headers[header].encode("latin-1").decode(), value)
    answer = s3.get_object(Bucket=BUCKET, Key="meta", Range="bytes=0-0", ResponseContentType="text/x-other")
    equal((answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentType"]), (206, "text/x-other"))
    equal(head("meta", ResponseContentType="text/x-other")["ContentType"], "text/x-other")

# ---- parts ----------------------------------------------------------------------------------------------------------------------------


def upload(key, parts, complete=None, **arguments):
    identity = {"Bucket": BUCKET, "Key": key, "UploadId": s3.create_multipart_upload(Bucket=BUCKET, Key=key, **arguments)["UploadId"]}
    algorithm = arguments.get("ChecksumAlgorithm")
    extra = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    done = []
    for number, part in parts:
        answer = s3.upload_part(Body=part, PartNumber=number, **identity, **extra)
        done.append({"PartNumber": number, "ETag": answer["ETag"], **{name: value for name, value in answer.items() if name.startswith("Checksum") and name != "ChecksumType"}})
    return s3.complete_multipart_upload(MultipartUpload={"Parts": done}, **identity, **(complete or {})), done


pieces = [data(5 * MIB), data(5 * MIB), data(777)]
whole = b"".join(pieces)
with check("parts are read by number on GET and HEAD"):
    upload("parts", list(enumerate(pieces, 1)))
    for number, piece in enumerate(pieces, 1):
        answer = s3.get_object(Bucket=BUCKET, Key="parts", PartNumber=number)
        equal((answer["ResponseMetadata"]["HTTPStatusCode"], answer["PartsCount"]), (206, 3))
        equal(answer["Body"].read(), piece)
        equal((head("parts", PartNumber=number)["ContentLength"], head("parts", PartNumber=number)["PartsCount"]), (len(piece), 3))
    refuses(lambda: get("parts", PartNumber=4), 416, "InvalidPartNumber")
    refuses(lambda: get("parts", PartNumber=1, Range="bytes=0-1"), 400, "InvalidRequest")
    equal("PartsCount" in s3.get_object(Bucket=BUCKET, Key="plain", PartNumber=1), False)
with check("ETag of an object in parts"):
    digests = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    equal(head("parts")["ETag"], f'"{hashlib.md5(digests).hexdigest()}-3"')
with check("attributes of an object in parts"):
    wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    upload("attributes", list(enumerate(pieces, 1)), ChecksumAlgorithm="SHA256")
    answer = s3.get_object_attributes(Bucket=BUCKET, Key="attributes", ObjectAttributes=wanted)
    equal((answer["ObjectSize"], answer["StorageClass"], answer["ETag"]), (len(whole), "STANDARD", head("attributes")["ETag"].strip('"')))
    sums = [base64.b64encode(hashlib.sha256(piece).digest()).decode() for piece in pieces]
    equal((answer["ObjectParts"]["TotalPartsCount"], [part["ChecksumSHA256"] for part in answer["ObjectParts"]["Parts"]]), (3, sums))
    composite = base64.b64encode(hashlib.sha256(b"".join(base64.b64decode(value) for value in sums)).digest()).decode()
    equal((answer["Checksum"]["ChecksumSHA256"], answer["Checksum"]["ChecksumType"]), (composite, "COMPOSITE"))
    equal(head("attributes", ChecksumMode="ENABLED")["ChecksumSHA256"], f"{composite}-3")
    page = s3.get_object_attributes(Bucket=BUCKET, Key="attributes", ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=1)["ObjectParts"]
    equal(([part["PartNumber"] for part in page["Parts"]], page["IsTruncated"], page["NextPartNumberMarker"]), ([2], True, 2))
    answer = s3.get_object_attributes(Bucket=BUCKET, Key="plain", ObjectAttributes=["ObjectSize"])
    equal(sorted(set(answer) - {"ResponseMetadata"}), ["LastModified", "ObjectSize"])
with check("attributes that do not exist are refused"):
    refuses(lambda: s3.get_object_attributes(Bucket=BUCKET, Key="plain", ObjectAttributes=["Nonsense"]), 400, "InvalidArgument")
    refuses(lambda: s3.get_object_attributes(Bucket=BUCKET, Key="none", ObjectAttributes=["ETag"]), 404, "NoSuchKey")

# ---- checksums ------------------------------------------------------------------------------------------------------------------------

ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
for algorithm in ALGORITHMS:
    field = f"Checksum{algorithm}"
    with check(f"{algorithm} of an object in one piece, in parts, of a part, after a copy"):
        stored = put("sum", whole[:1000], ChecksumAlgorithm=algorithm)
        answer = head("sum", ChecksumMode="ENABLED")
        equal((answer[field], answer["ChecksumType"]), (stored[field], "FULL_OBJECT"))
        equal(field in head("sum"), False)
        equal(field in s3.get_object(Bucket=BUCKET, Key="sum", Range="bytes=0-9", ChecksumMode="ENABLED"), False)
        full = {"CRC32": "FULL_OBJECT", "CRC32C": "FULL_OBJECT", "CRC64NVME": "FULL_OBJECT"}.get(algorithm, "COMPOSITE")
        answer, parts = upload("sum-parts", list(enumerate(pieces, 1)), ChecksumAlgorithm=algorithm, ChecksumType=full)
        equal((answer["ChecksumType"], answer[field].endswith("-3")), (full, full == "COMPOSITE"))
        if full == "FULL_OBJECT":
            equal(answer[field], put("sum-whole", whole, ChecksumAlgorithm=algorithm)[field])
        equal(head("sum-parts", ChecksumMode="ENABLED")[field], answer[field])
        of_part = s3.get_object(Bucket=BUCKET, Key="sum-parts", PartNumber=3, ChecksumMode="ENABLED")
        equal((of_part[field], of_part["Body"].read()), (parts[2][field], pieces[2]))
        copied = s3.copy_object(Bucket=OTHER, Key="sum", CopySource={"Bucket": BUCKET, "Key": "sum-parts"})["CopyObjectResult"]
        equal((copied["ChecksumType"], copied[field]), ("FULL_OBJECT", put("sum-whole", whole, ChecksumAlgorithm=algorithm)[field]))
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="sum-parts")["Contents"][0]
        equal((listed["ChecksumAlgorithm"], listed["ChecksumType"]), ([algorithm], full))
MORE = {"SHA512": hashlib.sha512, "MD5": hashlib.md5}
for algorithm, digest in MORE.items():
    with check(f"{algorithm} as a checksum"):
        value = base64.b64encode(digest(b"content").digest()).decode()
        name = f"x-amz-checksum-{algorithm.lower()}"
        equal(raw("PUT", f"/{BUCKET}/more", b"content", {name: value})[0], 200)
        equal(raw("HEAD", f"/{BUCKET}/more", headers={"x-amz-checksum-mode": "ENABLED"})[1][name], value)
        equal(raw("PUT", f"/{BUCKET}/more-bad", b"other", {name: value})[0], 400)
        refuses(lambda: head("more-bad"), 404)
with check("CRC64NVME is computed when a client names none"):
    status, headers, _ = raw("PUT", f"/{BUCKET}/computed", b"123456789")
    equal((status, headers["x-amz-checksum-crc64nvme"], headers["x-amz-checksum-type"]), (200, "rosUhgp5mIg=", "FULL_OBJECT"))
with check("a wrong checksum and a wrong MD5 store nothing"):
    refuses(lambda: put("bad", b"x", ChecksumCRC32="AAAAAA=="), 400, "BadDigest")
    refuses(lambda: put("bad", b"x", ChecksumSHA256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), 400, "BadDigest")
    refuses(lambda: put("bad", b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg=="), 400, "BadDigest")
    refuses(lambda: put("bad", b"x", ContentMD5="nonsense"), 400, "InvalidDigest")
    refuses(lambda: head("bad"), 404)

# ---- copies ---------------------------------------------------------------------------------------------------------------------------

with check("a copy takes content and metadata along, across buckets"):
    put("source", whole[:MIB], ContentType="text/x", CacheControl="no-cache", Metadata={"a": "1"}, StorageClass="STANDARD_IA", WebsiteRedirectLocation="/x")
    s3.copy_object(Bucket=OTHER, Key="target", CopySource={"Bucket": BUCKET, "Key": "source"}, Metadata={"b": "ignored"}, ContentType="text/ignored")
    answer = s3.get_object(Bucket=OTHER, Key="target")
    equal((answer["ContentType"], answer["CacheControl"], answer["Metadata"]), ("text/x", "no-cache", {"a": "1"}))
    equal((answer.get("StorageClass"), answer.get("WebsiteRedirectLocation")), (None, None))
    equal(answer["Body"].read(), whole[:MIB])
with check("a copy takes what the request says when it replaces"):
    s3.copy_object(Bucket=OTHER, Key="target", CopySource=f"{BUCKET}/source", MetadataDirective="REPLACE", Metadata={"b": "2"}, StorageClass="ONEZONE_IA")
    answer = s3.head_object(Bucket=OTHER, Key="target")
    equal((answer["ContentType"], answer.get("CacheControl"), answer["Metadata"], answer["StorageClass"]), ("binary/octet-stream", None, {"b": "2"}, "ONEZONE_IA"))
with check("a copy onto itself must change something"):
    itself = {"Bucket": BUCKET, "Key": "source", "CopySource": {"Bucket": BUCKET, "Key": "source"}}
    refuses(lambda: s3.copy_object(**itself), 400, "InvalidRequest")
    s3.copy_object(**itself, MetadataDirective="REPLACE", Metadata={"c": "3"})
    equal((head("source")["Metadata"], get("source")), ({"c": "3"}, whole[:MIB]))
    s3.copy_object(**itself, StorageClass="GLACIER_IR")
    equal((head("source")["Metadata"], head("source")["StorageClass"]), ({"c": "3"}, "GLACIER_IR"))
with check("conditions on the source of a copy"):
    tag, when = head("source")["ETag"], head("source")["LastModified"]
    earlier, later = when - datetime.timedelta(days=1), when + datetime.timedelta(days=1)
    cases = [
        ({"CopySourceIfMatch": tag}, 200),
        ({"CopySourceIfMatch": '"x"'}, 412),
        ({"CopySourceIfNoneMatch": tag}, 412),
        ({"CopySourceIfNoneMatch": '"x"'}, 200),
        ({"CopySourceIfModifiedSince": earlier}, 200),
        ({"CopySourceIfModifiedSince": when}, 412),
        ({"CopySourceIfUnmodifiedSince": earlier}, 412),
        ({"CopySourceIfUnmodifiedSince": later}, 200),
        ({"CopySourceIfMatch": tag, "CopySourceIfUnmodifiedSince": earlier}, 200),
        ({"CopySourceIfNoneMatch": tag, "CopySourceIfModifiedSince": earlier}, 412),
    ]
    for arguments, expected in cases:
        try:
            found = s3.copy_object(Bucket=OTHER, Key="target", CopySource={"Bucket": BUCKET, "Key": "source"}, **arguments)["ResponseMetadata"]["HTTPStatusCode"]
        except ClientError as error:
            found = error.response["ResponseMetadata"]["HTTPStatusCode"]
        equal((arguments, found), (arguments, expected))
with check("sources that are not there, and directives that do not exist"):
    refuses(lambda: s3.copy_object(Bucket=OTHER, Key="t", CopySource={"Bucket": BUCKET, "Key": "none"}), 404, "NoSuchKey")
    refuses(lambda: s3.copy_object(Bucket=OTHER, Key="t", CopySource={"Bucket": "no-such-bucket-here", "Key": "k"}), 404, "NoSuchBucket")
    refuses(lambda: s3.copy_object(Bucket=OTHER, Key="t", CopySource={"Bucket": BUCKET, "Key": "source"}, MetadataDirective="MIX"), 400, "InvalidArgument")
    refuses(lambda: s3.copy_object(Bucket=OTHER, Key="t", CopySource={"Bucket": BUCKET, "Key": "source"}, TaggingDirective="MIX"), 400, "InvalidArgument")
with check("a copy gets another checksum on demand"):
    answer = s3.copy_object(Bucket=OTHER, Key="target", CopySource={"Bucket": BUCKET, "Key": "source"}, ChecksumAlgorithm="SHA1")
    equal(answer["CopyObjectResult"]["ChecksumSHA1"], base64.b64encode(hashlib.sha1(whole[:MIB]).digest()).decode())

# ---- deletes --------------------------------------------------------------------------------------------------------------------------

with check("deletes of one object: there, not there, in a bucket that is not there"):
    put("gone", b"x")
    equal([s3.delete_object(Bucket=BUCKET, Key="gone")["ResponseMetadata"]["HTTPStatusCode"] for _ in range(2)], [204, 204])
    refuses(lambda: s3.delete_object(Bucket="no-such-bucket-here", Key="k"), 404, "NoSuchBucket")
with check("1,000 keys are deleted at once, loudly and quietly; 1,001 are refused"):
    names = [{"Key": f"many/{number:04}"} for number in range(1001)]
    for entry in names[:20]:
        put(entry["Key"])
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": names[:1000]})
    equal((len(answer["Deleted"]), answer.get("Errors")), (1000, None))
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": names[:1000], "Quiet": True})
    equal((answer.get("Deleted"), answer.get("Errors")), (None, None))
    refuses(lambda: s3.delete_objects(Bucket=BUCKET, Delete={"Objects": names}), 400, "MalformedXML")
    equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="many/")["KeyCount"], 0)
with check("errors of single keys do not fail the others"):
    put("stays", b"x")
    put("goes", b"x")
    objects = [{"Key": "stays", "ETag": '"other"'}, {"Key": "goes"}, {"Key": "never-was"}]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})
    equal([entry["Key"] for entry in answer["Deleted"]], ["goes", "never-was"])
    equal([(entry["Key"], entry["Code"]) for entry in answer["Errors"]], [("stays", "PreconditionFailed")])
    equal(get("stays"), b"x")

# ---- refusals -------------------------------------------------------------------------------------------------------------------------

with check("headers that nobody obeys are refused"):
    for name in ("x-amz-write-offset-bytes", "x-amz-mfa", "x-amz-nobody-knows"):
        status, _, body = raw("PUT", f"/{BUCKET}/refused", b"x", {name: "1"})
        equal((name, status, b"<Code>NotImplemented</Code>" in body, name.encode() in body), (name, 501, True, True))
    refuses(lambda: head("refused"), 404)
with check("errors have their elements and ids"):
    status, headers, body = raw("GET", f"/{BUCKET}/not-there")
    equal((status, headers["Content-Type"]), (404, "application/xml"))
    for element in (b"<Code>NoSuchKey</Code>", b"<Key>not-there</Key>", b"<RequestId>" + headers["x-amz-request-id"].encode()):
        equal(element in body, True)
    status, headers, body = raw("HEAD", f"/{BUCKET}/not-there")
    equal((status, body), (404, b""))
with check("methods that a resource has not are refused with those it has"):
    status, headers, _ = raw("POST", f"/{BUCKET}/plain", b"x")
    equal((status, "GET" in headers["Allow"]), (405, True))
    equal(raw("HEAD", f"/{BUCKET}", query="versioning")[0], 405)

# ---- presigned ------------------------------------------------------------------------------------------------------------------------


def fetch(operation, arguments, body=None, method="GET", headers=None):
    url = nodes[next(turns)].generate_presigned_url(operation, arguments, ExpiresIn=60)
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


with check("presigned PUT, GET, HEAD, DELETE"):
    where = {"Bucket": BUCKET, "Key": "presigned/\u00fc +"}
    fetch("put_object", where, b"content", "PUT")
    equal(fetch("get_object", where)[1], b"content")
    equal(fetch("head_object", where, method="HEAD")[0]["Content-Length"], "7")
    fetch("delete_object", where, method="DELETE")
    refuses(lambda: s3.head_object(**where), 404)
with check("presigned uploads in parts"):
    where = {"Bucket": BUCKET, "Key": "presigned-parts"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    tag = fetch("upload_part", {**where, "PartNumber": 1}, b"part", "PUT")[0]["ETag"]
    document = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
    fetch("complete_multipart_upload", where, document.encode(), "POST")
    equal(get("presigned-parts"), b"part")
with check("a presigned URL is for its method and its time"):
    url = nodes[0].generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "plain"}, ExpiresIn=60)
    for change, method in ((url, "HEAD"), (url, "PUT"), (url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), "GET")):
        try:
            urllib.request.urlopen(urllib.request.Request(change, method=method), timeout=60)
            raise AssertionError("it was let in")
        except urllib.error.HTTPError as error:
            equal(error.code, 403)

# ---- forms ----------------------------------------------------------------------------------------------------------------------------


def post_form(fields, content, name="photo.png", bucket=BUCKET):
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode() for field, value in fields.items()]
    file = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode()
    body = b"".join(parts) + file + content + f"\r\n--{boundary}--\r\n".encode()
    return raw("POST", f"/{bucket}", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, signed=False)


def presign(key, fields=None, conditions=None, seconds=60):
    return nodes[0].generate_presigned_post(BUCKET, key, Fields=fields, Conditions=conditions, ExpiresIn=seconds)["fields"]


with check("a form stores its file"):
    fields = presign("form/${filename}", {"acl": "private", "Content-Type": "image/png", "x-amz-meta-a": "1"},
                     [{"acl": "private"}, ["starts-with", "$Content-Type", "image/"], ["eq", "$x-amz-meta-a", "1"], ["content-length-range", 1, 8 * MIB]])
    status, headers, _ = post_form(fields, whole[: 6 * MIB])
    equal((status, headers["ETag"]), (204, f'"{hashlib.md5(whole[: 6 * MIB]).hexdigest()}"'))
    answer = s3.get_object(Bucket=BUCKET, Key="form/photo.png")
    equal((answer["ContentType"], answer["Metadata"]), ("image/png", {"a": "1"}))
    equal(answer["Body"].read(), whole[: 6 * MIB])
with check("forms are answered as they ask"):
    status, headers, body = post_form(presign("form-201", {"success_action_status": "201"}, [{"success_action_status": "201"}]), b"x")
    equal((status, b"<PostResponse><Location>" in body, b"<Key>form-201</Key>" in body), (201, True, True))
    redirect = {"success_action_redirect": "http://a.example/done"}
    status, headers, _ = post_form(presign("form-303", redirect, [redirect]), b"x")
    equal((status, headers["Location"].startswith(f"http://a.example/done?bucket={BUCKET}&key=form-303&etag=%22")), (303, True))
with check("forms that their policy does not allow store nothing"):
    for fields, content, expected in [
        ({**presign("form-bad"), "x-amz-meta-extra": "1"}, b"x", (403, b"AccessDenied")),
        ({**presign("form-bad"), "key": "other"}, b"x", (403, b"AccessDenied")),
        (presign("form-bad", seconds=-60), b"x", (403, b"AccessDenied")),
        (presign("form-bad", conditions=[["content-length-range", 0, 3]]), b"1234", (400, b"EntityTooLarge")),
        (presign("form-bad", conditions=[["content-length-range", 5, 9]]), b"1234", (400, b"EntityTooSmall")),
        ({**presign("form-bad"), "x-amz-signature": "0" * 64}, b"x", (403, b"SignatureDoesNotMatch")),
        ({**presign("form-bad"), "policy": base64.b64encode(json.dumps({}).encode()).decode()}, b"x", (403, b"SignatureDoesNotMatch")),
    ]:
        status, _, body = post_form(fields, content)
        equal((status, b"<Code>" + expected[1] + b"</Code>" in body), (expected[0], True))
    refuses(lambda: head("form-bad"), 404)

# ---- cross-origin ---------------------------------------------------------------------------------------------------------------------

with check("CORS rules come back, allow what they say and nothing else"):
    rules = [
        {"ID": "one", "AllowedOrigins": ["https://*.example.org"], "AllowedMethods": ["GET", "PUT"], "AllowedHeaders": ["x-amz-*", "content-type"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60},
        {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
    ]
    s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": rules})
    equal(s3.get_bucket_cors(Bucket=BUCKET)["CORSRules"], rules)
    preflight = lambda origin, method, headers="": raw("OPTIONS", f"/{BUCKET}/plain", headers={"Origin": origin, "Access-Control-Request-Method": method, **({"Access-Control-Request-Headers": headers} if headers else {})}, signed=False)
    status, headers, _ = preflight("https://a.example.org", "PUT", "X-Amz-Date, Content-Type")
    equal((status, headers["Access-Control-Allow-Origin"], headers["Access-Control-Allow-Methods"]), (200, "https://a.example.org", "GET, PUT"))
    equal((headers["Access-Control-Allow-Headers"], headers["Access-Control-Max-Age"]), ("x-amz-date, content-type", "60"))
    equal(headers["Vary"], "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
    equal([preflight("https://a.example.com", "GET")[0], preflight("https://a.example.org", "DELETE")[0], preflight("https://a.example.org", "GET", "x-other")[0]], [403] * 3)
    status, headers, _ = raw("GET", f"/{BUCKET}/not-there", headers={"Origin": "https://a.example.org"})
    equal((status, headers["Access-Control-Allow-Origin"], headers["Access-Control-Expose-Headers"]), (404, "https://a.example.org", "ETag"))
    status, headers, _ = raw("GET", f"/{BUCKET}/plain", headers={"Origin": "https://other.example"})
    equal((status, headers["Access-Control-Allow-Origin"]), (200, None))
    s3.delete_bucket_cors(Bucket=BUCKET)
    refuses(lambda: s3.get_bucket_cors(Bucket=BUCKET), 404, "NoSuchCORSConfiguration")

for name in (BUCKET, OTHER):
    with check(f"empty and remove {name}"):
        empty_and_remove(nodes[0], name)
