"""What the flows about programs share: configuration read from the manual's pages, programs that are started and ended, plain HTTP.

A page marks what it configures by a comment, `<!-- file: NAME -->`, before a code block. A flow writes that very block to a file, with the
example's addresses, names and keys exchanged for those of the run. So the page can't say anything but what was tested.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from checks import ENDPOINT

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = ROOT / "doc" / "src" / "integrations"
WORK = pathlib.Path(os.environ["WORK"])
CLIENTS = pathlib.Path(os.environ["CLIENTS"])
STARTS_WITHIN_S = 120
# Proxies of the machine must not stand between programs on it.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def block(page, name, exchange):
    """The code block that a page marks as `name`, with each key of `exchange` replaced by its value. Every key must be there."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- file: {re.escape(name)} -->\n+```[^\n]*\n(.*?)\n```", text, re.DOTALL)
    if not found:
        raise AssertionError(f"{page} has no block <!-- file: {name} -->")
    content = found.group(1) + "\n"
    for example, real in exchange.items():
        if example not in content:
            raise AssertionError(f"{page}, block {name}: {example!r} does not stand in it")
        content = content.replace(example, real)
    return content


def keys():
    """The example's key pair, and that of the run."""
    return {
        "GK31c2f218a2e44f485b94239e": os.environ["AWS_ACCESS_KEY_ID"],
        "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835": os.environ["AWS_SECRET_ACCESS_KEY"],
    }


def garage(*arguments):
    """What a garage command prints, asked of the first node."""
    command = [os.environ["DEV_CLUSTER"], "cli", "1", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def web_endpoint(endpoint=ENDPOINT):
    """Where the node of an S3 endpoint serves websites."""
    host, port = endpoint.rsplit(":", 1)
    return f"{host}:{int(port) + 2}"


def free_port():
    """A port that nothing listens on, and that was not given out before: it may be some time until its program listens."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in given_ports:
            given_ports.add(port)
            return port


given_ports = set()


class Program:
    """A program in the background, ended at the latest with the flow."""

    running = []

    def __init__(self, command, log, port=None, **arguments):
        self.command, self.log, self.port, self.arguments = command, WORK / log, port, arguments
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.arguments)
        Program.running.append(self)
        if self.port:
            await_port(self.port, self)

    def end(self, force=False):
        if self in Program.running:
            Program.running.remove(self)
        if self.process.poll() is None:
            (self.process.kill if force else self.process.terminate)()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)

    def tail(self):
        return self.log.read_text(errors="replace")[-2000:]


def await_port(port, program=None):
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if deadline < time.monotonic() or (program and program.process.poll() is not None):
                raise AssertionError(f"nothing listens on port {port}: {program.tail() if program else ''}") from None
            time.sleep(0.05)


def end_all():
    for program in list(Program.running):
        program.end(force=True)


def run(*command, seconds=600, **arguments):
    """Runs a program to its end and gives what it printed; raises with it if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, **arguments)
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}: {text[-1500:]}")
    return text


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())


def http(method, url, body=None, headers=(), follow=False):
    """An answer's status, headers and body, whatever its status. Redirects are answers too unless `follow`."""
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    try:
        with (OPENER if follow else DIRECT).open(request, timeout=300) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def answers(status, method, url, body=None, headers=(), follow=False):
    """As `http`, and the status must be this one."""
    found = http(method, url, body, headers, follow)
    if found[0] != status:
        raise AssertionError(f"{method} {url}: {found[0]}, expected {status}: {found[2][:500]!r}")
    return found


if __name__ == "__main__":
    sys.exit("this file holds no flow")
