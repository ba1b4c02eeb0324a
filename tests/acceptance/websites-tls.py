"""TLS in the listeners: certificates from an authority (Pebble), proven by any node and served by all; certificates in files; redirects.

A cluster of its own. Pebble asks for its proofs at another node than the one that orders, and refuses a part of all nonces.
"""

import http.client
import json
import os
import ssl
import subprocess
import time

import boto3
from botocore.config import Config

from certificates import WAIT_S, connect, get, make_certificate, trusting
from checks import ENDPOINT, check, equal
from pages import CLIENTS, ROOT, WORK, Program, answers, end_all, free_port, run

DIRECTORY = WORK / "cluster"
# Beside the ports of the flows' common cluster.
BASE_PORT = int(ENDPOINT.rsplit(":", 1)[1]) // 10 * 10 + 100
DEV_CLUSTER = ROOT / "script" / "dev-cluster"
BUCKET = "tls-site"
NAME = f"{BUCKET}.web.garage.localhost"
DOMAIN = "www.tls-site.example"
ENVIRONMENT = os.environ | {"DEV_CLUSTER_DIR": str(DIRECTORY)}


def port(node, offset):
    return BASE_PORT + 10 * node + offset


def cluster(*arguments):
    return run(DEV_CLUSTER, *map(str, arguments), env=ENVIRONMENT)


def garage(*arguments):
    return cluster("cli", 1, *arguments)


def pebble(name, http_node, tls_node):
    """An authority that looks for proofs at these nodes. Its directory's URL, and what fetches its root certificate."""
    listen, management = free_port(), free_port()
    certificate, key = make_certificate("localhost", WORK / "pebble")
    settings = {"listenAddress": f"127.0.0.1:{listen}", "managementListenAddress": f"127.0.0.1:{management}"}
    settings |= {"certificate": str(certificate), "privateKey": str(key), "httpPort": port(http_node, 2), "tlsPort": port(tls_node, 4)}
    settings |= {"ocspResponderURL": "", "externalAccountBindingRequired": False}
    config = WORK / f"{name}.json"
    config.write_text(json.dumps({"pebble": settings}))
    environment = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
    Program([CLIENTS / "bin/pebble", "-config", config, "-dnsserver", f"127.0.0.1:{DNS_PORT}"], f"{name}.log", listen, env=environment)

    def root():
        context = trusting(certificate.read_text())
        connection = http.client.HTTPSConnection("localhost", management, context=context)
        connection.request("GET", "/roots/0")
        return connection.getresponse().read().decode()

    return f"https://localhost:{listen}/dir", certificate, root


DNS_PORT = free_port()


def main():
    with check("a name server that leads every name to loopback, and an authority"):
        command = [CLIENTS / "bin/pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", f"127.0.0.1:{DNS_PORT}"]
        command += ["-management", f"127.0.0.1:{free_port()}", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]
        Program(command, "dns.log")
        directory, authority, root = pebble("pebble", 2, 3)
    certificate, key = make_certificate("files.example", WORK / "files")
    web = WORK / "web.toml"
    text = f"""tls_bind_addr = "127.0.0.1:{{+4}}"
tls_cert_file = "{certificate}"
tls_key_file = "{key}"
tls_redirect = true

[acme]
directory_url = "{directory}"
accept_terms_of_service = true
contact = ["admin@tls-site.example"]
ca_file = "{authority}"
challenge = "http-01"
"""
    web.write_text(text)
    with check("a cluster with TLS starts"):
        binary = os.environ["GARAGE_BIN"]
        run(DEV_CLUSTER, "3", "--no-build", "--base-port", str(BASE_PORT), "--web", web, env=ENVIRONMENT | {"GARAGE_BIN": binary})
    settings = dict(line.removeprefix("export ").split("=", 1) for line in (DIRECTORY / "env").read_text().splitlines())
    s3 = boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        region_name="garage",
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="index.html", Body=b"<h1>secure", ContentType="text/html")
    garage("bucket", "website", "--allow", BUCKET)

    with check("the first visitor waits, and gets a certificate of the authority"):
        status, _, body, serial = get(port(1, 4), NAME, "/", trusting(root()))
        equal((status, body), (200, b"<h1>secure"))
    with check("the authority asked another node than the one that ordered"):
        equal(".well-known/acme-challenge" in (DIRECTORY / "node2/node.log").read_text(), False)
        asked = (WORK / "pebble.log").read_text()
        equal(f":{port(2, 2)}/.well-known/acme-challenge/" in asked, True)
    with check("every node serves that very certificate"):
        for node in [2, 3]:
            status, _, body, other = get(port(node, 4), NAME, "/", trusting(root()))
            equal((status, body, other), (200, b"<h1>secure", serial))
    with check("HTTP/2 is offered"):
        with connect(port(2, 4), NAME, trusting(root(), ["h2", "http/1.1"])) as stream:
            equal(stream.selected_alpn_protocol(), "h2")
        answered = run("curl", "-s", "--http2", "--cacert", write(WORK / "root.pem", root()), "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"https://{NAME}:{port(2, 4)}/")
        equal(answered, "2 200")
    with check("HTTP leads to HTTPS"):
        _, headers, _ = answers(301, "GET", f"http://127.0.0.1:{port(3, 2)}/a?b=c", headers={"Host": f"{NAME}:{port(3, 2)}"})
        equal(headers["Location"], f"https://{NAME}:{port(3, 4)}/a?b=c")
        answers(308, "POST", f"http://127.0.0.1:{port(3, 2)}/", b"x", headers={"Host": NAME})
    with check("a host that is no site gets the certificate of the files"):
        status, _, _, _ = get(port(1, 4), "files.example", "/", trusting(certificate.read_text()))
        equal(status, 404)
    with check("changed files are read again"):
        make_certificate("files.example", WORK / "files")
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                get(port(1, 4), "files.example", "/", trusting(certificate.read_text()))
                break
            except ssl.SSLError:
                if deadline < time.monotonic():
                    raise
                time.sleep(0.2)

    with check("a domain of its own, proven over TLS, with one node down"):
        for node in [1, 2, 3]:
            toml = DIRECTORY / f"node{node}" / "garage.toml"
            toml.write_text(toml.read_text().replace('challenge = "http-01"', 'challenge = "tls-alpn-01"'))
            cluster("kill", node)
            cluster("start", node)
        await_status()
        garage("bucket", "alias", BUCKET, DOMAIN)
        cluster("kill", 2)
        status, _, body, serial = get(port(1, 4), DOMAIN, "/", trusting(root()))
        equal((status, body), (200, b"<h1>secure"))
        equal(get(port(3, 4), DOMAIN, "/", trusting(root()))[2:], (b"<h1>secure", serial))
        cluster("start", 2)
    with check("no certificate is ordered for what is no site"):
        before = (WORK / "pebble.log").read_text().count("new-order") + (WORK / "pebble.log").read_text().count("order")
        try:
            get(port(1, 4), "unknown.example", "/", trusting(root()))
        except ssl.SSLError:
            pass
        else:
            raise AssertionError("a handshake for an unknown host succeeded")
        equal((WORK / "pebble.log").read_text().count("new-order") + (WORK / "pebble.log").read_text().count("order"), before)
    with check("keys are sealed: none stands in a node's files as it is"):
        for node in [1, 2, 3]:
            found = subprocess.run(["grep", "-rlaF", "PRIVATE KEY", DIRECTORY / f"node{node}/meta"], stdout=subprocess.PIPE, text=True).stdout
            equal(found, "")


def write(path, text):
    path.write_text(text)
    return path


def await_status():
    """Waits until all three nodes see each other."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        status = garage("status")
        if status.count("zone") == 3 and "FAILED NODES" not in status:
            return
        time.sleep(0.2)


try:
    main()
finally:
    if DIRECTORY.exists():
        subprocess.run([DEV_CLUSTER, "stop"], env=ENVIRONMENT)
    end_all()
