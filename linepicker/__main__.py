"""`python -m linepicker` is the command `linepicker`."""

import sys

from linepicker.cli import main

if __name__ == "__main__":
    sys.exit(main())
