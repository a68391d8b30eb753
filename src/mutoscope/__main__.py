"""``python -m mutoscope``."""

import sys

from mutoscope.cli import main

if __name__ == "__main__":
    sys.exit(main())
