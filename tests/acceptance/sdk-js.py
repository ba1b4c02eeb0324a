"""The AWS SDK for JavaScript (v3)."""

import pathlib
import subprocess

from checks import check
from pages import CLIENTS

# Beside its libraries, where the program finds them.
program = CLIENTS / "sdk-js" / "main.mjs"
program.write_text((pathlib.Path(__file__).parent / "programs/js/main.mjs").read_text())
done = subprocess.run(["node", program, "acceptance-js"], timeout=300)
with check("the program came to its end"):
    if done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}")
