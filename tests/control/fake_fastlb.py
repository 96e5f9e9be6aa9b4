"""The command `fastlb`, with fake_worker.py in the place of the real worker."""

import functools
import sys
from pathlib import Path

from fastlb import cli, control

if __name__ == "__main__":
    fake = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
    control.Control = functools.partial(control.Control, command=fake)
    sys.exit(cli.main())
