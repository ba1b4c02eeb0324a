"""Gitea with its files in a bucket: moved there from disk; avatars, attachments, releases, LFS, packages, archives, actions; links straight to a node."""

import base64
import json
import os
import re
import shutil
import struct
import time
import urllib.parse
import zlib

from checks import ENDPOINT, ENDPOINTS, check, client, data, empty, equal, sha256
from pages import CLIENTS, WORK, Program, answers, block, end_all, free_port, garage, http, keys, run

BUCKET = "acceptance-gitea"
FOLDER = CLIENTS / "gitea"
PROGRAM = FOLDER / "gitea"
OTHER = next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT)
USER, PASSWORD = "tester", "a-Long-secret-1"
# Gitea sends files to the bucket in parts of 16 MiB.
LARGE_BYTES = 40 << 20
LFS_SIZES = [1, 1024, 16385, 1 << 20, 20 << 20]
WAIT_S = 60
# What the doctor counts, once nothing is left over.
FOUND = {"attachment": 7, "LFS file": len(LFS_SIZES), "avatar": 1, "repo avatar": 0, "repo archive": 1, "package blob": 2, "orphaned": False}
WORKFLOW = "on: push\njobs:\n  build:\n    runs-on: flow\n    steps:\n      - run: echo built\n"
ARTIFACTS = "/twirp/github.actions.results.api.v1.ArtifactService"
s3 = client()


def stored(prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def png(seed):
    """A picture of 64 times 64 points."""
    chunk = lambda kind, content: struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    rows = b"".join(b"\0" + bytes((seed + x * y) % 256 for x in range(64) for _ in range(3)) for y in range(64))
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Gitea:
    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = WORK / "app.ini"
        self.home = WORK / "home"
        self.home.mkdir()
        self.environment = os.environ | {"HOME": str(self.home), "GITEA_WORK_DIR": str(WORK / "gitea"), "GIT_TERMINAL_PROMPT": "0"}
        names = ["INTERNAL_TOKEN", "JWT_SECRET", "LFS_JWT_SECRET"]
        self.secrets = {name: run(PROGRAM, "generate", "secret", name, env=self.environment).split()[-1] for name in names}
        self.program = self.token = None

    def configure(self, storage):
        """What an installation's app.ini has before this one's page is read, then what the page adds."""
        # It refuses to run as root unless told.
        text = f"""I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {self.port}
ROOT_URL = {self.url}/
STATIC_ROOT_PATH = {FOLDER}
OFFLINE_MODE = true
DISABLE_SSH = true
LFS_JWT_SECRET = {self.secrets["LFS_JWT_SECRET"]}
[database]
DB_TYPE = sqlite3
PATH = {WORK}/gitea.db
[repository]
ROOT = {WORK}/repositories
[security]
INSTALL_LOCK = true
SECRET_KEY = of-this-flow
INTERNAL_TOKEN = {self.secrets["INTERNAL_TOKEN"]}
[oauth2]
JWT_SECRET = {self.secrets["JWT_SECRET"]}
[indexer]
ISSUE_INDEXER_TYPE = db
[actions]
ENABLED = true
[log]
LEVEL = Info
"""
        self.config.write_text(text + storage)

    def command(self, *arguments):
        return run(PROGRAM, *arguments, "--config", self.config, env=self.environment)

    def start(self):
        if self.program:
            self.program.start()
        else:
            self.program = Program([PROGRAM, "web", "--config", self.config], "gitea.log", self.port, env=self.environment)
        deadline = time.monotonic() + WAIT_S
        # It answers before it has set everything up.
        while http("GET", f"{self.url}/api/healthz")[0] != 200:
            if deadline < time.monotonic():
                raise AssertionError(f"Gitea is not healthy: {self.program.tail()}")
            time.sleep(0.1)

    def api(self, status, method, path, value=None):
        """What an answer of its interface says."""
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        body = json.dumps(value).encode() if value is not None else None
        answer = answers(status, method, f"{self.url}/api/v1{path}", body, headers)[2]
        return json.loads(answer) if answer else None

    def upload(self, path, name, content):
        boundary = "of-this-flow"
        lines = [f"--{boundary}", f'Content-Disposition: form-data; name="attachment"; filename="{name}"', "Content-Type: application/octet-stream", "", ""]
        body = "\r\n".join(lines).encode() + content + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Authorization": f"token {self.token}", "Content-Type": f"multipart/form-data; boundary={boundary}"}
        return json.loads(answers(201, "POST", f"{self.url}/api/v1{path}", body, headers)[2])

    def read(self, url, status=200, method="GET", body=None):
        """A download with its redirects followed, as a person's. The token goes to Gitea only."""
        headers = {"Authorization": f"token {self.token}"}
        found, answered, content = http(method, url, body, headers)
        if found in (302, 303, 307):
            return answers(status, method, answered["Location"])[2]
        equal((url, found), (url, status))
        return content

    def location(self, url):
        """Where a download leads to, None if it is answered itself."""
        return http("GET", url, headers={"Authorization": f"token {self.token}"})[1]["Location"]

    def git(self, *arguments, folder=None):
        return run("git", *arguments, cwd=folder, env=self.environment)

    def clone(self, name):
        self.git("clone", f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{USER}/app.git", WORK / name)
        return WORK / name

    def commit(self, folder, message):
        self.git("add", ".", folder=folder)
        self.git("commit", "-m", message, folder=folder)
        self.git("push", folder=folder)


class Runner:
    """What a runner of actions asks of Gitea: tasks, logs, artifacts."""

    def __init__(self, gitea):
        self.gitea, self.headers = gitea, {"Content-Type": "application/json"}
        token = gitea.command("actions", "generate-runner-token").split()[-1]
        found = self.call("Register", {"name": "flow", "token": token, "labels": ["flow"], "version": "v1"})["runner"]
        self.headers |= {"x-runner-uuid": found["uuid"], "x-runner-token": found["token"]}
        self.call("Declare", {"version": "v1", "labels": ["flow"]})

    def call(self, name, value):
        body = json.dumps(value).encode()
        return json.loads(answers(200, "POST", f"{self.gitea.url}/api/actions/runner.v1.RunnerService/{name}", body, self.headers)[2])

    def fetch(self):
        deadline = time.monotonic() + WAIT_S
        while not (task := self.call("FetchTask", {}).get("task")):
            if deadline < time.monotonic():
                raise AssertionError("no task came")
            time.sleep(0.2)
        self.task = task["id"]
        self.token = task["context"]["gitea_runtime_token"]
        claims = json.loads(base64.urlsafe_b64decode(self.token.split(".")[1] + "=="))
        _, run_id, job_id = claims["scp"].split(":")
        self.ids = {"workflowRunBackendId": run_id, "workflowJobRunBackendId": job_id}
        return int(job_id)

    def log(self, lines):
        rows = [{"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "content": line} for line in lines]
        found = self.call("UpdateLog", {"taskId": self.task, "index": "0", "rows": rows, "noMore": True})
        equal(found["ackIndex"], str(len(lines)))

    def done(self):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state = {"id": self.task, "result": "RESULT_SUCCESS", "startedAt": now, "stoppedAt": now}
        equal(self.call("UpdateTask", {"state": state})["state"]["result"], "RESULT_SUCCESS")

    def artifact(self, name, value):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        return json.loads(answers(200, "POST", f"{self.gitea.url}{ARTIFACTS}/{name}", json.dumps(self.ids | value).encode(), headers)[2])

    def upload_artifact(self, name, blocks):
        """As the library of actions does: blocks, the list of them, and the sum of all."""
        url = self.artifact("CreateArtifact", {"name": name, "version": 4})["signedUploadUrl"]
        ids = [base64.b64encode(f"block {number:03}".encode()).decode() for number in range(len(blocks))]
        # Not in their order, as uploads at once may come.
        for number, content in reversed(list(enumerate(blocks))):
            answers(201, "PUT", f"{url}&comp=block&blockid={urllib.parse.quote(ids[number])}", content)
        listed = "".join(f"<Latest>{found}</Latest>" for found in ids)
        answers(201, "PUT", f"{url}&comp=blocklist", f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode())
        whole = b"".join(blocks)
        self.artifact("FinalizeArtifact", {"name": name, "size": str(len(whole)), "hash": f"sha256:{sha256(whole)}"})

    def artifact_url(self, name):
        return self.artifact("GetSignedArtifactURL", {"name": name})["signedUrl"]


def configuration(endpoint, direct=False):
    host = endpoint.removeprefix("http://")
    exchange = keys() | {"localhost:3900": host, "MINIO_BUCKET = gitea": f"MINIO_BUCKET = {BUCKET}"}
    return block("gitea.md", "app.ini", exchange | {"SERVE_DIRECT = false": f"SERVE_DIRECT = {str(direct).lower()}"})


def main():
    with check("make a bucket"):
        garage("bucket", "create", BUCKET)
        garage("bucket", "allow", BUCKET, "--key", os.environ["AWS_ACCESS_KEY_ID"], "--read", "--write")
    gitea = Gitea()
    repository = f"/repos/{USER}/app"
    with check("Gitea starts with its files on disk"):
        gitea.configure("[server]\nLFS_START_SERVER = true\n")
        gitea.command("migrate")
        gitea.command("admin", "user", "create", "--username", USER, "--password", PASSWORD, "--email", "tester@flow.example", "--admin", "--must-change-password=false")
        gitea.token = gitea.command("admin", "user", "generate-access-token", "--username", USER, "--token-name", "flow", "--scopes", "all", "--raw").split()[-1]
        gitea.git("config", "--global", "user.name", USER)
        gitea.git("config", "--global", "user.email", "tester@flow.example")
        gitea.git("lfs", "install")
        gitea.start()
        gitea.api(201, "POST", "/user/repos", {"name": "app", "auto_init": True, "default_branch": "main"})
        gitea.api(201, "POST", f"{repository}/issues", {"title": "an issue"})
    disk_picture, disk_file = png(1), data(300_000)
    with check("an avatar and an attachment, on disk"):
        gitea.api(204, "POST", "/user/avatar", {"image": base64.b64encode(disk_picture).decode()})
        attached = gitea.upload(f"{repository}/issues/1/assets", "disk.zip", disk_file)
        equal(stored(""), [])
    with check("they are copied into the bucket"):
        gitea.program.end()
        exchange = keys() | {"localhost:3900": ENDPOINT.removeprefix("http://"), "--minio-bucket gitea": f"--minio-bucket {BUCKET}"}
        exchange |= {"gitea --config /etc/gitea/app.ini migrate-storage": f"{PROGRAM} migrate-storage --config {gitea.config}"}
        script = WORK / "migrate.sh"
        script.write_text(block("gitea.md", "migrate.sh", exchange))
        run("sh", script, env=gitea.environment)
        equal([len(stored("avatars/")), len(stored("attachments/"))], [1, 1])
        gitea.configure(configuration(ENDPOINT))
        for folder in ["avatars", "attachments"]:
            shutil.rmtree(WORK / "gitea/data" / folder)
        gitea.start()
        equal(gitea.read(attached["browser_download_url"]), disk_file)
        equal(gitea.read(gitea.api(200, "GET", "/user")["avatar_url"]), disk_picture)

    picture = png(2)
    with check("a new avatar appears under avatars/"):
        before = set(stored("avatars/"))
        gitea.api(204, "POST", "/user/avatar", {"image": base64.b64encode(picture).decode()})
        new = set(stored("avatars/")) - before
        url = gitea.api(200, "GET", "/user")["avatar_url"]
        equal([key.rsplit("/", 1)[1] for key in new], [url.rsplit("/", 1)[1]])
        equal(s3.get_object(Bucket=BUCKET, Key=new.pop())["Body"].read(), picture)
        equal(gitea.read(url), picture)
    with check("a picture of a repository, and it is removed"):
        gitea.api(204, "POST", f"{repository}/avatar", {"image": base64.b64encode(png(3)).decode()})
        equal(gitea.read(gitea.api(200, "GET", repository)["avatar_url"]), png(3))
        equal(len(stored("repo-avatars/")), 1)
        gitea.api(204, "DELETE", f"{repository}/avatar")
        equal(stored("repo-avatars/"), [])
    with check("files are attached to an issue"):
        contents = {f"{size}.zip": data(size) for size in [1, 1024, 16385, 1 << 20, 20 << 20]}
        for name, content in contents.items():
            found = gitea.upload(f"{repository}/issues/1/assets", name, content)
            equal((found["size"], gitea.read(found["browser_download_url"])), (len(content), content))
    large = data(LARGE_BYTES)
    with check("a release has a file of several parts"):
        release = gitea.api(201, "POST", f"{repository}/releases", {"tag_name": "v1", "name": "one"})["id"]
        asset = gitea.upload(f"{repository}/releases/{release}/assets", "large.bin", large)
        equal(gitea.read(asset["browser_download_url"]), large)
    with check("part of it is read"):
        headers = {"Range": "bytes=20000000-20000099", "Authorization": f"token {gitea.token}"}
        equal(answers(206, "GET", asset["browser_download_url"], headers=headers)[2], large[20000000:20000100])
    with check("a file of a release is removed"):
        small = gitea.upload(f"{repository}/releases/{release}/assets", "small.bin", b"small")
        key = f"attachments/{small['uuid'][0]}/{small['uuid'][1]}/{small['uuid']}"
        equal(stored(key), [key])
        gitea.api(204, "DELETE", f"{repository}/releases/{release}/assets/{small['id']}")
        equal(stored(key), [])

    files = {f"{size}.bin": data(size) for size in LFS_SIZES}
    with check("files are pushed by git-lfs"):
        folder = gitea.clone("working")
        gitea.git("lfs", "track", "*.bin", folder=folder)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        gitea.commit(folder, "files")
        hashes = [sha256(content) for content in files.values()]
        equal(sorted(stored("lfs/")), sorted(f"lfs/{found[:2]}/{found[2:4]}/{found[4:]}" for found in hashes))
    with check("they are cloned"):
        folder = gitea.clone("cloned")
        equal({name: sha256((folder / name).read_bytes()) for name in files}, {name: sha256(content) for name, content in files.items()})
        gitea.git("lfs", "fsck", folder=folder)
    with check("an archive of the repository"):
        url = f"{gitea.url}/api/v1{repository}/archive/main.tar.gz"
        archive = gitea.read(url)
        equal(len(stored("repo-archive/")), 1)
        equal(gitea.read(url), archive)
        (WORK / "archive.tar.gz").write_bytes(archive)
        equal("app/README.md" in run("tar", "-tzf", WORK / "archive.tar.gz").split(), True)
    packages = f"{gitea.url}/api/packages/{USER}/generic/tool/1.0"
    with check("a package is uploaded, read and listed"):
        for name, content in [("large.bin", large), ("empty.txt", b"-")]:
            answers(201, "PUT", f"{packages}/{name}", content, {"Authorization": f"token {gitea.token}", "Content-Type": "application/octet-stream"})
            equal(gitea.read(f"{packages}/{name}"), content)
        equal(len(stored("packages/")), 2)
        found = gitea.api(200, "GET", f"/packages/{USER}/generic/tool/1.0/files")
        equal(sorted((file["name"], file["sha256"]) for file in found), [("empty.txt", sha256(b"-")), ("large.bin", sha256(large))])

    blocks = [data(5 << 20), data(3 << 20), data(77)]
    with check("an action's task comes to a runner"):
        runner = Runner(gitea)
        workflows = WORK / "cloned/.gitea/workflows"
        workflows.mkdir(parents=True)
        (workflows / "build.yml").write_text(WORKFLOW)
        gitea.commit(WORK / "cloned", "workflow")
        job = runner.fetch()
    with check("it uploads an artifact in blocks, and reads it"):
        runner.upload_artifact("built", blocks)
        equal(gitea.read(runner.artifact_url("built")), b"".join(blocks))
        kept = stored("actions_artifacts/")
        equal(len(kept), 1)
    with check("it ends, and its log is there"):
        runner.log(["first line", "last line"])
        runner.done()
        equal(len(stored("actions_log/")), 1)
        shown = gitea.read(f"{gitea.url}/api/v1{repository}/actions/jobs/{job}/logs").decode()
        equal(re.findall("(?:first|last) line", shown), ["first line", "last line"])
    with check("the artifact is downloaded by others"):
        [found] = gitea.api(200, "GET", f"{repository}/actions/artifacts")["artifacts"]
        artifact = f"{gitea.url}/api/v1{repository}/actions/artifacts/{found['id']}/zip"
        equal(gitea.read(gitea.location(artifact)), b"".join(blocks))
    with check("Gitea's doctor finds all of it, and removes the avatar that nobody shows any more"):
        equal(len(stored("avatars/")), 2)
        gitea.command("doctor", "check", "--run", "storages", "--fix")
        equal(len(stored("avatars/")), 1)
        shown = gitea.command("doctor", "check", "--run", "storages")
        counts = re.findall(r"\[I\] Found (\d+) \([^)]*\) ([a-zA-Z ]+)", shown)
        equal({what.strip(): int(count) for count, what in counts} | {"orphaned": "orphaned avatar" in shown}, FOUND)

    with check("Gitea is killed and goes on at another node, with links straight to it"):
        gitea.program.end(force=True)
        gitea.configure(configuration(OTHER, direct=True))
        gitea.start()
    with check("everything is there, read straight from that node"):
        for url, content in [
            (asset["browser_download_url"], large),
            (attached["browser_download_url"], disk_file),
            (gitea.api(200, "GET", "/user")["avatar_url"], picture),
            (f"{packages}/large.bin", large),
        ]:
            led = gitea.location(url) or ""
            equal((url, led.startswith(f"{OTHER}/{BUCKET}/") and "X-Amz-Signature=" in led), (url, True))
            equal(gitea.read(url), content)
    with check("git-lfs clones straight from that node"):
        folder = gitea.clone("direct")
        equal({name: sha256((folder / name).read_bytes()) for name in files}, {name: sha256(content) for name, content in files.items()})
    with check("git-lfs pushes on"):
        (folder / "more.bin").write_bytes(large)
        gitea.commit(folder, "more")
        gitea.git("pull", folder=WORK / "cloned")
        equal(sha256((WORK / "cloned/more.bin").read_bytes()), sha256(large))
    with check("a link's name and type reach the browser"):
        headers = answers(200, "GET", gitea.location(asset["browser_download_url"]))[1]
        equal("large.bin" in headers["Content-Disposition"], True)
    with check("removed packages and repositories leave the bucket"):
        gitea.api(204, "DELETE", f"/packages/{USER}/generic/tool/1.0")
        gitea.api(204, "DELETE", repository)
        equal(stored("attachments/"), [])
    with check("clean up"):
        end_all()
        empty(s3, BUCKET)
        garage("bucket", "delete", "--yes", BUCKET)


try:
    main()
finally:
    end_all()
