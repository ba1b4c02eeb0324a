"""A Nix binary cache: the commands of the manual's page, as they stand there; uploads over s3://, downloads from s3:// and the website.

Debian's Nix is built without the signing of S3 requests. programs/nix/sign.c has its libcurl sign them, with the options that a Nix built with
it sets; so what is asked, and how it is signed, is as from such a Nix. Only where the credentials are looked for differs: in AWS_ACCESS_KEY_ID.
"""

import http.client
import os
import pathlib
import re
import shutil
import stat
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty, equal
from pages import CLIENTS, ROOT, WORK, answers, block, garage, run, web_endpoint

BUCKET = "acceptance-nix"
MISSING_PATHS = 2000
NIX = CLIENTS / "nix" / "root"
PROGRAMS = WORK / "programs"
OTHER = next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT)
SITE = f"http://{BUCKET}.web.garage.localhost:{urllib.parse.urlparse(web_endpoint(OTHER)).port}"


class Store:
    """A Nix store of its own in a directory of the run; both stores have the same path, one after the other."""

    folder = WORK / "nix"
    credentials = {}

    def __init__(self, name, settings=""):
        self.state = WORK / f"state-{name}"
        self.environment = os.environ | {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": str(WORK),
            "NIX_STORE_DIR": str(Store.folder / "store"),
            "NIX_STATE_DIR": str(self.state),
            "NIX_LOG_DIR": str(WORK / f"log-{name}"),
            "NIX_CONF_DIR": str(WORK / f"conf-{name}"),
            "NIX_BIN_DIR": str(PROGRAMS),
            "SIGN_BELOW": f"{ENDPOINT}/{BUCKET}/",
            "SIGN_PROVIDER": "aws:amz:garage:s3",
            "NIX_CONFIG": "build-hook =\nsandbox = false\nbuild-users-group =\nexperimental-features = nix-command\nconnect-timeout = 20",
        }
        conf = WORK / f"conf-{name}"
        conf.mkdir(parents=True)
        (conf / "nix.conf").write_text(settings or "substituters =\n")
        shutil.rmtree(Store.folder, ignore_errors=True)
        Store.folder.mkdir()

    @staticmethod
    def sign_with(key, secret):
        Store.credentials = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}

    def sh(self, script):
        return run("bash", "-euo", "pipefail", "-c", script, cwd=WORK, env=self.environment | Store.credentials).strip()


def write_program(name, script):
    path = PROGRAMS / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write_programs():
    PROGRAMS.mkdir()
    signer = WORK / "sign.so"
    run("cc", "-O1", "-shared", "-fPIC", "-o", signer, ROOT / "tests/acceptance/programs/nix/sign.c")
    libraries = NIX / "usr/lib/x86_64-linux-gnu"
    for name in ["nix", "nix-store", "nix-build", "nix-instantiate", "nix-channel", "nix-env"]:
        loader = f'"{libraries}/ld-linux-x86-64.so.2" --argv0 {name} --library-path "{libraries}" --preload "{signer}"'
        write_program(name, f'exec {loader} "{NIX}/usr/bin/nix" "$@"')
    write_program("garage", f'exec "{os.environ["DEV_CLUSTER"]}" cli 1 "$@"')
    write_program("mc", f'exec "{CLIENTS}/bin/mc" --config-dir "{WORK}/mc" --quiet "$@"')


def write_sources():
    """What is built: paths without references, and closures of three paths each."""
    for name in ["hello", "hello-again"]:
        (WORK / f"{name}.nix").write_text(
            f'derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo hello > $out" ]; }}'
        )
    for name in ["app", "app-again"]:
        (WORK / f"noise-{name}").write_bytes(data(3 << 20))
        (WORK / f"{name}.nix").write_text(f"""let
  noise = builtins.path {{ path = {WORK}/noise-{name}; name = "noise"; }};
  library = derivation {{ name = "library"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${{noise}} > $out" ]; }};
in derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${{library}} > $out" ]; }}
""")
    for name in ["notes.txt", "notes-again.txt"]:
        (WORK / name).write_text(f"{name}\n")
    (WORK / "large.bin").write_bytes(data(12 << 20))
    (WORK / "channel").mkdir()
    (WORK / "channel/default.nix").write_text('"from the channel"\n')


def main():
    write_programs()
    write_sources()
    # What the page calls by its own names.
    at_node = {"s3://nix": f"s3://{BUCKET}", "localhost:3900": ENDPOINT.removeprefix("http://")}
    builder = Store("builder")

    with check("key, bucket, website"):
        exchange = {"bucket create nix": f"bucket create {BUCKET}", "bucket allow nix": f"bucket allow {BUCKET}", "bucket website nix": f"bucket website {BUCKET}"}
        shown = builder.sh(block("nix.md", "setup.sh", exchange))
        key, secret = read_key(shown)
        Store.sign_with(key, secret)
    with check("mc copies a page, and the website shows it through every node"):
        builder.sh(f"mc alias set garage {ENDPOINT} {key} {secret}")
        builder.sh(block("nix.md", "index.sh", {"garage/nix/": f"garage/{BUCKET}/"}))
        for endpoint in ENDPOINTS:
            _, headers, body = answers(200, "GET", web_endpoint(endpoint) + "/", headers={"Host": f"{BUCKET}.web.garage.localhost"})
            equal((body, headers["Content-Type"]), (b"A Nix binary cache\n", "text/html"))
    with check("a signing key"):
        builder.sh(block("nix.md", "keys.sh", {}))
    with check("who signs requests with a wrong secret uploads nothing"):
        Store.sign_with(key, secret[::-1])
        refused(lambda: builder.sh(block("nix.md", "upload.sh", at_node)), "HTTP error 403")
    Store.sign_with(key, secret)
    secret_key = "&secret-key=$PWD/signing-key.sec"
    with check("upload one path, without and with secret-key"):
        builder.sh(block("nix.md", "path.sh", at_node))
        builder.sh(block("nix.md", "path.sh", at_node | {"notes.txt": "notes-again.txt", "region=garage'": f"region=garage'\"{secret_key}\""}))
        equal([is_signed(builder.sh(f"nix-store --add {name}.txt")) for name in ["notes", "notes-again"]], [False, True])
    with check("upload what was built, with and without secret-key"):
        builder.sh(block("nix.md", "upload.sh", at_node))
        builder.sh(block("nix.md", "upload.sh", at_node | {secret_key: "", "hello.nix": "hello-again.nix"}))
        hello, hello_again = (builder.sh(f"nix-build {name}.nix --no-out-link") for name in ["hello", "hello-again"])
        equal([is_signed(path) for path in (hello, hello_again)], [True, False])
    with check("sign a closure in the store and upload it, and upload one with secret-key"):
        builder.sh(block("nix.md", "sign.sh", at_node))
        builder.sh(block("nix.md", "upload.sh", at_node | {"hello.nix": "app-again.nix"}))
        closures = {}
        for name in ["app", "app-again"]:
            path = builder.sh(f"nix-build {name}.nix --no-out-link")
            closures[path] = builder.sh(f"nix-store -qR {path}").split()
            equal([is_signed(path) for path in closures[path]], [True] * 3)
        contents = {path: pathlib.Path(path).read_text() for path in closures}
    with check("an archive goes up in parts"):
        parts = {"region=garage'": "region=garage&compression=none&multipart-upload=true&multipart-threshold=5242880'"}
        builder.sh(block("nix.md", "path.sh", at_node | parts | {"notes.txt": "large.bin"}))
        large = builder.sh("nix-store --add large.bin")
        archive = narinfo(large)["URL"]
        equal(client(aws_access_key_id=key, aws_secret_access_key=secret).head_object(Bucket=BUCKET, Key=archive)["ETag"][-3:], '-3"')
    public = (WORK / "signing-key.pub").read_text().strip()
    website = block("nix.md", "nix.conf", {"http://nix.web.garage.localhost:3902": SITE, "nix.example.org-1:PUBLIC-KEY": public})
    bucket = block("nix.md", "nix-s3.conf", at_node | {"nix.example.org-1:PUBLIC-KEY": public})
    for name, settings in [("website", website), ("s3://", bucket)]:
        with check(f"another store substitutes from {name}"):
            reader = Store(f"reader-{len(name)}", settings)
            for path, closure in closures.items():
                equal(pathlib.Path(path).exists(), False)
                reader.sh(f"nix-store -r {path} --option max-jobs 0")
                equal(pathlib.Path(path).read_text(), contents[path])
                equal(sorted(reader.sh(f"nix-store -qR {path}").split()), sorted(closure))
            reader.sh(f"nix-store -r {hello} {large} --option max-jobs 0")
            equal((pathlib.Path(hello).read_text(), pathlib.Path(large).read_bytes()), ("hello\n", (WORK / "large.bin").read_bytes()))
    with check("what nobody signed, or a stranger, is not substituted"):
        refused(lambda: reader.sh(f"nix-store -r {hello_again} --option max-jobs 0"), "signature|cannot build|required")
        stranger = Store("stranger", f"substituters = {SITE}\ntrusted-public-keys =\n")
        refused(lambda: stranger.sh(f"nix-store -r {hello} --option max-jobs 0"), "signature|cannot build|required")
        equal([pathlib.Path(path).exists() for path in (hello, hello_again)], [False, False])
    at_site = {"http://nix.web.garage.localhost:3902": SITE}
    with check("a channel, by fetchTarball and by nix-channel"):
        reader = Store("channel", website)
        for name, exchange in [("channel.sh", at_site | {"garage/nix/": f"garage/{BUCKET}/"}), ("nix-channel.sh", at_site)]:
            equal(reader.sh(block("nix.md", name, exchange)).splitlines()[-1], '"from the channel"')
    with check(f"{MISSING_PATHS} paths that are not there"):
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            statuses = [status for found in pool.map(missing, range(8)) for status in found]
        equal((len(statuses), set(statuses)), (MISSING_PATHS, {404}))
        print(f"# {MISSING_PATHS / (time.monotonic() - started):.0f} missing paths a second", flush=True)
    with check("clean up"):
        empty(client(aws_access_key_id=key, aws_secret_access_key=secret), BUCKET)
        garage("bucket", "delete", "--yes", BUCKET)
        garage("key", "delete", "--yes", key)


def refused(call, pattern):
    """Raises unless the call fails and says so."""
    try:
        call()
    except AssertionError as error:
        if not re.search(pattern, str(error)):
            raise
    else:
        raise AssertionError("it succeeded")


def narinfo(path):
    """What the cache says of a store path, read over the website."""
    name = f"/{pathlib.Path(path).name.split('-')[0]}.narinfo"
    _, headers, body = answers(200, "GET", web_endpoint() + name, headers={"Host": f"{BUCKET}.web.garage.localhost"})
    equal(headers["Content-Type"], "text/x-nix-narinfo")
    return dict(line.split(": ", 1) for line in body.decode().splitlines())


def is_signed(path):
    return narinfo(path).get("Sig", "").startswith("nix.example.org-1:")


def read_key(shown):
    """Key id and secret of what `garage key create` prints."""
    lines = dict(line.split(":", 1) for line in shown.splitlines() if line.startswith(("Key ID:", "Secret key:")))
    return lines["Key ID"].strip(), lines["Secret key"].strip()


def missing(worker):
    """Asks over one connection for paths that are not there, as Nix does."""
    site = urllib.parse.urlparse(SITE)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    statuses = []
    for number in range(MISSING_PATHS // 8):
        connection.request("HEAD" if number % 2 else "GET", f"/{worker:016}{number:016}.narinfo", headers={"Host": site.netloc})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    return statuses


main()
