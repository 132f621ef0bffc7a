"""What linepicker's choices cost, beside what others charge for theirs: `python -m benchmarks --help`."""
