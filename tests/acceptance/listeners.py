"""Listeners of each kind: TLS for S3, the admin interface and websites with certificates that change, HTTP/2, Unix sockets, metrics by host.

A node of its own.
"""

import json
import os
import ssl
import stat
import time

import boto3
from botocore.config import Config

from certificates import WAIT_S, connect, get, make_certificate, trusting
from checks import ENDPOINT, check, data, equal
from pages import ROOT, WORK, answers, end_all, http, run

DIRECTORY = WORK / "cluster"
# Beside the ports of the flows' common cluster, and of those with clusters of their own.
BASE_PORT = int(ENDPOINT.rsplit(":", 1)[1]) // 10 * 10 + 200
DEV_CLUSTER = ROOT / "script" / "dev-cluster"
# Nothing of the cluster that the other flows use: a node takes a token from there before that of its file.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GARAGE_A")} | {"DEV_CLUSTER_DIR": str(DIRECTORY)}
BUCKET = "listeners"
SITE = f"{BUCKET}.web.garage.localhost"
NAME = "node.example"
# Offsets of ports: what dev-cluster gives the listeners without TLS, and those with it.
PLAIN = {"s3_api": 0, "s3_web": 2, "admin": 3}
SECURE = {"s3_api": 4, "s3_web": 5, "admin": 6}
SOCKETS = {table: WORK / f"{table}.sock" for table in PLAIN}


def port(offset):
    return BASE_PORT + 10 + offset


def cluster(*arguments):
    return run(DEV_CLUSTER, *map(str, arguments), env=ENVIRONMENT)


def restart(force=False):
    if force:
        cluster("kill", 1)
    else:
        cluster("stop")
    cluster("start", 1)
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            cluster("cli", 1, "status")
            return
        except AssertionError:
            if deadline < time.monotonic():
                raise
            time.sleep(0.2)


def curl(socket, url, *arguments):
    return run("curl", "-sS", "--unix-socket", SOCKETS[socket], *arguments, url)


def main():
    certificate, key = make_certificate(NAME, WORK / "first")
    toml = DIRECTORY / "node1" / "garage.toml"
    with check("a node starts"):
        run(DEV_CLUSTER, "1", "--no-build", "--base-port", str(BASE_PORT), env=ENVIRONMENT)
    with check("it starts again with TLS beside each listener"):
        text = toml.read_text()
        for table, offset in SECURE.items():
            lines = [f'tls_bind_addr = "127.0.0.1:{port(offset)}"', f'tls_cert_file = "{certificate}"', f'tls_key_file = "{key}"']
            lines += ["add_host_to_metrics = true"] if table == "s3_web" else []
            text = text.replace(f"[{table}]\n", f"[{table}]\n" + "\n".join(lines) + "\n")
        toml.write_text(text)
        restart()
    settings = dict(line.removeprefix("export ").split("=", 1) for line in (DIRECTORY / "env").read_text().splitlines())
    token = {"Authorization": f"Bearer {settings['GARAGE_ADMIN_TOKEN']}"}
    keys = [settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]]
    s3 = boto3.client(
        "s3",
        endpoint_url=f"https://127.0.0.1:{port(SECURE['s3_api'])}",
        region_name="garage",
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        verify=str(certificate),
        config=Config(s3={"addressing_style": "path"}),
    )
    content = data(12 << 20)
    with check("S3 over TLS"):
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="index.html", Body=b"<h1>secure")
        s3.put_object(Bucket=BUCKET, Key="large", Body=content)
        equal(s3.get_object(Bucket=BUCKET, Key="large")["Body"].read(), content)
    with check("and without, as before"):
        answers(403, "GET", f"http://127.0.0.1:{port(PLAIN['s3_api'])}/{BUCKET}")
    with check("a policy may ask for TLS, and for which"):
        modern = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
        modern["Condition"] = {"NumericGreaterThanEquals": {"s3:TlsVersion": "1.3"}, "Bool": {"aws:SecureTransport": "true"}}
        s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [modern]}))
        resolve = f"{NAME}:{port(SECURE['s3_api'])}:127.0.0.1"
        url = f"https://{NAME}:{port(SECURE['s3_api'])}/{BUCKET}/index.html"
        for version, status in [("1.2", "403"), ("1.3", "200")]:
            tls = [f"--tlsv{version}", "--tls-max", version, "--cacert", certificate, "--resolve", resolve]
            equal(run("curl", "-sS", *tls, "-o", "/dev/null", "-w", "%{http_code}", url), status)
        answers(403, "GET", f"http://127.0.0.1:{port(PLAIN['s3_api'])}/{BUCKET}/index.html")
        s3.delete_bucket_policy(Bucket=BUCKET)
    with check("the admin interface over TLS"):
        first = trusting(certificate.read_text())
        equal(get(port(SECURE["admin"]), NAME, "/health", first)[0], 200)
        equal(get(port(SECURE["admin"]), NAME, "/v2/GetClusterStatus", first)[0], 403)
        equal(get(port(SECURE["admin"]), NAME, "/v2/GetClusterStatus", first, token)[0], 200)
    with check("websites over TLS, and a proxy may ask which there are"):
        equal(get(port(SECURE["admin"]), NAME, f"/check?domain={SITE}", first)[0], 400)
        cluster("cli", 1, "bucket", "website", "--allow", BUCKET)
        equal(get(port(SECURE["admin"]), NAME, f"/check?domain={SITE}", first)[0], 200)
        status, _, body, _ = get(port(SECURE["s3_web"]), NAME, "/", first, {"Host": SITE})
        equal((status, body), (200, b"<h1>secure"))
    with check("HTTP/2 on each of them"):
        for offset in SECURE.values():
            with connect(port(offset), NAME, trusting(certificate.read_text(), ["h2", "http/1.1"])) as stream:
                equal(stream.selected_alpn_protocol(), "h2")
        resolve = f"{NAME}:{port(SECURE['admin'])}:127.0.0.1"
        url = f"https://{NAME}:{port(SECURE['admin'])}/health"
        shown = run("curl", "-sS", "--http2", "--cacert", certificate, "--resolve", resolve, "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url)
        equal(shown, "2 200")
    with check("metrics of websites by host, of known ones only"):
        http("GET", f"http://127.0.0.1:{port(PLAIN['s3_web'])}/", headers={"Host": "other.example"})
        shown = http("GET", f"http://127.0.0.1:{port(PLAIN['admin'])}/metrics", headers=token)[2].decode()
        counted = [line for line in shown.splitlines() if line.startswith("web_request_counter{")]
        hosts = sorted(line.split('host="')[1].split('"')[0] for line in counted)
        equal(hosts, sorted([SITE, "unknown"]))

    with check("changed certificates are taken by all three, and the former ones no longer shown"):
        old = certificate.read_text()
        make_certificate(NAME, WORK / "first")
        new = trusting(certificate.read_text())
        for offset in SECURE.values():
            await_certificate(port(offset), new)
            try:
                connect(port(offset), NAME, trusting(old)).close()
            except ssl.SSLError:
                continue
            raise AssertionError("the former certificate is still shown")
    with check("files that are no certificates change nothing"):
        good = certificate.read_text()
        certificate.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
        await_words(DIRECTORY / "node1/node.log", "cert.pem")
        for offset in SECURE.values():
            connect(port(offset), NAME, new).close()
        certificate.write_text(good)

    with check("it starts again with Unix sockets, and leads from them to TLS where told"):
        text = toml.read_text()
        for table, offset in PLAIN.items():
            text = text.replace(f'bind_addr = "127.0.0.1:{port(offset)}"', f'bind_addr = "{SOCKETS[table]}"')
        text = text.replace("[admin]\n", "[admin]\ntls_redirect = true\n")
        toml.write_text(text)
        restart()
        equal(len([path for path in SOCKETS.values() if stat.S_ISSOCK(path.stat().st_mode)]), 3)
    with check("S3 at a socket"):
        signed = ["--aws-sigv4", "aws:amz:garage:s3", "--user", ":".join(keys), "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        (WORK / "large").write_bytes(content)
        equal(curl("s3_api", f"http://localhost/{BUCKET}/socket", *signed, "-T", WORK / "large", "-w", "%{http_code}"), "200")
        curl("s3_api", f"http://localhost/{BUCKET}/socket", *signed, "-o", WORK / "back")
        equal((WORK / "back").read_bytes(), content)
    with check("a website at a socket"):
        equal(curl("s3_web", f"http://{SITE}/"), "<h1>secure")
    with check("the admin interface at a socket leads to TLS"):
        shown = curl("admin", f"http://{NAME}/health", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
        equal(shown, f"301 https://{NAME}:{port(SECURE['admin'])}/health")
    with check("sockets that a killed node left are taken over"):
        restart(force=True)
        equal(curl("s3_web", f"http://{SITE}/"), "<h1>secure")
    with check("a socket goes with its node"):
        cluster("stop")
        equal([path.name for path in SOCKETS.values() if path.exists()], [])


def await_certificate(at, context):
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            connect(at, NAME, context).close()
            return
        except ssl.SSLError:
            if deadline < time.monotonic():
                raise
            time.sleep(0.2)


def await_words(log, words):
    deadline = time.monotonic() + WAIT_S
    while words not in log.read_text():
        if deadline < time.monotonic():
            raise AssertionError(f"{words!r} is not logged")
        time.sleep(0.2)


try:
    main()
finally:
    if DIRECTORY.exists():
        cluster("stop")
    end_all()
