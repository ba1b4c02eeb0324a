"""A Nix binary cache: the commands of the manual's page, as they stand there; uploads over s3://, downloads from s3:// and the website.

Debian's Nix leaves out the signing of S3 requests, so a relay on loopback signs what it asks; all else is Nix's own.
"""

import http.client
import http.server
import os
import pathlib
import shutil
import stat
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty, equal
from pages import CLIENTS, WORK, answers, block, garage, run, web_endpoint

BUCKET = "acceptance-nix"
MISSING_PATHS = 2000
ROOT = CLIENTS / "nix" / "root"
PROGRAMS = WORK / "programs"
OTHER = next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT)
SITE = f"http://{BUCKET}.web.garage.localhost:{urllib.parse.urlparse(web_endpoint(OTHER)).port}"


class Relay(http.server.BaseHTTPRequestHandler):
    """Signs a request and sends it on; the answer goes back as it is."""

    protocol_version = "HTTP/1.1"
    credentials = None
    target = ENDPOINT
    seen = []

    def relay(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection", "content-length", "expect", "accept-encoding")}
        request = AWSRequest(method=self.command, url=Relay.target + self.path, data=body, headers=kept)
        S3SigV4Auth(Relay.credentials, "s3", "garage").add_auth(request)
        target = urllib.parse.urlparse(Relay.target)
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=300)
        connection.request(self.command, self.path, body, dict(request.headers))
        answer = connection.getresponse()
        content = answer.read()
        Relay.seen.append((self.command, self.path, answer.status))
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay

    def log_message(self, *_):
        pass


class Store:
    """A Nix store of its own in a directory of the run; both stores have the same path, one after the other."""

    folder = WORK / "nix"

    def __init__(self, name, settings=""):
        self.state = WORK / f"state-{name}"
        self.environment = os.environ | {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": str(WORK),
            "NIX_STORE_DIR": str(Store.folder / "store"),
            "NIX_STATE_DIR": str(self.state),
            "NIX_LOG_DIR": str(WORK / f"log-{name}"),
            "NIX_CONF_DIR": str(WORK / f"conf-{name}"),
            "NIX_CONFIG": "build-hook =\nsandbox = false\nbuild-users-group =\nexperimental-features = nix-command\nconnect-timeout = 20",
        }
        conf = WORK / f"conf-{name}"
        conf.mkdir(parents=True)
        (conf / "nix.conf").write_text(settings or "substituters =\n")
        shutil.rmtree(Store.folder, ignore_errors=True)
        Store.folder.mkdir()

    def sh(self, script):
        return run("bash", "-euo", "pipefail", "-c", script, cwd=WORK, env=self.environment).strip()


def write_program(name, script):
    path = PROGRAMS / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write_programs():
    PROGRAMS.mkdir()
    libraries = ROOT / "usr/lib/x86_64-linux-gnu"
    for name in ["nix", "nix-store", "nix-build", "nix-instantiate"]:
        write_program(name, f'exec "{libraries}/ld-linux-x86-64.so.2" --argv0 {name} --library-path "{libraries}" "{ROOT}/usr/bin/nix" "$@"')
    write_program("garage", f'exec "{os.environ["DEV_CLUSTER"]}" cli 1 "$@"')
    write_program("mc", f'exec "{CLIENTS}/bin/mc" --config-dir "{WORK}/mc" --quiet "$@"')


HELLO = """derivation { name = "hello"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo hello > $out" ]; }"""
APP = f"""
let
  noise = builtins.path {{ path = {WORK}/noise; name = "noise"; }};
  library = derivation {{ name = "library"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${{noise}} > $out" ]; }};
in derivation {{ name = "app"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${{library}} > $out" ]; }}
"""


def main():
    write_programs()
    (WORK / "hello.nix").write_text(HELLO)
    (WORK / "noise").write_bytes(data(3 << 20))
    (WORK / "app.nix").write_text(APP)
    (WORK / "channel").mkdir()
    (WORK / "channel/default.nix").write_text('"from the channel"\n')
    relay = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    relay_at = f"127.0.0.1:{relay.server_port}"
    builder = Store("builder")

    with check("key, bucket, website"):
        exchange = {"bucket create nix": f"bucket create {BUCKET}", "bucket allow nix": f"bucket allow {BUCKET}", "bucket website nix": f"bucket website {BUCKET}"}
        shown = builder.sh(block("nix.md", "setup.sh", exchange))
        key, secret = read_key(shown)
        Relay.credentials = Credentials(key, secret)
    with check("mc copies a page, and the website shows it through every node"):
        builder.sh(f"mc alias set garage {ENDPOINT} {key} {secret}")
        builder.sh(block("nix.md", "index.sh", {"garage/nix/": f"garage/{BUCKET}/"}))
        for endpoint in ENDPOINTS:
            _, headers, body = answers(200, "GET", web_endpoint(endpoint) + "/", headers={"Host": f"{BUCKET}.web.garage.localhost"})
            equal((body, headers["Content-Type"]), (b"A Nix binary cache\n", "text/html"))
    with check("a signing key"):
        builder.sh(block("nix.md", "keys.sh", {}))
    exchange = {"s3://nix": f"s3://{BUCKET}", "localhost:3900": relay_at}
    with check("sign and upload what was built"):
        builder.sh(block("nix.md", "upload.sh", exchange))
    with check("sign a closure in the store, and upload it"):
        builder.sh(block("nix.md", "sign.sh", exchange))
        hello, app = (builder.sh(f"nix-build {name}.nix --no-out-link") for name in ["hello", "app"])
        closure = builder.sh(f"nix-store -qR {app}").split()
        content = pathlib.Path(app).read_text()
        equal(len(closure), 3)
    with check("the cache holds narinfos and archives with their types"):
        narinfo = f"/{pathlib.Path(app).name.split('-')[0]}.narinfo"
        _, headers, body = answers(200, "GET", web_endpoint() + narinfo, headers={"Host": f"{BUCKET}.web.garage.localhost"})
        equal((headers["Content-Type"], b"Sig: nix.example.org-1:" in body), ("text/x-nix-narinfo", True))
    public = (WORK / "signing-key.pub").read_text().strip()
    with check("another store substitutes from the website"):
        settings = block("nix.md", "nix.conf", {"http://nix.web.garage.localhost:3902": SITE, "nix.example.org-1:PUBLIC-KEY": public})
        reader = Store("reader", settings)
        reader.sh(f"nix-store -r {app} --option max-jobs 0")
        equal(pathlib.Path(app).read_text(), content)
        equal(sorted(reader.sh(f"nix-store -qR {app}").split()), sorted(closure))
    with check("and from s3://"):
        reader = Store("s3-reader", f"substituters = s3://{BUCKET}?scheme=http&endpoint={relay_at}&region=garage\ntrusted-public-keys = {public}\n")
        reader.sh(f"nix-store -r {hello} --option max-jobs 0")
        equal(pathlib.Path(hello).read_text(), "hello\n")
    with check("without the key nothing is substituted"):
        stranger = Store("stranger", f"substituters = {SITE}\ntrusted-public-keys =\n")
        try:
            stranger.sh(f"nix-store -r {hello} --option max-jobs 0")
        except AssertionError:
            equal(pathlib.Path(hello).exists(), False)
        else:
            raise AssertionError("it was substituted")
    with check("a channel"):
        exchange = {"garage/nix/": f"garage/{BUCKET}/", "http://nix.web.garage.localhost:3902": SITE}
        equal(reader.sh(block("nix.md", "channel.sh", exchange)).splitlines()[-1], '"from the channel"')
    with check(f"{MISSING_PATHS} paths that are not there"):
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            statuses = [status for found in pool.map(missing, range(8)) for status in found]
        equal((len(statuses), set(statuses)), (MISSING_PATHS, {404}))
        print(f"# {MISSING_PATHS / (time.monotonic() - started):.0f} missing paths a second", flush=True)
    with check("clean up"):
        relay.shutdown()
        empty(client(aws_access_key_id=key, aws_secret_access_key=secret), BUCKET)
        garage("bucket", "delete", "--yes", BUCKET)
        garage("key", "delete", "--yes", key)


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
