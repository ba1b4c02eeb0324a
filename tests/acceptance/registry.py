"""What the flows of the Docker registry share: skopeo and plain HTTP push, pull, mount and delete through registries at different nodes."""

import gzip
import io
import json
import os
import re
import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty_and_remove, equal, sha256
from pages import CLIENTS, WORK, Program, answers, block, end_all, free_port, garage, keys, run

REPOSITORIES = 200
# Filled before garbage is collected, which takes as long as there are repositories; the others after.
FEW = 10
LARGE_LAYER_BYTES = (1 << 30) if os.environ.get("ACCEPTANCE_ALL") else (64 << 20)
CHUNK_BYTES = 6 << 20
EMPTY_LAYER = gzip.compress(b"\0" * 1024, mtime=0)
# The newest registry, which can be told to drop uploads that were given up.
NEWEST = CLIENTS / "bin/registry"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

s3 = client()


class Registry:
    """A registry over one node."""

    def __init__(self, program, bucket, name, endpoint, redirect=False):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        exchange = keys() | {
            "http://localhost:3900": endpoint,
            "bucket: registry": f"bucket: {bucket}",
            "127.0.0.1:5000": f"127.0.0.1:{self.port}",
            "disable: true": f"disable: {'false' if redirect else 'true'}",
        }
        self.config = WORK / f"{name}.yml"
        self.config.write_text(block("docker-registry.md", "config.yml", exchange))
        environment = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
        self.program = Program([program, "serve", self.config], f"{name}.log", self.port, env=environment)

    def blob(self, repository, digest):
        return f"{self.url}/v2/{repository}/blobs/{digest}"

    def begin(self, repository):
        _, headers, _ = answers(202, "POST", f"{self.url}/v2/{repository}/blobs/uploads/", b"")
        return headers["Location"]

    def finish(self, location, content, body=None):
        separator = "&" if "?" in location else "?"
        answers(201, "PUT", f"{location}{separator}digest={digest_of(content)}", body, octets(body))
        return digest_of(content)

    def push(self, repository, content):
        return self.finish(self.begin(repository), content, content)

    def push_manifest(self, repository, tag, layers, config):
        content = manifest(layers, config)
        answers(201, "PUT", f"{self.url}/v2/{repository}/manifests/{tag}", content, {"Content-Type": MANIFEST})
        return digest_of(content)


def octets(body):
    return {"Content-Type": "application/octet-stream"} if body else {}


def digest_of(content):
    return f"sha256:{sha256(content)}"


def layer(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    # Compressed already, else skopeo would do it on the way and change the digest.
    return gzip.compress(file.getvalue(), compresslevel=1, mtime=0)


def manifest(layers, config):
    describe = lambda kind, content: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(content), "size": len(content)}
    parts = [describe("layer.v1.tar+gzip", content) for content in layers]
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": describe("config.v1+json", config), "layers": parts}).encode()


def config_of(layers):
    root = {"type": "layers", "diff_ids": [digest_of(gzip.decompress(content)) for content in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": root}).encode()


def write_image(folder, layers):
    """An image as a directory that skopeo reads."""
    folder.mkdir(parents=True)
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    config = config_of(layers)
    for content in [*layers, config]:
        (folder / sha256(content)).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest(layers, config))


def skopeo(*arguments):
    run("skopeo", "--insecure-policy", "--override-os", "linux", "--override-arch", "amd64", *arguments, seconds=900)


def pull(registry, name, tag, folder):
    skopeo("copy", "--src-tls-verify=false", f"docker://127.0.0.1:{registry.port}/{name}:{tag}", f"dir:{folder}")


def same_files(one, other):
    names = sorted(path.name for path in one.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name))
    equal(sorted(path.name for path in other.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)), names)
    for name in names:
        equal(sha256((other / name).read_bytes()), name)


def keys_of(bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def flow(program, bucket):
    """All that is asked of a registry, as a flow of this program's."""
    try:
        steps(program, bucket)
    finally:
        end_all()


def steps(program, bucket):
    with check("make a bucket"):
        s3.create_bucket(Bucket=bucket)
    with check("the registry starts, and one more at another node, with redirects"):
        first = Registry(program, bucket, "first", ENDPOINT)
        other = Registry(program, bucket, "other", next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT), redirect=True)

    layers = [layer(data(3 << 20)), layer(data(100)), layer(data(LARGE_LAYER_BYTES))]
    write_image(WORK / "image", layers)
    with check(f"skopeo pushes an image with a layer of {LARGE_LAYER_BYTES >> 20} MiB"):
        skopeo("copy", "--dest-tls-verify=false", f"dir:{WORK / 'image'}", f"docker://127.0.0.1:{first.port}/app:v1")
    with check("skopeo pulls it from the other registry, led to the node by redirects"):
        pull(other, "app", "v1", WORK / "pulled")
        same_files(WORK / "image", WORK / "pulled")
        shutil.rmtree(WORK / "pulled")
    with check("and from the first one, without"):
        pull(first, "app", "v1", WORK / "pulled")
        same_files(WORK / "image", WORK / "pulled")
        shutil.rmtree(WORK / "pulled")
    digest = digest_of(layers[0])
    with check("redirects are on here and off there"):
        answers(200, "GET", first.blob("app", digest))
        _, headers, _ = answers(307, "GET", other.blob("app", digest))
        equal("X-Amz-Signature=" in headers["Location"], True)
    with check("part of a layer is read"):
        for registry in [first, other]:
            _, _, body = answers(206, "GET", registry.blob("app", digest), headers={"Range": "bytes=100-199"}, follow=True)
            equal(body, layers[0][100:200])

    with check("push in one piece"):
        content = data(7 << 20)
        equal(answers(200, "GET", first.blob("one", first.push("one", content)))[2], content)
    with check("push in chunks, of sizes that are no parts"):
        content = data(3 * CHUNK_BYTES + 12345)
        location, start = first.begin("chunked"), 0
        for size in [CHUNK_BYTES, 1000, CHUNK_BYTES, len(content)]:
            piece = content[start : start + size]
            headers = octets(piece) | {"Content-Range": f"{start}-{start + len(piece) - 1}"}
            _, found, _ = answers(202, "PATCH", location, piece, headers)
            location, start = found["Location"], start + len(piece)
            equal(found["Range"], f"0-{start - 1}")
        equal(answers(200, "GET", first.blob("chunked", first.finish(location, content)))[2], content)
    with check("an upload goes on after the registry was killed"):
        content = data(2 * CHUNK_BYTES + 77)
        location = first.begin("resumed")
        _, found, _ = answers(202, "PATCH", location, content[:CHUNK_BYTES], octets(content) | {"Content-Range": f"0-{CHUNK_BYTES - 1}"})
        first.program.end(force=True)
        first.program.start()
        _, found, _ = answers(204, "GET", found["Location"])
        equal(found["Range"], f"0-{CHUNK_BYTES - 1}")
        headers = octets(content) | {"Content-Range": f"{CHUNK_BYTES}-{len(content) - 1}"}
        _, found, _ = answers(202, "PATCH", found["Location"], content[CHUNK_BYTES:], headers)
        equal(answers(200, "GET", first.blob("resumed", first.finish(found["Location"], content)))[2], content)
    with check("an upload is given up"):
        location = first.begin("given-up")
        _, found, _ = answers(202, "PATCH", location, data(100), octets(b"x") | {"Content-Range": "0-99"})
        answers(204, "DELETE", found["Location"])
        answers(404, "GET", found["Location"])
    with check("a wrong digest is refused"):
        location = first.begin("wrong")
        separator = "&" if "?" in location else "?"
        answers(400, "PUT", f"{location}{separator}digest={digest_of(b'other')}", b"content", octets(b"x"))
    with check("an empty layer"):
        equal(answers(200, "GET", other.blob("app", first.push("app", EMPTY_LAYER)), follow=True)[2], EMPTY_LAYER)
    with check("a layer is mounted from another repository"):
        answers(201, "POST", f"{first.url}/v2/mounted/blobs/uploads/?mount={digest}&from=app", b"")
        equal(answers(200, "GET", first.blob("mounted", digest))[2], layers[0])

    shared = [layers[1]]
    config = config_of(shared)
    first.push("base", shared[0])
    first.push("base", config)

    def fill(number):
        name = f"many/{number:03}"
        for content in [*shared, config]:
            answers(201, "POST", f"{first.url}/v2/{name}/blobs/uploads/?mount={digest_of(content)}&from=base", b"")
        first.push_manifest(name, "latest", shared, config)

    with check("repositories share a layer"):
        for number in range(FEW):
            fill(number)
    with check("tags are listed"):
        found = json.loads(answers(200, "GET", f"{other.url}/v2/app/tags/list")[2])
        equal(found, {"name": "app", "tags": ["v1"]})

    with check("an image is deleted, and garbage collection frees what only it had"):
        _, headers, _ = answers(200, "HEAD", f"{first.url}/v2/app/manifests/v1", headers={"Accept": MANIFEST})
        answers(202, "DELETE", f"{first.url}/v2/app/manifests/{headers['Docker-Content-Digest']}")
        first.program.end()
        run(program, "garbage-collect", "--delete-untagged", first.config, seconds=900)
        first.program.start()
        stored = keys_of(bucket, "docker/docker/registry/v2/blobs/")
        has = lambda content: any(sha256(content) in key for key in stored)
        equal([has(layers[2]), has(layers[1])], [False, True])
    with check("what others still use is there"):
        pull(first, "many/007", "latest", WORK / "left")
        write_image(WORK / "small", shared)
        same_files(WORK / "small", WORK / "left")
    with check("what was deleted is gone"):
        answers(404, "GET", f"{first.url}/v2/app/manifests/v1", headers={"Accept": MANIFEST})
    with check(f"{REPOSITORIES} repositories are filled"):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, range(FEW, REPOSITORIES)))
    with check("the catalog of the other registry has them all"):
        found = json.loads(answers(200, "GET", f"{other.url}/v2/_catalog?n=1000")[2])["repositories"]
        equal([name for name in found if name.startswith("many/")], [f"many/{number:03}" for number in range(REPOSITORIES)])
    with check("uploads that were given up are dropped when they are old enough, and what is left of them in the bucket"):
        location = first.begin("forgotten")
        answers(202, "PATCH", location, data(CHUNK_BYTES), octets(b"x") | {"Content-Range": f"0-{CHUNK_BYTES - 1}"})
        folder = "docker/docker/registry/v2/repositories/forgotten/_uploads/"
        unfinished = lambda: s3.list_multipart_uploads(Bucket=bucket, Prefix=folder).get("Uploads", [])
        purge = lambda age: run(NEWEST, "purge", first.config, age)
        begun = keys_of(bucket, folder)
        equal([len(unfinished()), any(key.endswith("/startedat") for key in begun)], [1, True])
        purge("1h")
        equal(keys_of(bucket, folder), begun)
        purge("0s")
        equal(keys_of(bucket, folder), [])
        # The registry leaves their parts to the store.
        garage("bucket", "cleanup-incomplete-uploads", "--older-than", "0s", bucket)
        equal(unfinished(), [])
    with check("clean up"):
        end_all()
        empty_and_remove(s3, bucket)


if __name__ == "__main__":
    sys.exit("this file holds no flow")
