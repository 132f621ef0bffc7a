"""By what the deployments decide: policies whose limits bite within a short story."""

from __future__ import annotations

import random
from typing import Any

from linepicker import Policy


def policy_of(dice: random.Random) -> Policy:
    """A policy of which everything that changes a decision may be on."""
    pick = dice.choice
    quiet: dict[str, Any] = {"hours": "off"}
    if dice.random() < 0.2:
        quiet = {"hours": "21:00-08:00", "zone": pick(("UTC", "Etc/GMT+8"))}
        quiet["prefix"] = {"+1415555000": {"zone": "Etc/GMT-9"}, "+1415555001": {"hours": "off"}}
    return Policy.from_dict(
        {
            "prefer": pick(("healthiest", "healthiest", "weighted")),
            "limits": {
                "new_per_day": pick((1, 3, 10, 30, 60)),
                "new_per_hour": pick(("off", "off", 1, 5)),
                "messages_per_day": pick((7000, 20)),
                "pair_per_minute": pick((30, 2)),
                "moves_per_day": pick((1, 20)),
            },
            "pace": {
                "new_gap": pick((0.0, 20.0)),
                "new_burst": pick((1, 5)),
                "message_gap": pick((0.0, 1.0)),
                "message_burst": pick((1, 20)),
                "spread": pick(("off", 0.35)),
            },
            "warmup": {"start": pick((2, 10))},
            "recovery": {"confirmations": pick((1, 2, 3)), "ineligible": pick((3600.0, 86400.0))},
            "health": {"on_stale": pick(("slow", "slow", "refuse"))},
            "conversation": {
                "unanswered": pick(("off", "off", "shadow", "enforce")),
                "chat_health": pick(("off", "enforce")),
            },
            "failures": {"mode": pick(("enforce", "shadow", "off")), "streak": 3, "sample": 6},
            "on_store_error": pick(("refuse", "refuse", "known_only")),
            "stickiness": {
                "on_critical": pick(("hold", "hold", "move")),
                "on_flagged": pick(("move", "move", "hold")),
                "return_home": pick(("off", 3600.0)),
                "mid_conversation": pick((0.0, 86400.0)),
            },
            "learn": {"enabled": dice.random() < 0.5},
            "affinity": {"area_code": pick((1.0, 1.0, 0.5))},
            "priority": {"urgent_share": pick((0.0, 0.0, 0.0, 0.3))},
            "quiet": quiet,
        }
    )
