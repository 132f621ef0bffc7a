"""Each mechanism of the policy switched off alone. The list is data: another mechanism is another row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from linepicker.policy import Policy
from linepicker.simulate.score import ORACLE, Contender

__all__ = ["ABLATIONS", "Ablation", "contenders"]


@attrs.frozen
class Ablation:
    """A mechanism, and what a policy says to be without it: values, or tables and their values, as in TOML."""

    name: str
    off: Mapping[str, Any]

    @property
    def toml(self) -> str:
        """What to write into a policy, in short."""
        return ", ".join(
            f"{place}.{name} = {_worded(each)}" if name else f"{place} = {_worded(each)}"
            for place, value in self.off.items()
            for name, each in (value.items() if isinstance(value, Mapping) else [("", value)])
        )

    def applied(self, policy: Policy) -> Policy:
        """*policy* without the mechanism. Raises PolicyError."""
        values = policy.to_dict()
        for place, change in self.off.items():
            values[place] = {**values[place], **change} if isinstance(change, Mapping) else change
        return Policy.from_dict(values)


def _worded(value: object) -> str:
    return json.dumps(value)


ABLATIONS: Final = (
    Ablation("learning", {"learn": {"enabled": False}}),
    Ablation("learned budgets", {"learn": {"budgets": False}}),
    Ablation("what others fell at", {"learn": {"fleet": False}}),
    Ablation("waiting for the verdict on a raise", {"learn": {"hold": 0, "lag": 0}}),
    Ablation("slow growth near the ceiling", {"learn": {"near": 1.0, "relax": 1.0}}),
    Ablation("smoothing of jumps", {"learn": {"jump": "off"}}),
    Ablation("the pool's own day", {"learn": {"profile": False}}),
    Ablation("nearness to AT_RISK", {"learn": {"nearness": False}}),
    Ablation("spread over the day", {"pace": {"spread": "off"}}),
    Ablation("gaps between conversations", {"pace": {"new_gap": 0}}),
    Ablation("the hour's limit", {"limits": {"new_per_hour": "off"}}),
    Ablation("a smaller budget while AT_RISK", {"at_risk": {"budget": 1.0, "pace": 1.0}}),
    Ablation("HEALTHY before AT_RISK", {"prefer": "weighted"}),
    Ablation("the ramp after CRITICAL", {"recovery": {"share": 1.0}}),
    Ablation("confirmed recovery", {"recovery": {"confirmations": 1}}),
    Ablation("warm-up of newcomers", {"warmup": {"start": 10000}}),
    Ablation("waiting while CRITICAL", {"stickiness": {"on_critical": "move"}}),
    Ablation("moving when FLAGGED", {"stickiness": {"on_flagged": "hold"}}),
    Ablation("replies in the score", {"learn": {"reply_rate": 0.0}}),
)


def contenders(policy: Policy | None = None) -> tuple[Contender, ...]:
    """The oracle, the whole policy, and it without each mechanism."""
    whole = policy or Policy()
    return (
        Contender(ORACLE, ORACLE, whole),
        Contender("linepicker", policy=whole),
        *(Contender(f"without {each.name}", policy=each.applied(whole)) for each in ABLATIONS),
    )
