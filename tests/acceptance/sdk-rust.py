"""The AWS SDK for Rust."""

import subprocess

from checks import check
from pages import CLIENTS

# Its lines are checks of this flow.
done = subprocess.run([CLIENTS / "bin/rust-programs", "acceptance-rust"], timeout=300)
with check("the program came to its end"):
    if done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}")
