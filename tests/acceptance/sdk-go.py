"""The AWS SDK for Go (v2) and minio-go, each through another node."""

import os
import subprocess

from checks import ENDPOINT, ENDPOINTS, check
from pages import CLIENTS

PROGRAM = CLIENTS / "bin" / "go-programs"

for sdk, endpoint in [("aws", ENDPOINT), ("minio", next(found for found in ENDPOINTS if found != ENDPOINT))]:
    # Its lines are checks of this flow.
    done = subprocess.run([PROGRAM, sdk, f"acceptance-go-{sdk}"], env=os.environ | {"ENDPOINT": endpoint}, timeout=300)
    with check(f"the program came to its end ({sdk})"):
        if done.returncode != 0:
            raise AssertionError(f"exit {done.returncode}")
