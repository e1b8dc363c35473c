"""`python -m clipgen` is `clipgen`."""

from __future__ import annotations

import sys

from clipgen.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
