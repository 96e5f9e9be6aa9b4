"""What a process asks of the kernel for itself."""

import subprocess
import sys

SCRIPT = """
import subprocess
from fastlb._core.process import no_new_privileges

def said():
    with open("/proc/self/status") as lines:
        return [line.split()[1] for line in lines if line.startswith("NoNewPrivs")]

before = said()
no_new_privileges()
child = subprocess.run(["grep", "NoNewPrivs", "/proc/self/status"], capture_output=True, text=True)
print(before, said(), child.stdout.split()[1])
"""


def test_no_new_privileges_holds_for_what_is_started_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("['0'] ['1'] 1\n", "['1'] ['1'] 1\n")  # a container may have said it
