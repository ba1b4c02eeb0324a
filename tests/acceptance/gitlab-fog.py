"""GitLab's object storage: fog-aws with the connection of the manual, and the requests of its Workhorse."""

import os
import subprocess

from checks import ENDPOINT, ENDPOINTS, check, client, empty_and_remove
from pages import CLIENTS, WORK, block, keys

BUCKET = "acceptance-gitlab"
SCRIPT = os.path.join(os.path.dirname(__file__), "gitlab-fog.rb")

other = next(endpoint for endpoint in ENDPOINTS if endpoint != ENDPOINT)
for name, endpoint in [("connection", ENDPOINT), ("other", other)]:
    (WORK / f"{name}.yml").write_text(block("gitlab.md", "connection.yml", keys() | {"http://localhost:3900": endpoint}))

# Its lines are checks of this flow.
done = subprocess.run(["ruby", SCRIPT, WORK / "connection.yml", WORK / "other.yml", BUCKET, CLIENTS / "bin" / "go-programs"], cwd=WORK, timeout=600)
with check("the script came to its end"):
    if done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}")
with check("clean up"):
    s3 = client()
    if any(bucket["Name"] == BUCKET for bucket in s3.list_buckets()["Buckets"]):
        empty_and_remove(s3, BUCKET)
