"""The benchmarks that take a minute: `make bench-quick`, or `python benchmarks/quick.py --json FILE`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout in place of this folder

from benchmarks.measure import Plan, main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(Plan(lengths=[200], widths=[500], rounds=5, concurrency=2), __doc__ or ""))
