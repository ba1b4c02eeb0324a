"""Verdaccio with its storage plugin: npm publishes, installs, tags and unpublishes; two Verdaccios talk to different nodes."""

import json
import os

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty_and_remove, equal
from pages import CLIENTS, WORK, Program, answers, block, end_all, free_port, http, keys, run

BUCKET = "acceptance-verdaccio"
# Over 5 MiB the plugin uploads in parts.
LARGE_BYTES = 8 << 20


class Verdaccio:
    def __init__(self, name, endpoint):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        exchange = keys() | {
            "bucket: verdaccio": f"bucket: {BUCKET}",
            "http://localhost:3900": endpoint,
            "127.0.0.1:4873": f"127.0.0.1:{self.port}",
            "./htpasswd": str(WORK / "htpasswd"),
        }
        config = WORK / f"{name}.yaml"
        config.write_text(block("verdaccio.md", "config.yaml", exchange))
        command = ["node", CLIENTS / "verdaccio/node_modules/verdaccio/bin/verdaccio", "--config", config]
        self.program = Program(command, f"{name}.log", self.port, cwd=CLIENTS / "verdaccio")

    def npm(self, *arguments, folder):
        environment = os.environ | {"npm_config_registry": self.url, "npm_config_userconfig": str(WORK / "npmrc"), "npm_config_cache": str(WORK / "cache")}
        environment |= {"npm_config_update_notifier": "false", "npm_config_audit": "false", "npm_config_fund": "false", "HOME": str(WORK)}
        return run("npm", *arguments, cwd=folder, env=environment)


def package(name, version, **more):
    folder = WORK / "packages" / f"{name}-{version}"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": version, "main": "index.js"} | more))
    (folder / "index.js").write_text(f"module.exports = '{name} {version}';\n")
    return folder


def main():
    s3 = client()
    with check("make a bucket"):
        s3.create_bucket(Bucket=BUCKET)
    with check("Verdaccio starts, and one more at another node"):
        first = Verdaccio("first", ENDPOINT)
        other = Verdaccio("other", next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT))
    with check("make a user"):
        user = json.dumps({"name": "tester", "password": "a-long-secret"}).encode()
        _, _, body = answers(201, "PUT", f"{first.url}/-/user/org.couchdb.user:tester", user, {"Content-Type": "application/json"})
        token = json.loads(body)["token"]
        (WORK / "npmrc").write_text("".join(f"//127.0.0.1:{port}/:_authToken={token}\n" for port in (first.port, other.port)))

    with check("a package that is not there"):
        answers(404, "GET", f"{first.url}/small")
    with check("publish"):
        first.npm("publish", folder=package("small", "1.0.0"))
    with check("it is at once there for the other one"):
        found = json.loads(answers(200, "GET", f"{other.url}/small")[2])
        equal(found["dist-tags"], {"latest": "1.0.0"})
    with check("publish a tarball of several parts, that depends on it"):
        folder = package("large", "1.0.0", dependencies={"small": "^1.0.0"})
        (folder / "noise").write_bytes(data(LARGE_BYTES))
        first.npm("publish", folder=folder)
    with check("install it through the other one"):
        target = WORK / "installed"
        target.mkdir()
        (target / "package.json").write_text('{"private": true}')
        other.npm("install", "large", folder=target)
        equal((target / "node_modules/large/noise").read_bytes(), (folder / "noise").read_bytes())
        equal(run("node", "-p", "require('small')", cwd=target).strip(), "small 1.0.0")
    with check("publish a second version under a tag"):
        first.npm("publish", "--tag", "next", folder=package("small", "1.1.0"))
        first.npm("dist-tag", "add", "small@1.0.0", "stable", folder=WORK)
        found = json.loads(answers(200, "GET", f"{other.url}/small")[2])
        equal(found["dist-tags"], {"latest": "1.0.0", "next": "1.1.0", "stable": "1.0.0"})
    with check("the same version again is refused"):
        equal(http("PUT", f"{first.url}/small", b"{}", {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})[0] >= 400, True)
    with check("unpublish a version"):
        first.npm("unpublish", "small@1.1.0", folder=WORK)
        equal(list(json.loads(answers(200, "GET", f"{other.url}/small")[2])["versions"]), ["1.0.0"])
        answers(404, "GET", f"{other.url}/small/-/small-1.1.0.tgz")
    with check("after a restart all is there"):
        first.program.end()
        first.program.start()
        equal(answers(200, "GET", f"{first.url}/large/-/large-1.0.0.tgz")[2], answers(200, "GET", f"{other.url}/large/-/large-1.0.0.tgz")[2])
        names = sorted(found["name"] for found in json.loads(answers(200, "GET", f"{first.url}/-/verdaccio/data/packages")[2]))
        equal(names, ["large", "small"])
    with check("unpublish a package"):
        first.npm("unpublish", "--force", "large", folder=WORK)
        answers(404, "GET", f"{other.url}/large")
        left = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="packages/large").get("Contents", [])]
        equal(left, [])
    with check("clean up"):
        end_all()
        empty_and_remove(s3, BUCKET)


try:
    main()
finally:
    end_all()
