"""python -m tests.soak: as long as wanted; exit status 1 if anything was wrong."""

import argparse
import sys
import time

from .run import soak

parser = argparse.ArgumentParser(prog="python -m tests.soak")
parser.add_argument("--seconds", type=float, default=900)
parser.add_argument("--seed", type=int, default=int(time.time()), help="of the faults' order")
arguments = parser.parse_args()
report = soak(arguments.seconds, arguments.seed)
print(report.text())
sys.exit(1 if report.violations else 0)
