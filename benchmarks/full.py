"""All benchmarks: short and long, narrow and wide: `make bench`, or `python benchmarks/full.py --json FILE`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout in place of this folder

from benchmarks.measure import Plan, main  # noqa: E402

if __name__ == "__main__":
    plan = Plan(lengths=[20, 200, 500], widths=[20, 500, 2_000], rounds=7, concurrency=2)
    sys.exit(main(plan, __doc__ or ""))
