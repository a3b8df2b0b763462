"""``python -m edgeinfer.cli``: the same as the ``edgeinfer`` command."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
