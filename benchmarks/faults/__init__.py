"""Deployments with every fault that was thought of, in one thread under one clock: does any order of events break a promise?

    python -m benchmarks simulate-faults --seed 0 --seeds 1000 --processes 2

A seed is a story of so many steps: calls of several routers over one store, crashes and cancellations between any two of their
questions, the store out before or after it has written, lists that fail, shrink or lie, webhooks lost, late, doubled and out of
order, sends that fail in every way the provider knows, clocks that step, policies that are swapped. After every write and every
message the promises of `ledger` hold; in the end, with the faults over, whoever may be served is served.

- `story`: what happens; `ending`: how it ends well
- `deployment`: the routers, the store, the calls under way; `provider`: the other side; `policies`: by what is decided
- `ledger`: what was promised, with `written` for what is on record, `lines` and `observed` for what it knows of a line
- `telling`: a seed's story told, and shortened; `command`: many of them
"""
