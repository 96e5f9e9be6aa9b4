"""`python -m fastlb` is the command `fastlb`."""

import sys

from fastlb.cli import main

sys.exit(main())
