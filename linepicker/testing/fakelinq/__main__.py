"""`python -m linepicker.testing.fakelinq --port 0 --lines 6`."""

import argparse

from linepicker.testing.fakelinq.process import serve_forever

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="fakelinq", description="Serve a fake provider.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--lines", type=int, default=6, help="how many lines the account has")
    arguments = parser.parse_args()
    serve_forever(port=arguments.port, lines=arguments.lines)
