"""What the flows about TLS share: self-signed certificates, connections that trust them."""

import http.client
import socket
import ssl
import sys

from pages import run

WAIT_S = 60


def make_certificate(name, folder):
    """A self-signed certificate for a host and its key."""
    folder.mkdir(exist_ok=True)
    files = [folder / "cert.pem", folder / "key.pem"]
    lines = ["[req]", "distinguished_name = name", "x509_extensions = more", "prompt = no", "[name]", f"CN = {name}", "[more]"]
    # By default it would be an authority's certificate, which no server may show.
    lines += [f"subjectAltName = DNS:{name},IP:127.0.0.1", "basicConstraints = critical,CA:FALSE"]
    config = folder / "request.cnf"
    config.write_text("\n".join(lines) + "\n")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    run("openssl", "req", "-x509", "-config", config, *kind, "-out", files[0], "-keyout", files[1])
    return files


def trusting(pem, protocols=("http/1.1",)):
    context = ssl.create_default_context(cadata=pem)
    context.set_alpn_protocols(list(protocols))
    return context


def connect(at, name, context):
    raw = socket.create_connection(("127.0.0.1", at), timeout=WAIT_S + 30)
    return context.wrap_socket(raw, server_hostname=name)


def get(at, name, path, context, headers=()):
    """Status, headers and body of a GET over TLS, and the certificate's serial number."""
    with connect(at, name, context) as stream:
        connection = http.client.HTTPConnection(name)
        connection.sock = stream
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read(), stream.getpeercert()["serialNumber"]


if __name__ == "__main__":
    sys.exit("this file holds no flow")
