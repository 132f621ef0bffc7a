"""The contract, sentence by sentence: what a Router promises, on a clock that only moves when told."""

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import (
    AlreadySent,
    Blocked,
    Decision,
    Delivered,
    Failed,
    Held,
    InvalidRecipient,
    Line,
    LineAssigned,
    LineChanged,
    LinePickerError,
    LineReleased,
    MessageRead,
    NoLine,
    NotNow,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Reputation,
    Router,
    ServiceStatus,
    SourceError,
    StaleHealth,
    StoreError,
    Verdict,
)
from linepicker.stores import Answer
from linepicker.stores import open as open_store
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

SOME = settings(max_examples=int(os.environ.get("LINEPICKER_EXAMPLES", "60")))
NOW = 1_790_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
TTL = 60.0
A, B, C, D = "+12025550100", "+12025550101", "+12025550102", "+12025550103"
ANN, BOB, CAT = "+14155550101", "+14155550102", "cat@example.com"
H, R, X = Reputation.HEALTHY, Reputation.AT_RISK, Reputation.CRITICAL


class Told(Exception):
    """What a provider's client raises; the account knows what it means."""

    def __init__(self, outcome: Outcome, **more) -> None:
        super().__init__(outcome)
        self.verdict = Verdict(outcome, **more)


class Account:
    """A provider whose list of lines can be changed, and can fail."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.error: Exception | None = None
        self.fetches = 0

    def fetch(self):
        """The list as it is."""
        self.fetches += 1
        if self.error is not None:
            raise self.error
        return list(self.lines.values())

    def classify(self, result):
        """Only `Told` is known."""
        return result.verdict if isinstance(result, Told) else None

    def has(self, *numbers: str, **more) -> None:
        """These lines, alike."""
        for number in numbers:
            self.lines[number] = Line(number, **more)

    def calls(self, number: str, reputation: Reputation) -> None:
        """The list shows another reputation from now on."""
        self.lines[number] = attrs.evolve(self.lines[number], reputation=reputation)


LOOSE = {
    "limits": dict.fromkeys(
        ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day"),
        "off",
    ),
    "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
    "learn": {"enabled": False},
}
"""A policy that limits nothing, so that a test shows the one limit it names."""


def loose(**tables) -> Policy:
    """`LOOSE` with these tables laid over it."""
    merged = {**LOOSE}
    for name, table in tables.items():
        merged[name] = {**LOOSE.get(name, {}), **table} if isinstance(table, dict) else table
    return Policy.from_dict(merged)


class World:
    """A clock, an account of two lines, a store, and any number of routers over them."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.account = Account()
        self.account.has(A, B)
        self.store = MemoryStore()

    def router(self, policy: Policy | None = None, **more) -> Router:
        """Another process."""
        more = {"store": self.store, "clock": self.clock, "policy": policy, **more}
        return Router(more.pop("source", self.account), **more)

    def everything(self) -> dict[str, object]:
        """All that is stored."""
        return dict(self.store.scan(""))

    def polls(self, router: Router, seconds: float, step: float = TTL + 1) -> None:
        """Time passes while the list of lines is read again and again."""
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self.clock.advance(min(step, until - self.clock.now()))
            router.lines()

    def report(self, router: Router, kind, *positional, **more) -> bool:
        """A report of what happens now."""
        return router.report(kind(*positional, at=self.clock.now(), **more))


@pytest.fixture
def world() -> World:
    """A new world."""
    return World()


@pytest.fixture
def router(world: World) -> Router:
    """A router that nothing limits."""
    return world.router(loose())


def people(count: int, start: int = 0) -> list[str]:
    """So many recipients."""
    return [f"+1415{n:07d}" for n in range(start, start + count)]


def used(router: Router, number: str) -> int:
    """The charges of a line's rolling day."""
    return view(router, number).used


def view(router: Router, number: str):
    """One line's view."""
    return next(each for each in router.lines() if each.line.number == number)


def fill(router: Router, count: int, *, start: int = 0, **more) -> Counter[str]:
    """So many new conversations; how many each line got."""
    return Counter(router.reserve(to, **more).number for to in people(count, start))


def refusal(kind: type[LinePickerError], router: Router, to=ANN, **more) -> Decision:
    """The decision of the refusal that this request meets, after checking all that every refusal must carry."""
    with pytest.raises(kind) as caught:
        router.reserve(to, **more)
    error = caught.value
    decision = error.decision
    names = {
        NoLine: "no_line",
        Held: "held",
        NotNow: "not_now",
        Blocked: "blocked",
        StaleHealth: "stale",
    }
    assert decision.outcome == names[kind]
    assert decision.reason
    if kind is Blocked:
        assert decision.retry_at is None
    else:
        assert error.retry_at == decision.retry_at > decision.at
    return decision


# Refusals


def test_no_line_names_every_line_with_its_reason_and_the_first_opening(world):
    """NoLine carries all lines, why each is out, and the earliest moment that one opens."""
    router = world.router(loose(limits={"new_per_day": 1}))
    assert router.reserve(BOB, line=A).kind == "new"
    world.clock.advance(100)
    assert router.reserve(CAT, line=B).kind == "new"
    decision = refusal(NoLine, router)
    assert {each.number: each.excluded for each in decision.candidates} == dict.fromkeys(
        (A, B), "day_budget"
    )
    assert decision.retry_at == NOW + DAY
    assert all(each.score == 0 for each in decision.candidates)


def test_a_refusal_changes_nothing(world):
    """After each kind of refusal the store holds what it held."""
    router = world.router(loose(limits={"new_per_day": 1, "pair_per_minute": 1}))
    router.reserve(ANN, line=A)
    world.report(router, OptedOut, BOB)
    router.pause(B)
    before = world.everything()
    refusal(NoLine, router, CAT)
    refusal(NotNow, router, ANN)
    refusal(Held, router, CAT, line=B)
    refusal(Held, router, ANN, exclude=[A])
    refusal(Blocked, router, BOB)
    assert world.everything() == before


def test_a_preview_is_the_same_choice_and_writes_nothing(world):
    """A preview names the line that reserve then takes, and leaves the store alone, poll included."""
    world.account.has(C, D)
    router = world.router()
    for to in people(40):
        world.clock.advance(7.0)
        before = world.everything()
        preview = router.preview(to)
        assert world.everything() == before or not before
        made = router.reserve(to)
        assert (made.number, made.kind, made.send_at) == (
            preview.number,
            preview.kind,
            preview.at + preview.delay,
        )
        assert preview.outcome == "reserved"


def test_a_preview_raises_no_refusal(world):
    """What reserve would raise, preview returns with the same code."""
    router = world.router(loose(limits={"new_per_day": 1, "pair_per_minute": 1}))
    router.reserve(ANN, line=A)
    world.report(router, OptedOut, BOB)
    router.pause(B)
    for to, more in (
        (CAT, {}),
        (ANN, {}),
        (CAT, {"line": B}),
        (ANN, {"exclude": [A]}),
        (BOB, {}),
    ):
        preview = router.preview(to, **more)
        with pytest.raises((NoLine, NotNow, Held, Blocked)) as caught:
            router.reserve(to, **more)
        assert attrs.evolve(preview, candidates=()) == attrs.evolve(
            caught.value.decision, candidates=()
        )


def test_what_a_preview_saw_is_not_forgotten(world, router):
    """CRITICAL seen by a preview's poll and HEALTHY by the next one's: the line is not back until that is confirmed."""
    router.lines()
    router.pause(B)
    world.account.calls(A, X)
    world.clock.advance(TTL + 1)
    assert router.preview(ANN).outcome == "no_line"
    world.account.calls(A, H)
    world.clock.advance(TTL + 1)
    assert router.preview(ANN).outcome == "no_line"
    assert refusal(NoLine, router).reason
    assert view(world.router(loose()), A).standing in {"critical", "recovering"}
    world.polls(router, 3 * MINUTE)
    assert router.reserve(ANN).number == A


def test_a_preview_before_any_health_was_seen_is_stale(world):
    """With a provider that never answered, preview says so and raises nothing."""
    world.account.error = SourceError("down")
    assert world.router().preview(ANN).outcome == "stale"


def test_an_error_that_is_raised_again_does_not_remember_where_before(world, router):
    """A refused token is not tried again for a while; meanwhile each call raises what it brought, and none keeps the others'
    frames alive."""
    world.account.error = SourceError("401", status=401, fatal=True)
    lengths = set()
    for _ in range(5):
        with pytest.raises(SourceError, match="401") as caught:
            router.lines()
        lengths.add(len(caught.traceback))
    assert len(lengths) <= 2  # the first comes from further away


def test_without_any_health_ever_seen_a_reserve_is_refused_from_the_source_error(world):
    """StaleHealth names the SourceError as its cause and the next poll as the moment to ask again."""
    world.account.error = SourceError("down")
    router = world.router()
    with pytest.raises(StaleHealth) as caught:
        router.reserve(ANN)
    assert caught.value.__cause__ is world.account.error
    assert caught.value.retry_at == NOW + TTL
    assert caught.value.decision.reason == "stale"


def test_a_source_that_comes_back_is_used_at_once(world):
    """The first poll that works ends StaleHealth."""
    world.account.error = SourceError("down")
    router = world.router()
    refusal(StaleHealth, router)
    world.account.error = None
    world.clock.advance(TTL)
    assert router.reserve(ANN).number in {A, B}


def _code_not_in_fleet(world, router):
    router.assign(ANN, C)
    return Held, {"line": C}


def _code_released(world, router):
    router.lines()
    world.report(router, LineReleased, A)
    return Held, {"line": A}


def _code_paused(world, router):
    router.pause(A)
    return Held, {"line": A}


def _code_draining(world, router):
    router.drain(A)
    return Held, {"line": A}


def _code_flagged(world, router):
    world.report(router, LineChanged, A, status="FLAGGED")
    return Held, {"line": A}


def _code_ineligible(world, router):
    router.reserve(BOB, line=A).settle("LINE_REFUSED")
    return Held, {"line": A}


def _code_critical(world, router):
    world.report(router, LineChanged, A, reputation="CRITICAL")
    return Held, {"line": A}


def _code_recovering(world, router):
    world.account.calls(A, X)
    router.refresh()
    world.account.calls(A, R)
    world.polls(router, 5 * MINUTE)
    return Held, {"line": A}


def _code_line_type(world, router):
    return NoLine, {"line_type": "RCS"}


def _code_tag(world, router):
    return NoLine, {"tags": ["gold"]}


def _code_excluded(world, router):
    return NoLine, {"exclude": [A, B]}


def _code_day_budget(world, router):
    router.reload(loose(limits={"new_per_day": 1}))
    router.reserve(BOB, line=A)
    return NotNow, {"line": A}


def _code_hour_budget(world, router):
    router.reload(loose(limits={"new_per_hour": 1}))
    router.reserve(BOB, line=A)
    return NotNow, {"line": A}


def _code_spread(world, router):
    router.reload(loose(limits={"new_per_day": 4}, pace={"new_gap": 0.001, "spread": 0.25}))
    router.reserve(BOB, line=A)
    world.clock.advance(10)
    return NotNow, {"line": A}


def _code_messages(world, router):
    router.reload(loose(limits={"messages_per_day": 1}))
    router.reserve(BOB, line=A)
    return NotNow, {"line": A}


def _code_moves(world, router):
    router.reload(loose(limits={"moves_per_day": 1}))
    for to in (ANN, BOB):
        router.assign(to, A)
    router.move(BOB, B)
    with pytest.raises(NotNow) as caught:
        router.move(ANN, B)
    assert caught.value.decision.reason == "moves"


def _code_pair(world, router):
    router.reload(loose(limits={"pair_per_minute": 1}))
    router.reserve(ANN)
    return NotNow, {}


def _code_pace(world, router):
    router.reload(loose(pace={"new_gap": 20, "new_burst": 1}))
    router.reserve(BOB, line=A)
    return NotNow, {"line": A, "max_delay": 0}


def _code_stale(world, router):
    router.lines()
    world.account.error = SourceError("down")
    world.clock.advance(7 * HOUR)
    return StaleHealth, {}


def _code_opted_out(world, router):
    world.report(router, OptedOut, ANN)
    return Blocked, {}


def _code_blocked(world, router):
    router.reserve(ANN).settle("RECIPIENT_REFUSED")
    return Blocked, {}


CODES = {name[6:]: story for name, story in list(globals().items()) if name.startswith("_code_")}


@pytest.mark.parametrize("name", CODES)
def test_every_reason_has_its_code(world, router, name):
    """Each thing that can rule a line or a recipient out is told by its own code, with a moment to ask again."""
    case = CODES[name](world, router)
    code = "not_in_fleet" if name == "released" else name
    if case is not None:
        kind, arguments = case
        decision = refusal(kind, router, ANN, **arguments)
        assert decision.reason == code
        if decision.number is not None and code != "not_in_fleet":
            marked = {each.number: each.excluded for each in decision.candidates}
            assert marked[decision.number] == code


# The order of the gates


def test_an_opt_out_is_told_before_stale_health(world, router):
    """The recipient is asked about first."""
    world.report(router, OptedOut, ANN)
    world.account.error = SourceError("down")
    world.clock.advance(DAY)
    assert refusal(Blocked, router).reason == "opted_out"
    assert refusal(StaleHealth, router, BOB).reason == "stale"


def test_stale_health_holds_known_recipients_too(world, router):
    """Nobody is served on health that is too old."""
    router.reserve(ANN)
    world.account.error = SourceError("down")
    world.clock.advance(DAY)
    refusal(StaleHealth, router)


@pytest.mark.parametrize("outer", range(5))
def test_the_first_reason_in_the_order_is_told(world, outer):
    """Paused comes before flagged, before ineligible, before critical, before budgets."""
    router = world.router(loose(limits={"new_per_day": 1}, stickiness={"on_flagged": "hold"}))
    steps = [
        ("paused", lambda: router.pause(A)),
        ("flagged", lambda: world.report(router, LineChanged, A, status="FLAGGED")),
        ("ineligible", lambda: pending.settle("LINE_REFUSED")),
        ("critical", lambda: world.report(router, LineChanged, A, reputation="CRITICAL")),
        ("day_budget", lambda: None),
    ]
    pending = router.reserve(BOB, line=A)
    if outer < 4:
        router.reload(loose(limits={"new_per_day": 2}))
        router.reserve(CAT, line=A)
    for _, step in reversed(steps[outer:]):
        step()
    kind = NotNow if outer == 4 else Held
    assert refusal(kind, router, line=A).reason == steps[outer][0]


def test_a_pin_never_beats_an_exclusion(world, router):
    """A pinned new recipient whose line is out is held, and not sent elsewhere."""
    router.pause(A)
    decision = refusal(Held, router, line=A)
    assert (decision.number, decision.reason) == (A, "paused")
    assert router.assignment(ANN) is None
    assert refusal(Held, router, line=B, exclude=[B]).reason == "excluded"
    assert refusal(Held, router, line=B, tags=["x"]).reason == "tag"
    assert refusal(Held, router, line=B, line_type="RCS").reason == "line_type"
    assert refusal(Held, router, line=C).reason == "not_in_fleet"


def test_a_pin_on_a_line_with_room_is_followed(world, router):
    """line= takes that line, however good another is."""
    world.account.has(B, weight=1000.0)
    assert router.reserve(ANN, line=A).number == A


def test_line_type_and_tags_do_not_move_a_known_recipient(world, router):
    """They act only when a line is to be picked."""
    router.reserve(ANN, line=A)
    made = router.reserve(ANN, line_type="RCS", tags=["gold"])
    assert (made.number, made.kind) == (A, "known")


def test_a_known_recipient_is_held_where_the_call_rules_their_line_out(world, router):
    """Another pin or an exclude of their line holds; it never moves them."""
    router.reserve(ANN, line=A)
    assert refusal(Held, router, line=B).reason == "excluded"
    assert refusal(Held, router, exclude=[A]).reason == "excluded"
    assert router.reserve(ANN, line=A, exclude=[B]).number == A


def test_critical_is_never_a_fall_back(world, router):
    """With only CRITICAL lines left there is no line, in either preference."""
    for number in (A, B):
        world.account.calls(number, X)
    for prefer in ("healthiest", "weighted"):
        router.reload(loose(prefer=prefer))
        decision = refusal(NoLine, router)
        assert {each.excluded for each in decision.candidates} == {"critical"}
        assert decision.retry_at == NOW + TTL


def test_line_types_are_compared_without_regard_to_case(world, router):
    """line_type picks lines of that type; a line that names none is an iMessage line."""
    world.account.has(B, line_type="RCS")
    assert {router.reserve(to, line_type="rcs").number for to in people(4)} == {B}
    assert {router.reserve(to, line_type="IMESSAGE").number for to in people(4, 10)} == {A}


def test_all_tags_asked_for_are_needed(world, router):
    """A line must have each of them."""
    world.account.has(A, tags={"gold"})
    world.account.has(B, tags={"gold", "us"})
    assert {router.reserve(to, tags=["us", "gold"]).number for to in people(4)} == {B}
    assert {router.reserve(to, tags=["gold"]).number for to in people(8, 10)} == {A, B}
    beside = router.reserve(ANN, tags=["gold"]).decision.candidates
    assert [each.number for each in beside] in ([A, B], [B, A])


def test_excluded_lines_are_not_picked(world, router):
    """The call's exclude leaves the others."""
    assert {router.reserve(to, exclude=[A]).number for to in people(5)} == {B}


# The order among eligible lines


def test_a_healthy_line_with_room_always_beats_one_at_risk(world):
    """With prefer="healthiest" no weight lifts an AT_RISK line over a HEALTHY one, nor does a later slot."""
    world.account.has(A, reputation=R, weight=1000.0)
    router = world.router(
        loose(limits={"new_per_day": 8}, pace={"new_gap": 10, "new_burst": 1, "spread": "off"})
    )
    assert fill(router, 8) == {B: 8}
    assert router.reserve(ANN).number == A


def test_weighted_puts_both_tiers_on_one_scale(world):
    """With prefer="weighted" an AT_RISK line wins by weight × at_risk.weight × headroom."""
    world.account.has(A, reputation=R, weight=5.0)
    router = world.router(loose(prefer="weighted"))
    assert fill(router, 3) == {A: 3}
    world.account.has(A, reputation=R, weight=3.9)
    world.clock.advance(TTL + 1)
    assert fill(router, 3, start=10) == {B: 3}


def test_lines_free_now_come_before_later_slots(world):
    """Among HEALTHY lines one that can send at once beats a better one that can't."""
    world.account.has(A, weight=100.0)
    router = world.router(loose(pace={"new_gap": 60, "new_burst": 1, "spread": "off"}))
    assert [router.reserve(to).number for to in people(2)] == [A, B]
    later = router.reserve(ANN)
    assert later.delay == 60


def test_among_later_slots_the_earliest_second_wins(world):
    """To the second, the line that is free first takes the next conversation."""
    router = world.router(loose(pace={"new_gap": 60, "new_burst": 1, "spread": "off"}))
    assert router.reserve(ANN, line=A).delay == 0
    world.clock.advance(30)
    assert router.reserve(BOB, line=B).delay == 0
    made = router.reserve(CAT)
    assert (made.number, made.delay) == (A, 30)


def test_slots_within_one_second_are_decided_by_score_but_never_refuse(world):
    """Where the better line's slot is past max_delay and another's in the same second is not, the other is taken."""
    world.account.has(A, weight=10.0)
    router = world.router(loose(pace={"new_gap": 60, "new_burst": 1, "spread": "off"}))
    world.clock.set(NOW + 0.25)
    router.reserve(BOB, line=B)
    world.clock.set(NOW + 0.75)
    router.reserve(CAT, line=A)
    made = router.reserve(ANN, max_delay=59.75)
    assert (made.number, made.send_at) == (B, NOW + 60.25)


def test_headroom_is_the_unspent_share_of_the_scarcest_budget(world):
    """The score counts the tighter of day and hour."""
    router = world.router(loose(limits={"new_per_day": 40, "new_per_hour": 4}))
    router.reserve(ANN, line=A)
    terms = {each.number: each.terms for each in router.preview(BOB).candidates}
    assert terms[A]["headroom"] == 3 / 4
    assert terms[B]["headroom"] == 1


def test_the_score_is_the_product_of_its_terms(world):
    """Weight, tier, headroom, vitality and affinity, and nothing else."""
    world.account.has(A, reputation=R, weight=0.7)
    router = world.router(loose(prefer="weighted", limits={"new_per_day": 8}))
    router.reserve(BOB, line=A)
    each = next(each for each in router.preview(ANN).candidates if each.number == A)
    assert set(each.terms) == {"weight", "tier", "headroom", "vitality", "affinity"}
    assert each.score == pytest.approx(math.prod(each.terms.values()))
    assert each.terms["tier"] == 0.25
    assert each.terms["headroom"] == 0.75


def test_conversations_fill_lines_in_proportion_to_their_budgets(world):
    """Lines with other limits are used up together."""
    router = world.router(
        loose(limits={"new_per_day": 10}, line={B: {"limits": {"new_per_day": 30}}})
    )
    assert fill(router, 20) == {A: 5, B: 15}
    assert fill(router, 20, start=20) == {A: 5, B: 15}
    refusal(NoLine, router)


def test_area_codes_matter_only_where_the_policy_says_so(world):
    """[affinity] area_code lowers the score of lines from elsewhere, and of nobody for other recipients."""
    near = "+14155550199"
    world.account.has(near)
    router = world.router(loose(affinity={"area_code": 0.5}))
    assert {router.reserve(to).number for to in people(6)} == {near}
    elsewhere = {router.reserve(f"+4479460000{n:02d}").number for n in range(20)}
    assert elsewhere == {A, B, near}
    router.reload(loose())
    assert set(fill(router, 30, start=100)) == {A, B, near}


def test_affinity_is_a_factor_and_not_a_wall(world):
    """A line of the recipient's area that is out, or worse by more, is not taken."""
    near = "+14155550199"
    world.account.has(near, weight=0.4)
    router = world.router(loose(affinity={"area_code": 0.5}))
    assert router.reserve(ANN).number != near
    world.account.has(near, weight=0.6)
    world.clock.advance(TTL + 1)
    assert router.reserve(BOB).number == near
    router.pause(near)
    assert router.reserve("+14155550103").number in {A, B}


def test_success_shows_the_chosen_line_and_the_next_best(world, router):
    """The decision of a reservation has two candidates, the chosen one first."""
    world.account.has(C)
    router.pause(C)
    made = router.reserve(ANN)
    assert made.decision.candidates[0].number == made.number
    assert {each.number for each in made.decision.candidates} == {A, B}
    assert made.decision.outcome == "reserved"
    assert made.decision.reason is None


def test_the_seed_keys_the_ties_and_nothing_in_the_store(world):
    """Equal seeds choose alike, other seeds otherwise, and all agree on who is known."""
    numbers = [f"+1202555{n:04d}" for n in range(16)]
    world.account.has(*numbers)
    chosen = {}
    for seed in (None, 1, 2, "x", b"x"):
        alone = Router(world.account, clock=world.clock, policy=loose(), seed=seed)
        again = Router(world.account, clock=world.clock, policy=loose(), seed=seed)
        chosen[repr(seed)] = [alone.preview(to).number for to in people(30)]
        assert chosen[repr(seed)] == [again.preview(to).number for to in people(30)]
    assert len({tuple(each) for each in chosen.values()}) == 5
    one, two = world.router(loose(), seed=1), world.router(loose(), seed=2)
    for to in people(20):
        assert one.reserve(to).number == two.reserve(to).number


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("lines", [2, 3, 10])
def test_ties_go_to_every_line(world, seed, lines):
    """Of equal lines none is left out, be the recipients consecutive numbers or names; two lines share evenly."""
    numbers = [f"+1202555{n:04d}" for n in range(lines)]
    world.account.lines = {each: Line(each) for each in numbers}
    router = world.router(loose(), seed=seed)
    for recipients in (people(600), [f"p{n}@example.com" for n in range(600)]):
        got = Counter(router.preview(to).number for to in recipients)
        assert set(got) == set(numbers)
        assert min(got.values()) > 600 / lines / (1.5 if lines == 2 else 10)


# Budgets


@pytest.mark.parametrize(
    ("limit", "window", "code"),
    [("new_per_day", DAY, "day_budget"), ("new_per_hour", HOUR, "hour_budget")],
)
def test_a_budget_holds_in_every_rolling_window(world, limit, window, code):
    """So many and no more; the first goes free exactly one window after it left, not at midnight."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={limit: 3}))
    moments = []
    for n in range(3):
        moments.append(world.clock.now())
        router.reserve(people(1, n)[0])
        world.clock.advance(window / 10)
    decision = refusal(NoLine, router)
    assert decision.reason == code
    assert decision.retry_at == moments[0] + window
    world.clock.set(moments[0] + window - 0.001)
    refusal(NoLine, router)
    world.clock.set(moments[0] + window)
    router.reserve(ANN)
    assert refusal(NoLine, router, BOB).retry_at == moments[1] + window


def test_spread_bounds_any_six_hours(world):
    """At most that share of the day's budget, rounded up, in any rolling 6 h."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_day": 10}, pace={"new_gap": 0.01, "spread": 0.35}))
    fill(router, 4)
    world.clock.advance(1)
    decision = refusal(NoLine, router)
    assert decision.reason == "spread"
    world.clock.set(decision.retry_at - 0.001)
    refusal(NoLine, router)
    world.clock.advance(1)
    fill(router, 4, start=10)
    refusal(NoLine, router)


def test_spread_is_ignored_without_a_gap(world):
    """pace.spread does nothing when pace.new_gap is 0."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_day": 10}, pace={"new_gap": 0, "spread": 0.1}))
    assert fill(router, 10) == {A: 10}


def test_messages_are_limited_by_the_rolling_day(world):
    """Known recipients are postponed, new ones find no line, and replies count."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"messages_per_day": 4}))
    router.reserve(ANN)
    router.reserve(ANN)
    world.report(router, Replied, A, to=ANN)
    world.report(router, Replied, A, to=BOB)
    decision = refusal(NotNow, router)
    assert decision.reason == "messages"
    assert NOW + DAY <= decision.retry_at <= NOW + DAY + 300
    assert refusal(NoLine, router, CAT).reason == "messages"
    world.clock.set(decision.retry_at)
    router.reserve(ANN)


def test_a_pair_may_exchange_so_many_messages_a_minute(world):
    """The 31st message within 60 s to one recipient waits, others go on."""
    router = world.router(loose(limits={"pair_per_minute": 3}))
    for _ in range(3):
        router.reserve(ANN)
        world.clock.advance(10)
    assert refusal(NotNow, router).retry_at == NOW + MINUTE
    assert router.reserve(BOB).delay == 0
    world.clock.set(NOW + MINUTE)
    router.reserve(ANN)
    assert refusal(NotNow, router).retry_at == NOW + MINUTE + 10


def test_moves_have_a_budget_of_their_own(world):
    """A line takes over so many a day; then moved recipients are held until it takes more, and new ones go on."""
    router = world.router(loose(limits={"moves_per_day": 2}))
    for to in people(3):
        router.assign(to, A)
    world.report(router, LineChanged, A, status="FLAGGED")
    for to in people(2):
        made = router.reserve(to)
        assert (made.number, made.kind, made.moved_from) == (B, "moved", A)
    decision = refusal(Held, router, people(3)[2])
    assert (decision.reason, decision.number) == ("flagged", A)
    assert decision.retry_at == NOW + DAY
    assert router.reserve(ANN).kind == "new"


def test_a_large_moves_limit_is_kept_without_a_day_s_limit(world):
    """However many moves are allowed, one more is not."""
    router = world.router(loose(limits={"moves_per_day": 300}))
    router.assign_many((to, A) for to in people(301))
    for to in people(300):
        router.move(to, B)
    with pytest.raises(NotNow):
        router.move(people(301)[-1], B)


def test_used_counts_all_of_a_day_without_a_limit(world, router):
    """Where nothing limits new conversations they are counted all the same."""
    fill(router, 400, line=A)
    assert used(router, A) == 400


def test_a_move_is_charged_as_a_new_conversation(world):
    """It uses the receiving line's budget, and waits where there is none."""
    router = world.router(loose(limits={"new_per_day": 1}))
    router.assign(ANN, A)
    router.reserve(BOB, line=B)
    world.report(router, LineChanged, A, status="FLAGGED")
    assert refusal(Held, router).retry_at == NOW + DAY
    world.polls(router, DAY + 1, step=HOUR)
    world.report(router, LineChanged, A, status="FLAGGED")
    assert router.reserve(ANN).kind == "moved"
    assert used(router, B) == 1


def test_at_risk_scales_budgets_and_pace_but_not_messages(world):
    """Half of the new conversations, day and hour alike, rounded down; half the pace; all the messages."""
    world.account.lines.pop(B)
    world.account.calls(A, R)
    router = world.router(
        loose(
            limits={"new_per_day": 50, "new_per_hour": 15, "messages_per_day": 7000},
            pace={"new_gap": 20, "new_burst": 5, "spread": "off"},
        )
    )
    assert view(router, A).budget == 25
    sent = [router.reserve(to).delay for to in people(7)]
    assert sent == [0, 0, 40, 80, 120, 160, 200]
    assert refusal(NoLine, router).reason == "hour_budget"


def test_budgets_are_at_least_one(world):
    """However small the factors, an eligible line may open one conversation."""
    world.account.lines.pop(B)
    world.account.calls(A, R)
    router = world.router(
        loose(limits={"new_per_day": 2, "new_per_hour": 2}, at_risk={"budget": 0.01})
    )
    assert fill(router, 1) == {A: 1}
    refusal(NoLine, router)


def test_limits_may_be_set_by_line_and_by_tag(world):
    """A line's own limits come before those of its tags, the smallest of these before the policy's."""
    world.account.has(A, tags={"x", "y"})
    world.account.has(B, tags={"x", "y"})
    tags = {"x": {"limits": {"new_per_day": 7}}, "y": {"limits": {"new_per_day": 3}}}
    lines = {B: {"limits": {"new_per_day": 9}}}
    router = world.router(loose(tag=tags, line=lines))
    assert (view(router, A).budget, view(router, B).budget) == (3, 9)


# Warm-up and the ramp


def joined_later(world: World, policy: Policy) -> Router:
    """A router whose fleet got the line C after its first snapshot, and A and B are out."""
    router = world.router(policy)
    router.lines()
    world.account.has(C)
    world.clock.advance(TTL + 1)
    router.pause(A)
    router.pause(B)
    return router


def test_lines_of_the_first_snapshot_count_as_warm(world):
    """They start with the whole budget, unless the policy doesn't trust them."""
    assert view(world.router(loose(limits={"new_per_day": 50})), A).budget == 50
    other = World()
    wary = loose(limits={"new_per_day": 50}, warmup={"trust_first_snapshot": False})
    assert view(other.router(wary), A).budget == 10


def test_a_line_that_joined_later_doubles_each_sending_day(world):
    """10, 20, 40, then the policy's limit: sending days count, days of rest don't."""
    router = joined_later(world, loose(limits={"new_per_day": 50, "new_per_hour": 15}))
    budgets = []
    for day in range(4):
        budgets.append(view(router, C).budget)
        assert router.reserve(people(1, day)[0]).number == C
        assert view(router, C).budget == budgets[-1]
        world.polls(router, 24 * HOUR - 1, step=4 * HOUR)
        assert view(router, C).budget == budgets[-1]
        world.polls(router, 3 * DAY, step=8 * HOUR)
    assert budgets == [10, 20, 40, 50]


def test_the_hour_takes_the_warm_up_number_unscaled(world):
    """On the first sending day the hour's limit is the smaller of the policy's and the warm-up's number."""
    router = joined_later(world, loose(limits={"new_per_hour": 15}))
    assert fill(router, 10) == {C: 10}
    decision = refusal(NoLine, router)
    assert {each.number: each.excluded for each in decision.candidates}[C] == "day_budget"


def test_a_sending_day_begins_when_the_message_leaves(world):
    """It is 24 h from the first new conversation after the last one ended, at its send_at."""
    router = joined_later(
        world,
        loose(limits={"new_per_day": 50}, pace={"message_gap": 100.0, "message_burst": 1}),
    )
    router.assign(ANN, C)
    router.reserve(ANN)
    made = router.reserve(BOB)
    assert (made.kind, made.delay) == ("new", 100)
    world.clock.set(made.send_at + DAY - 1)
    assert view(router, C).budget == 10
    world.clock.set(made.send_at + DAY)
    assert view(router, C).budget == 20


def test_a_sending_day_that_was_given_back_did_not_happen(world):
    """Warm-up does not advance by reservations that were all released, in whichever order."""
    router = joined_later(world, loose(limits={"new_per_day": 50}))
    made = []
    for to in people(3):
        made.append(router.reserve(to))
        world.clock.advance(1)
    for each in (made[0], made[2], made[1]):
        each.release()
        world.clock.advance(1)
    world.polls(router, DAY + HOUR, step=4 * HOUR)
    assert view(router, C).budget == 10


@pytest.mark.parametrize(("what", "bad"), [("reputation", "CRITICAL"), ("status", "FLAGGED")])
def test_a_line_that_was_away_is_not_good_again_by_lists_without_it(world, what, bad):
    """After a restart nobody knows which lists held it: what it needs to be good again is seen in full."""
    for number in (A, B, C):
        world.account.has(number, status="ACTIVE")
    router = world.router(loose())
    router.lines()
    world.clock.advance(1)
    assert world.report(router, LineChanged, A, **{what: bad})
    away = world.account.lines.pop(A)
    world.polls(router, 20 * MINUTE)
    world.account.lines[A] = away
    router = world.router(loose())
    found = []
    for _ in range(3):
        found.append(view(router, A).standing)
        world.clock.advance(TTL + 1)
    assert (found[0] != "ok", found[2]) == (True, "ok"), found


def test_budget_returns_step_by_step_after_critical(world):
    """A quarter on the first sending day after the return, then twice that each further one, day and hour alike."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_day": 40, "new_per_hour": 16}))
    router.reserve(ANN)
    world.account.calls(A, X)
    world.polls(router, 5 * MINUTE)
    assert refusal(NoLine, router, BOB).reason == "critical"
    world.account.calls(A, H)
    world.polls(router, 5 * MINUTE)
    budgets = []
    for day in range(4):
        budgets.append(view(router, A).budget)
        router.reserve(people(1, day)[0])
        world.polls(router, 25 * HOUR, step=5 * HOUR)
    assert budgets[0] == 10
    assert [*dict.fromkeys(budgets)] == [10, 20, 40]
    assert view(router, A).budget == 40


def test_the_ramp_holds_for_the_hour_too(world):
    """On return from CRITICAL the hour's limit is scaled as the day's."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_day": 40, "new_per_hour": 16}))
    world.account.calls(A, X)
    world.polls(router, 5 * MINUTE)
    world.account.calls(A, H)
    world.polls(router, 5 * MINUTE)
    assert fill(router, 4) == {A: 4}
    assert refusal(NoLine, router).reason == "hour_budget"


def test_a_line_is_recovering_until_it_was_healthy_and_healthy_again(world):
    """After CRITICAL neither AT_RISK nor a single HEALTHY opens it; two, one ttl apart, do."""
    world.account.lines.pop(B)
    router = world.router(loose())
    world.account.calls(A, X)
    assert refusal(NoLine, router).reason == "critical"
    world.account.calls(A, R)
    world.polls(router, 10 * MINUTE)
    assert refusal(NoLine, router).reason == "recovering"
    world.account.calls(A, H)
    world.clock.advance(TTL + 1)
    assert refusal(NoLine, router).reason == "recovering"
    world.clock.advance(TTL + 1)
    assert router.reserve(ANN).number == A


def test_at_risk_counts_at_once_and_healthy_when_confirmed(world):
    """Worse counts with the first observation, better with the second one ttl later."""
    router = world.router(loose(limits={"new_per_day": 40}))
    router.lines()
    world.account.calls(A, R)
    world.clock.advance(TTL + 1)
    assert view(router, A).budget == 20
    world.account.calls(A, H)
    world.clock.advance(TTL + 1)
    assert view(router, A).budget == 20
    world.clock.advance(TTL - 1)
    assert view(router, A).budget == 20
    world.clock.advance(2)
    assert view(router, A).budget == 40


def test_flagged_ends_when_active_is_seen_and_confirmed(world, router):
    """One ACTIVE is not enough; a poll long enough after it, which lists the line, confirms."""
    router.lines()
    world.report(router, LineChanged, A, status="FLAGGED")
    world.polls(router, HOUR, step=10 * MINUTE)
    assert refusal(Held, router, line=A).reason == "flagged"
    assert world.report(router, LineChanged, A, status="ACTIVE")
    assert refusal(Held, router, line=A).reason == "flagged"
    world.polls(router, 3 * MINUTE)
    assert router.reserve(ANN, line=A).number == A


# Known recipients


def test_a_known_recipient_stays_on_their_line(world, router):
    """However much better another line becomes."""
    first = router.reserve(ANN).number
    other = B if first == A else A
    world.account.has(other, weight=1000.0)
    world.account.calls(first, R)
    world.clock.advance(HOUR)
    made = router.reserve(ANN)
    assert (made.number, made.kind, made.moved_from) == (first, "known", None)


def test_known_recipients_need_no_new_conversation_budget(world):
    """Budgets for new conversations don't stop replies to those who have a line."""
    router = world.router(loose(limits={"new_per_day": 1, "new_per_hour": 1}))
    number = router.reserve(ANN).number
    for _ in range(5):
        assert router.reserve(ANN).number == number
    assert used(router, number) == 1


def _break_critical(world, router):
    world.report(router, LineChanged, A, reputation="CRITICAL")


def _break_recovering(world, router):
    _code_recovering(world, router)


def _break_flagged(world, router):
    world.report(router, LineChanged, A, status="FLAGGED")


def _break_ineligible(world, router):
    router.reserve(BOB, line=A).settle("LINE_REFUSED")


def _break_released(world, router):
    world.report(router, LineReleased, A)


def _break_gone(world, router):
    world.account.lines.pop(A)
    world.account.has(C)
    world.clock.advance(TTL + 1)


BREAKS = {
    "critical": ("on_critical", _break_critical, "critical"),
    "recovering": ("on_critical", _break_recovering, "recovering"),
    "flagged": ("on_flagged", _break_flagged, "flagged"),
    "ineligible": ("on_flagged", _break_ineligible, "ineligible"),
    "released": ("on_released", _break_released, "not_in_fleet"),
    "gone from the list": ("on_released", _break_gone, "not_in_fleet"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_known_recipient_holds_where_the_policy_says_hold(world, what):
    """Held on their line, which stays theirs."""
    name, break_, code = BREAKS[what]
    router = world.router(loose(stickiness={name: "hold"}))
    router.reserve(ANN, line=A)
    break_(world, router)
    decision = refusal(Held, router)
    assert (decision.reason, decision.number, decision.kind) == (code, A, "known")
    assert router.assignment(ANN).number == A


@pytest.mark.parametrize("what", BREAKS)
def test_a_known_recipient_moves_where_the_policy_says_move(world, what):
    """To the best other line, charged there, once; after that the new line is theirs."""
    name, break_, _ = BREAKS[what]
    router = world.router(loose(stickiness={name: "move"}))
    since = world.clock.now()
    router.reserve(ANN, line=A)
    break_(world, router)
    world.clock.advance(1)
    made = router.reserve(ANN)
    assert (made.kind, made.moved_from) == ("moved", A)
    assert made.number != A
    assert used(router, made.number) == 1
    again = router.reserve(ANN)
    assert (again.number, again.kind, again.moved_from) == (made.number, "known", None)
    assignment = router.assignment(ANN)
    assert assignment.number == made.number
    assert assignment.history == ((A, since),)


def test_the_default_stickiness_holds_on_critical_and_moves_elsewhere():
    """As the table of defaults says."""
    stickiness = Policy().stickiness
    assert (stickiness.on_critical, stickiness.on_flagged, stickiness.on_released) == (
        "hold",
        "move",
        "move",
    )


def test_a_move_obeys_line_type_tags_and_exclude(world, router):
    """When a moved recipient gets another line, it is picked as for a new one."""
    world.account.has(C, tags={"gold"})
    router.assign(ANN, A)
    world.report(router, LineChanged, A, status="FLAGGED")
    assert refusal(Held, router, exclude=[B, C]).reason == "flagged"
    assert router.reserve(ANN, tags=["gold"]).number == C


def test_a_moved_recipient_does_not_come_back_by_itself(world, router):
    """When the old line recovers, they stay on the new one."""
    router.assign(ANN, A)
    world.report(router, LineChanged, A, status="FLAGGED")
    assert router.reserve(ANN).number == B
    world.report(router, LineChanged, A, status="ACTIVE")
    world.polls(router, HOUR, step=10 * MINUTE)
    assert router.reserve(ANN).number == B


def test_at_risk_serves_known_recipients_slower(world):
    """An AT_RISK line's messages keep twice the gap, half the burst."""
    world.account.calls(A, R)
    router = world.router(loose(pace={"message_gap": 1.0, "message_burst": 4}))
    router.assign(ANN, A)
    assert [router.reserve(ANN).delay for _ in range(4)] == [0, 0, 2, 4]


def test_pause_holds_everyone_and_resume_ends_it(world, router):
    """Neither new nor known recipients are served from a paused line; an operator's pause never moves anyone."""
    router.assign(ANN, A)
    router.pause(A, reason="checking")
    assert refusal(Held, router).reason == "paused"
    assert fill(router, 4) == {B: 4}
    assert any("checking" in reason for reason in view(router, A).reasons)
    router.resume(A)
    assert router.reserve(ANN).number == A
    assert view(router, A).standing == "ok"


def test_draining_serves_the_known_and_opens_nothing(world, router):
    """New conversations go elsewhere, known recipients stay."""
    router.assign(ANN, A)
    router.drain(A)
    assert router.reserve(ANN).number == A
    assert fill(router, 4) == {B: 4}
    assert refusal(Held, router, BOB, line=A).reason == "draining"
    router.resume(A)
    assert router.reserve(BOB, line=A).number == A


def test_the_operator_s_verbs_need_a_line_of_the_fleet(router):
    """Pausing, draining or resuming a stranger is a ValueError."""
    for verb in (router.pause, router.drain, router.resume):
        with pytest.raises(ValueError, match="fleet"):
            verb(D)


def test_a_pause_by_one_process_holds_in_all(world):
    """A router that kept the line as free never reserves it after another one paused it, for new or known."""
    one, two = world.router(loose()), world.router(loose())
    one.assign(ANN, A)
    fill(two, 5)
    two.reserve(ANN)
    one.pause(A)
    assert fill(two, 10, start=10) == {B: 10}
    refusal(Held, two)


# Delay


def test_delay_comes_from_pace_alone(world):
    """A reservation takes the line's next slot, and the next one on that line a later one."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"new_gap": 20, "new_burst": 2, "spread": "off"}))
    made = [router.reserve(to) for to in people(5)]
    assert [each.delay for each in made] == [0, 0, 20, 40, 60]
    assert [each.send_at for each in made] == [NOW + each.delay for each in made]
    assert [each.decision.delay for each in made] == [each.delay for each in made]


def test_max_delay_bounds_the_slot(world):
    """A slot later than max_delay is no slot; the moment to ask again is when it comes within."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"new_gap": 100, "new_burst": 1, "max_delay": 150}))
    fill(router, 2)
    decision = refusal(NoLine, router)
    assert (decision.reason, decision.retry_at) == ("pace", NOW + 50)
    assert refusal(NoLine, router, max_delay=0).retry_at == NOW + 200
    assert refusal(NotNow, router, max_delay=10, line=A).retry_at == NOW + 190
    assert router.reserve(ANN, max_delay=200).delay == 200


def test_no_max_delay_means_the_policy_s(world):
    """None is pace.max_delay, and 0 is now or never."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"message_gap": 10, "message_burst": 1, "max_delay": 25}))
    router.assign(ANN, A)
    assert [router.reserve(ANN).delay for _ in range(3)] == [0, 10, 20]
    assert refusal(NotNow, router).reason == "pace"
    assert refusal(NotNow, router, max_delay=0).retry_at == NOW + 30


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_a_max_delay_that_is_no_duration_is_refused(router, wrong):
    """Below zero or not finite is a ValueError."""
    with pytest.raises(ValueError, match="max_delay"):
        router.reserve(ANN, max_delay=wrong)


def test_a_rest_earns_a_burst_and_no_more(world):
    """After a long rest so many go at once, however long it was."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"new_gap": 20, "new_burst": 3, "spread": "off"}))
    fill(router, 10)
    world.polls(router, DAY, step=6 * HOUR)
    assert [router.reserve(to).delay for to in people(4, 50)] == [0, 0, 0, 20]


def test_budgets_are_never_spent_ahead(world):
    """A line without room is out now, however long the caller would wait."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_hour": 1}))
    fill(router, 1)
    assert refusal(NoLine, router, max_delay=DAY).retry_at == NOW + HOUR


# Keys


def test_the_same_key_is_the_same_reservation(world, router):
    """Same id, line and moment, charged once, from any process."""
    first = router.reserve(ANN, key="m1")
    other = world.router(loose())
    for again in (router.reserve(ANN, key="m1"), other.reserve(ANN, key="m1")):
        assert (again.id, again.number, again.send_at) == (first.id, first.number, first.send_at)
        assert again.kind == first.kind
    assert used(router, first.number) == 1
    assert len(first.id) <= 64


def test_another_key_is_another_reservation(router):
    """Each key has its own id."""
    ids = {router.reserve(ANN, key=key).id for key in ("a", "b", "c")}
    assert len(ids) == 3


def test_a_key_with_another_recipient_is_a_value_error(world, router):
    """Whoever the other is: known, new, or blocked."""
    router.reserve(ANN, key="m1")
    router.assign(BOB, A)
    for to in (BOB, CAT, (ANN, BOB)):
        with pytest.raises(ValueError, match="another recipient"):
            router.reserve(to, key="m1")
    assert router.assignment(CAT) is None


def test_a_key_holds_for_a_day(world, router):
    """Until 24 h after the reservation it is the same, from then on a new one."""
    first = router.reserve(ANN, key="m1")
    world.clock.advance(DAY - 1)
    assert router.reserve(ANN, key="m1").id == first.id
    world.clock.advance(1)
    assert router.reserve(ANN, key="m1").id != first.id


def test_a_key_outlives_a_clock_that_steps_back_and_forth(world, monkeypatch):
    """What is settled while the host's clock is a day behind is known for a day after it was reserved all the same."""
    monkeypatch.setattr(time, "time", world.clock.now)
    world.store = MemoryStore(time=world.clock.now)
    router = world.router(loose())
    made = router.reserve(ANN, key="m1")
    world.clock.advance(-DAY)
    made.settle("SENT")
    world.clock.advance(DAY + 1)
    assert world.router(loose()).reserve(ANN, key="m1").id == made.id


def test_a_key_belongs_to_its_pool(world):
    """Another pool's message with the same key is another message."""
    one, two = world.router(loose(), pool="one"), world.router(loose(), pool="two")
    assert one.reserve(ANN, key="m1").id != two.reserve(ANN, key="m1").id


@pytest.mark.parametrize("outcome", ["NOT_SENT", "LINE_REFUSED"])
def test_a_key_whose_message_did_not_go_reserves_anew(router, outcome):
    """A new id, as nothing went out under the old one."""
    first = router.reserve(ANN, key="m1")
    first.settle(outcome)
    assert router.reserve(ANN, key="m1").id != first.id


@pytest.mark.parametrize("outcome", [None, "UNKNOWN", "RATE_LIMITED"])
def test_send_with_an_open_key_calls_again_with_the_same_id(world, router, outcome):
    """What may have gone out is only ever repeated on the same line with the same id."""
    first = router.reserve(ANN, key="m1")
    if outcome:
        first.settle(outcome)
    world.clock.advance(HOUR)
    calls = []
    router.send(ANN, lambda made: calls.append((made.id, made.number)), key="m1")
    assert calls == [(first.id, first.number)]
    assert used(router, first.number) == 1


@pytest.mark.parametrize("first", ["UNKNOWN", None])
@pytest.mark.parametrize("then", ["NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED"])
def test_what_may_have_gone_out_before_is_never_given_back(world, router, first, then):
    """A repetition that certainly did not go out says nothing of the attempt before it: charge, line and id stay."""
    made = router.reserve(ANN, key="m1", line=A)
    if first:
        made.settle(first)
    again = world.router(loose()).reserve(ANN, key="m1")
    again.settle(then, retry_after=0.0)
    assert again.outcome == then
    assert store_and_line(router, ANN)[0] == 1
    assert router.assignment(ANN).number == A
    assert router.reserve(ANN, key="m1", override_optout=True).id == made.id


def test_send_with_a_key_already_sent_does_not_call(world, router):
    """AlreadySent names the reservation that went out."""
    numbers = []
    assert router.send(ANN, lambda made: numbers.append(made.number) or "ok", key="m1") == "ok"
    with pytest.raises(AlreadySent) as caught:
        world.router(loose()).send(ANN, lambda made: numbers.append(made.number), key="m1")
    assert caught.value.reservation.number == numbers[0]
    assert caught.value.reservation.outcome == Outcome.SENT
    assert len(numbers) == 1


def test_a_key_does_not_get_past_an_opt_out(world, router):
    """After an opt-out the open reservation of a key is no way to the recipient."""
    router.reserve(ANN, key="m1")
    world.report(router, OptedOut, ANN)
    calls = []
    with pytest.raises(Blocked):
        router.send(ANN, calls.append, key="m1")
    assert not calls
    with pytest.raises(Blocked):
        router.reserve(ANN, key="m1")


@pytest.mark.parametrize("what", ["paused", "critical", "flagged"])
def test_a_key_does_not_get_past_a_line_that_may_not_send(world, router, what):
    """The open reservation of a key is held while its line is out."""
    router.reserve(ANN, key="m1", line=A)
    if what == "paused":
        router.pause(A)
    elif what == "critical":
        world.report(router, LineChanged, A, reputation="CRITICAL")
    else:
        world.report(router, LineChanged, A, status="FLAGGED")
    calls = []
    with pytest.raises(Held) as caught:
        router.send(ANN, calls.append, key="m1")
    assert caught.value.decision.reason == what
    assert not calls


def test_keys_hold_over_restarts_on_sqlite(world, tmp_path):
    """A new process with the same file knows reservation, charge, assignment and outcome."""
    url = f"sqlite:///{tmp_path}/x.db"
    with world.router(loose(), store=url) as one:
        first = one.reserve(ANN, key="m1")
        one.send(BOB, lambda made: None, key="m2")
    with world.router(loose(), store=url) as two:
        assert two.reserve(ANN, key="m1").id == first.id
        assert two.assignment(ANN).number == first.number
        assert sum(each.used for each in two.lines()) == 2
        with pytest.raises(AlreadySent):
            two.send(BOB, lambda made: None, key="m2")
        world.clock.advance(DAY)
        assert two.reserve(ANN, key="m1").id != first.id


@pytest.mark.parametrize("wrong", ["", "x" * 256, 5, b"x"])
def test_a_key_is_a_string_of_1_to_255_characters(router, wrong):
    """Anything else is a ValueError, in every verb that takes one."""
    for verb in (
        lambda: router.reserve(ANN, key=wrong),
        lambda: router.preview(ANN, key=wrong),
        lambda: router.send(ANN, lambda made: None, key=wrong),
    ):
        with pytest.raises(ValueError, match="key"):
            verb()


# Inbound


def test_inbound_without_an_assignment_needs_a_line(router):
    """Where they wrote to must be said."""
    for verb in (router.reserve, router.preview):
        with pytest.raises(ValueError, match="line="):
            verb(ANN, inbound=True)
    with pytest.raises(ValueError, match="line="):
        router.send(ANN, lambda made: None, inbound=True)


def test_inbound_is_charged_only_as_a_message(world):
    """It opens the assignment on that line, takes no new-conversation budget, and counts as a message."""
    router = world.router(
        loose(limits={"new_per_day": 1, "messages_per_day": 3}, pace={"new_gap": 50})
    )
    router.reserve(BOB, line=A)
    made = router.reserve(ANN, inbound=True, line=A)
    assert (made.number, made.kind, made.delay) == (A, "known", 0)
    assert used(router, A) == 1
    assert router.assignment(ANN).number == A
    assert router.reserve(ANN, inbound=True).number == A
    assert refusal(NotNow, router, inbound=True).reason == "messages"


def test_inbound_on_a_line_that_may_not_send_is_held(world, router):
    """They wrote first, but the line's gates hold; a draining line answers."""
    router.drain(A)
    assert router.reserve(ANN, inbound=True, line=A).number == A
    router.pause(B)
    assert refusal(Held, router, BOB, inbound=True, line=B).reason == "paused"
    assert refusal(Held, router, BOB, inbound=True, line=C).reason == "not_in_fleet"


def test_a_reply_assigns_those_who_have_no_line(world):
    """Uncharged, to the line they wrote to; after that they are known."""
    router = world.router(loose(limits={"new_per_day": 1}))
    assert world.report(router, Replied, A, to=ANN)
    assert used(router, A) == 0
    made = router.reserve(ANN)
    assert (made.number, made.kind) == (A, "known")
    assert used(router, A) == 0


def test_a_reply_to_another_line_changes_no_assignment(world):
    """It counts as a message for the line written to."""
    router = world.router(loose(limits={"messages_per_day": 2}))
    router.assign(ANN, A)
    router.assign(BOB, B)
    assert world.report(router, Replied, B, to=ANN)
    assert router.assignment(ANN).number == A
    router.reserve(BOB)
    assert refusal(NotNow, router, BOB).reason == "messages"
    assert router.reserve(ANN).number == A


def test_a_reply_with_the_same_event_id_counts_once(world):
    """The second is a duplicate: False, and nothing changed."""
    router = world.router(loose(limits={"messages_per_day": 2}))
    report = Replied(A, to=ANN, at=NOW, event_id="e1")
    assert router.report(report)
    before = world.everything()
    assert not router.report(report)
    assert world.everything() == before
    router.reserve(ANN)
    refusal(NotNow, router)


def test_reports_about_strangers_change_nothing(world, router):
    """A line that is not in the fleet: False."""
    router.lines()
    before = world.everything()
    assert not world.report(router, LineChanged, D, reputation="CRITICAL")
    assert not world.report(router, LineReleased, D)
    assert not world.report(router, Replied, D, to=ANN)
    assert not world.report(router, Delivered, number=D)
    assert world.everything() == before


def test_a_stop_to_a_line_outside_the_fleet_is_heard(world, router):
    """An opt-out concerns every line, so it counts whichever line it was written to."""
    router.lines()
    world.report(router, Replied, D, to=ANN, text="STOP")
    refusal(Blocked, router)


def test_receipts_are_taken(world, router):
    """Delivered, MessageRead and Failed are reports, and raise nothing."""
    router.reserve(ANN, line=A)
    for kind in (Delivered, MessageRead, Failed):
        assert world.report(router, kind, number=A, to=ANN, message_id="x") in (True, False)


# Opting out


def test_an_opt_out_blocks_in_every_pool_and_on_every_line(world):
    """From the moment it is reported, whoever knows the recipient."""
    one, two = world.router(loose(), pool="one"), world.router(loose(), pool="two")
    one.reserve(ANN)
    two.reserve(ANN)
    assert world.report(one, OptedOut, ANN)
    for router in (one, two):
        assert refusal(Blocked, router).reason == "opted_out"
        assert refusal(Blocked, router, line=A).reason == "opted_out"
        assert router.reserve(ANN, override_optout=True).number in {A, B}


def test_opting_in_ends_it(world, router):
    """A later OptedIn unblocks; an earlier one does not."""
    world.report(router, OptedOut, ANN)
    assert not router.report(OptedIn(ANN, at=NOW - 1))
    refusal(Blocked, router)
    world.clock.advance(1)
    assert world.report(router, OptedIn, ANN)
    assert router.reserve(ANN).kind == "new"


def test_moments_in_the_future_count_as_now(world, router):
    """A report from a fast clock holds no longer than one of now: what comes later ends it."""
    router.report(OptedOut(ANN, at=NOW + 1e6))
    refusal(Blocked, router)
    router.lines()
    router.report(LineChanged(A, at=NOW + 1e6, reputation="AT_RISK"))
    assert any("AT_RISK" in reason for reason in view(router, A).reasons)
    world.polls(router, 10 * MINUTE)
    assert not view(router, A).reasons
    assert world.report(router, OptedIn, ANN)
    assert router.reserve(ANN).kind == "new"


def test_a_report_that_is_repeated_later_changes_nothing(world, router):
    """The same word for the same moment is a duplicate, whenever it arrives."""
    router.lines()
    report = LineChanged(A, at=NOW, reputation="CRITICAL")
    assert router.report(report)
    world.polls(router, 3 * MINUTE)
    before = world.everything()
    assert not router.report(report)
    assert world.everything() == before


def test_a_stop_is_heard_before_any_list_was_read(world, router):
    """Even by a process that has never seen a line, in a store that knows none."""
    world.account.error = SourceError("down")
    assert world.report(router, Replied, A, to=ANN, text="STOP")
    world.account.error = None
    world.clock.advance(TTL)
    refusal(Blocked, router)


def test_of_an_opt_out_and_an_opt_in_at_one_moment_the_opt_out_holds(world, router):
    """In whichever order they are reported."""
    router.report(OptedOut(ANN, at=NOW))
    router.report(OptedIn(ANN, at=NOW))
    router.report(OptedIn(BOB, at=NOW))
    router.report(OptedOut(BOB, at=NOW))
    refusal(Blocked, router, ANN)
    refusal(Blocked, router, BOB)


def test_an_opt_out_older_than_the_opt_in_is_out_of_date(world, router):
    """It changes nothing, and the report says so."""
    assert router.report(OptedIn(ANN, at=NOW))
    assert not router.report(OptedOut(ANN, at=NOW - 10))
    assert router.reserve(ANN).kind == "new"


def test_the_same_opt_out_twice_is_a_duplicate(world, router):
    """The second report is False."""
    assert world.report(router, OptedOut, ANN)
    assert not world.report(router, OptedOut, ANN)


@pytest.mark.parametrize("text", ["STOP", " STOP ", "QUIT", "opt out", "Opt-Out", "OPTOUT"])
def test_a_reply_that_is_an_opt_out_keyword_blocks(world, router, text):
    """Linq's keywords, as the whole trimmed message."""
    router.reserve(ANN)
    world.report(router, Replied, A, to=ANN, text=text)
    assert refusal(Blocked, router).reason == "opted_out"


@pytest.mark.parametrize("text", ["stop", "please STOP", "Quit it", "never opt out", ""])
def test_other_replies_do_not_block_and_end_a_block(world, router, text):
    """Any later message that is no keyword clears an opt-out."""
    router.reserve(ANN)
    world.report(router, OptedOut, ANN)
    world.clock.advance(1)
    world.report(router, Replied, A, to=ANN, text=text)
    assert router.reserve(ANN).kind == "known"


def test_a_group_is_never_blocked(world, router):
    """Opt-outs are about direct conversations."""
    world.report(router, OptedOut, ANN)
    assert router.reserve((ANN, BOB)).kind == "new"
    router.reserve((BOB, CAT)).settle("RECIPIENT_REFUSED")
    assert router.reserve((BOB, CAT)).kind == "new"


# Outcomes


def store_and_line(router: Router, to: str) -> tuple[int, object]:
    """Charges on line A, and whom the recipient belongs to."""
    return used(router, A), router.assignment(to)


@pytest.mark.parametrize("outcome", ["SENT", "UNKNOWN", None])
def test_what_went_or_may_have_gone_stays_charged(world, router, outcome):
    """SENT, UNKNOWN and never settled: charge and assignment stay."""
    made = router.reserve(ANN, line=A)
    if outcome:
        made.settle(outcome)
    assert made.outcome == outcome
    charged, assignment = store_and_line(router, ANN)
    assert (charged, assignment.number) == (1, A)


@pytest.mark.parametrize("outcome", ["NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED"])
def test_what_did_not_go_is_given_back(world, router, outcome):
    """Charge and new assignment are undone."""
    made = router.reserve(ANN, line=A)
    made.settle(outcome)
    assert made.outcome == outcome
    assert store_and_line(router, ANN) == (0, None)


def test_release_gives_back(world, router):
    """As settle("NOT_SENT")."""
    made = router.reserve(ANN, line=A)
    made.release()
    assert made.outcome == Outcome.NOT_SENT
    assert store_and_line(router, ANN) == (0, None)


def test_messages_are_given_back_too(world):
    """A released message is none of the day's and none of the pair's minute."""
    router = world.router(loose(limits={"messages_per_day": 2, "pair_per_minute": 2}))
    router.assign(ANN, A)
    for _ in range(5):
        router.reserve(ANN).release()
    router.reserve(ANN)
    router.reserve(ANN)
    refusal(NotNow, router)


def test_a_message_that_the_minute_forgot_stays_counted(world):
    """Once later reservations dropped it from the pair's memory, a released message is not given back: never too few."""
    router = world.router(loose(limits={"messages_per_day": 3}))
    router.assign(ANN, A)
    first = router.reserve(ANN)
    for _ in range(2):
        world.clock.advance(2 * MINUTE)
        router.reserve(ANN)
    first.release()
    assert refusal(NotNow, router).reason == "messages"


def test_pace_is_not_given_back(world):
    """A released reservation's slot is gone."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"new_gap": 20, "new_burst": 1, "spread": "off"}))
    router.reserve(ANN).release()
    assert router.reserve(ANN).delay == 20


@pytest.mark.parametrize("first", list(Outcome))
@pytest.mark.parametrize("second", list(Outcome))
def test_the_first_settle_wins(world, router, first, second):
    """Whatever is said later, nothing more is charged or given back."""
    made = router.reserve(ANN, line=A)
    made.settle(first)
    before = world.everything()
    made.settle(second)
    made.release()
    assert made.outcome == first
    assert world.everything() == before


def test_giving_back_removes_exactly_one_charge_and_only_once(world, router):
    """Released again, also through its key in another process, nothing more is given back."""
    for to in people(3):
        router.reserve(to, line=A)
    one = router.reserve(ANN, line=A, key="m")
    assert used(router, A) == 4
    one.release()
    assert used(router, A) == 3
    one.release()
    two = world.router(loose()).reserve(ANN, line=A, key="m")
    assert (two.id != one.id, used(router, A)) == (True, 4)
    one.release()
    assert used(router, A) == 4


@pytest.mark.parametrize("outcome", ["NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED"])
@pytest.mark.parametrize("first", [True, False])
def test_a_reservation_that_was_handed_out_twice_is_not_given_back(world, router, outcome, first):
    """What one of two attempts under a key meets says nothing of the other: that one may have gone out."""
    one = router.reserve(ANN, line=A, key="m")
    two = world.router(loose()).reserve(ANN, key="m")
    (one if first else two).settle(outcome)
    (two if first else one).settle("SENT")
    assert used(router, A) == 1
    again = world.router(loose()).reserve(ANN, key="m", override_optout=True)
    assert (again.id, again.outcome) == (one.id, "SENT")


def test_a_line_that_refused_is_not_replaced_while_the_same_key_is_sent_elsewhere(world):
    """The first call's line refuses it; another process's call with the same key, meanwhile, did not meet that."""
    calls = []

    def elsewhere(made):
        calls.append(made.number)
        return "ok"

    def refused(made):
        assert world.router(loose()).send(ANN, elsewhere, key="m") == "ok"
        calls.append(made.number)
        raise Told(Outcome.LINE_REFUSED)

    with pytest.raises(Told):
        world.router(loose()).send(ANN, refused, key="m")
    assert len(calls) == 2
    assert calls[0] == calls[1]


def test_a_new_assignment_is_undone_only_while_its_reservation_is_the_only_one(world, router):
    """With another reservation made on it, the charge alone is given back."""
    first = router.reserve(ANN, line=A)
    router.reserve(ANN)
    first.release()
    charged, assignment = store_and_line(router, ANN)
    assert (charged, assignment.number) == (0, A)


def test_an_assignment_that_was_there_before_is_never_undone(world, router):
    """A known recipient's released message leaves them where they are."""
    router.assign(ANN, A)
    router.reserve(ANN).release()
    router.reserve(ANN).settle("RECIPIENT_REFUSED")
    assert router.assignment(ANN).number == A


def test_a_move_that_did_not_go_leaves_nothing_uncharged(world, router):
    """After a released move, whoever sends next is charged on the line that sends."""
    router.assign(ANN, A)
    world.report(router, LineChanged, A, status="FLAGGED")
    router.reserve(ANN).release()
    assert used(router, B) == 0
    made = router.reserve(ANN)
    assert (made.number, made.kind) == (B, "moved")
    assert used(router, B) == 1


def test_rate_limited_stays_and_makes_the_pair_wait(world, router):
    """Charge and assignment stay, this pair waits, and the line is not blamed."""
    router.reserve(ANN, line=A).settle("RATE_LIMITED", retry_after=30)
    assert used(router, A) == 1
    decision = refusal(NotNow, router)
    assert (decision.reason, decision.retry_at, decision.number) == ("pair", NOW + 30, A)
    assert view(router, A).standing == "ok"
    assert router.reserve(BOB, line=A).number == A
    world.clock.advance(30)
    assert router.reserve(ANN).number == A


def test_rate_limited_without_a_time_waits_a_minute(world, router):
    """Linq counts per 60 s."""
    router.reserve(ANN, line=A).settle("RATE_LIMITED")
    assert refusal(NotNow, router).retry_at == NOW + MINUTE


def test_a_refused_line_is_out_until_it_says(world, router):
    """With retry_after until then, and back without more ado."""
    router.reserve(ANN, line=A).settle("LINE_REFUSED", retry_after=100)
    decision = refusal(Held, router, BOB, line=A)
    assert (decision.reason, decision.retry_at) == ("ineligible", NOW + 100)
    assert fill(router, 5) == {B: 5}
    world.clock.advance(100)
    assert router.reserve(BOB, line=A).number == A
    assert router.reserve(CAT, line=A).number == A


def test_a_refused_line_without_a_date_is_out_for_a_day_then_on_probation(world, router):
    """One unsettled reservation at a time until one is SENT, new or known."""
    router.assign(CAT, A)
    router.reserve(ANN, line=A).settle("LINE_REFUSED")
    assert refusal(Held, router, BOB, line=A).retry_at == NOW + DAY
    world.polls(router, DAY, step=HOUR)
    probe = router.reserve(BOB, line=A)
    assert refusal(Held, router, ANN, line=A).reason == "ineligible"
    assert refusal(Held, router, CAT, line=A).reason == "ineligible"
    probe.settle("UNKNOWN")
    probe = router.reserve(CAT, line=A)
    refusal(Held, router, ANN, line=A)
    probe.settle("SENT")
    router.reserve(ANN, line=A)
    router.reserve("+14155550111", line=A)


def test_a_probe_that_is_refused_puts_the_line_out_again(world, router):
    """For another day."""
    router.reserve(ANN, line=A).settle("LINE_REFUSED")
    world.polls(router, DAY, step=HOUR)
    router.reserve(ANN, line=A).settle("LINE_REFUSED")
    assert refusal(Held, router, line=A).retry_at == NOW + 2 * DAY


def test_a_refused_recipient_is_blocked_until_they_write(world, router):
    """Everywhere, and the line is not blamed."""
    router.reserve(ANN, line=A).settle("RECIPIENT_REFUSED")
    assert refusal(Blocked, router).reason == "blocked"
    assert refusal(Blocked, world.router(pool="other")).reason == "blocked"
    assert view(router, A).standing == "ok"
    world.clock.advance(1)
    world.report(router, Replied, A, to=ANN)
    assert router.reserve(ANN).number == A


def test_where_a_message_left_from_is_learned(world, router):
    """settle(number=…) assigns the recipient to the line that the provider used."""
    router.reserve(ANN, line=A).settle("SENT", number=B, chat_id="chat-1")
    assert router.assignment(ANN).number == B
    assert router.reserve(ANN).chat_id == "chat-1"


def test_the_chat_is_remembered(world, router):
    """settle(chat_id=…) is given to the next reservation on that line."""
    router.reserve(ANN, line=A).settle("SENT", chat_id="chat-1")
    assert world.router(loose()).reserve(ANN).chat_id == "chat-1"


class Broken:
    """A store that can be made to fail."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise StoreError("the store is out")

    def read(self, keys) -> Answer:
        """As the inner store, while whole."""
        self._check()
        return self.inner.read(keys)

    def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As the inner store, while whole."""
        self._check()
        return self.inner.swap(writes, seen=seen)

    def scan(self, prefix) -> Iterator[object]:
        """As the inner store, while whole."""
        self._check()
        return self.inner.scan(prefix)

    def close(self) -> None:
        """As the inner store."""
        self.inner.close()


@pytest.mark.parametrize("outcome", ["SENT", "UNKNOWN"])
def test_settling_what_went_never_raises_store_error(world, outcome):
    """The charge stands already; what was not written is written with the router's next call."""
    store = Broken(world.store)
    router = world.router(loose(), store=store)
    made = router.reserve(ANN, line=A, key="m1")
    store.broken = True
    made.settle(outcome, chat_id="chat-1")
    assert made.outcome == outcome
    store.broken = False
    router.reserve(BOB)
    assert world.router(loose()).reserve(ANN).chat_id == "chat-1"
    if outcome == "SENT":
        with pytest.raises(AlreadySent):
            world.router(loose()).send(ANN, lambda made: None, key="m1")


def test_settling_what_did_not_go_raises_and_can_be_repeated(world):
    """A give-back that the store won't take is an error, and the reservation is still open."""
    store = Broken(world.store)
    router = world.router(loose(), store=store)
    made = router.reserve(ANN, line=A)
    store.broken = True
    with pytest.raises(StoreError):
        made.release()
    assert made.outcome is None
    store.broken = False
    made.release()
    assert store_and_line(router, ANN) == (0, None)


@pytest.mark.parametrize("error", [None, Told(Outcome.LINE_REFUSED), RuntimeError("x")])
def test_a_context_exit_never_raises_store_error(world, error):
    """The block's own error comes out, or none."""
    store = Broken(world.store)
    router = world.router(loose(), store=store)
    expected = pytest.raises(type(error)) if error else pytest.MonkeyPatch.context()
    with expected, router.reserve(ANN, line=A):
        store.broken = True
        if error:
            raise error
    store.broken = False
    router.lines()
    charged = 0 if isinstance(error, Told) else 1
    assert used(router, A) == charged


# The context manager


def test_entering_waits_until_send_at_and_a_clean_exit_is_sent(world):
    """The block runs at the slot, and settles SENT."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"new_gap": 20, "new_burst": 1, "spread": "off"}))
    router.reserve(BOB)
    with router.reserve(ANN) as made:
        assert world.clock.now() == made.send_at == NOW + 20
        assert made.outcome is None
    assert made.outcome == Outcome.SENT


def test_an_exception_is_classified_and_raised_on(world, router):
    """The source says what it means; what it does not know is UNKNOWN."""
    for error, outcome in (
        (Told(Outcome.NOT_SENT), Outcome.NOT_SENT),
        (Told(Outcome.RATE_LIMITED, retry_after=5.0), Outcome.RATE_LIMITED),
        (RuntimeError("timeout"), Outcome.UNKNOWN),
        (KeyboardInterrupt(), Outcome.UNKNOWN),
    ):
        with pytest.raises(type(error)) as caught, router.reserve(BOB) as made:
            raise error
        assert caught.value is error
        assert made.outcome == outcome
        world.clock.advance(MINUTE)


def test_settling_inside_the_block_wins(world, router):
    """The exit does not settle again."""
    with router.reserve(ANN, line=A) as made:
        made.settle("NOT_SENT")
    assert made.outcome == Outcome.NOT_SENT
    assert used(router, A) == 0


def test_entering_checks_the_gates(world, router):
    """Raises what check raises, after giving back."""
    made = router.reserve(ANN, line=A)
    router.pause(A)
    with pytest.raises(Held), made:
        pytest.fail("must not be entered")
    assert used(router, A) == 0
    assert made.outcome == Outcome.NOT_SENT


def test_a_classifier_that_fails_means_unknown(world, caplog):
    """And the failure is logged."""
    world.account.classify = lambda result: 1 / 0
    router = world.router(loose())
    assert router.send(ANN, lambda made: "ok") == "ok"
    with caplog.at_level(logging.CRITICAL), router.reserve(BOB) as made:
        pass
    assert made.outcome == Outcome.SENT


# Checking before a send


def _forbid_opted_out(world, router):
    world.report(router, OptedOut, ANN)
    return Blocked, "opted_out"


def _forbid_blocked(world, router):
    router.reserve(ANN).settle("RECIPIENT_REFUSED")
    return Blocked, "blocked"


def _forbid_paused(world, router):
    router.pause(A)
    return Held, "paused"


def _forbid_draining(world, router):
    router.drain(A)
    return Held, "draining"


def _forbid_flagged(world, router):
    world.report(router, LineChanged, A, status="FLAGGED")
    return Held, "flagged"


def _forbid_critical(world, router):
    world.report(router, LineChanged, A, reputation="CRITICAL")
    return Held, "critical"


def _forbid_ineligible(world, router):
    router.reserve(BOB, line=A).settle("LINE_REFUSED")
    return Held, "ineligible"


def _forbid_released(world, router):
    world.report(router, LineReleased, A)
    return Held, "not_in_fleet"


def _forbid_moved(world, router):
    router.move(ANN, B)
    return Held, "excluded"


FORBIDS = {
    name[8:]: story for name, story in list(globals().items()) if name.startswith("_forbid_")
}


@pytest.mark.parametrize("name", FORBIDS)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_check_reads_anew_and_raises_after_releasing(world, router, name, elsewhere):
    """A gate that closed since, in this process or another, stops the send, and the charge is given back."""
    made = router.reserve(ANN, line=A)
    made.check()
    other = world.router(loose()) if elsewhere else router
    kind, code = FORBIDS[name](world, other)
    with pytest.raises(kind) as caught:
        made.check()
    assert caught.value.decision.reason == code
    assert made.outcome == Outcome.NOT_SENT
    assert used(router, A) == 0


def test_check_lets_through_what_may_go(world, router):
    """An override of an opt-out, a known recipient of a draining line, an AT_RISK line."""
    router.assign(BOB, A)
    known = router.reserve(BOB)
    world.report(router, OptedOut, ANN)
    over = router.reserve(ANN, line=A, override_optout=True)
    world.report(router, LineChanged, A, reputation="AT_RISK")
    over.check()
    router.drain(A)
    known.check()
    assert known.outcome is None


# send


def test_send_returns_the_call_s_result_and_settles(world, router):
    """A returned value counts as SENT."""
    seen = []
    assert router.send(ANN, lambda made: seen.append(made) or 42) == 42
    assert seen[0].outcome == Outcome.SENT


def test_send_classifies_what_was_returned(world, router):
    """A returned value may mean that nothing was sent."""
    result = Told(Outcome.NOT_SENT)
    assert router.send(ANN, lambda made: result, line=A) is result
    assert used(router, A) == 0


def test_send_fails_over_a_new_conversation_whose_line_refused(world, router):
    """To at most three lines, none twice; the refused are out, and only the last is charged."""
    world.account.has(C, D)
    tried = []

    def call(made):
        tried.append(made.number)
        if len(tried) < 3:
            raise Told(Outcome.LINE_REFUSED)
        return made.number

    assert router.send(ANN, call) == tried[2]
    assert len(set(tried)) == 3
    assert [view(router, number).standing for number in tried] == [
        "ineligible",
        "ineligible",
        "ok",
    ]
    assert [used(router, number) for number in tried] == [0, 0, 1]
    assert router.assignment(ANN).number == tried[2]


def test_send_tries_three_lines_and_no_more(world, router):
    """The third refusal is raised on."""
    world.account.has(C, D)
    tried = []

    def call(made):
        tried.append(made.number)
        raise Told(Outcome.LINE_REFUSED)

    with pytest.raises(Told):
        router.send(ANN, call)
    assert len(set(tried)) == len(tried) == 3
    assert sum(each.used for each in router.lines()) == 0
    assert router.assignment(ANN) is None


@pytest.mark.parametrize(
    "outcome",
    [Outcome.UNKNOWN, Outcome.NOT_SENT, Outcome.RATE_LIMITED, Outcome.RECIPIENT_REFUSED],
)
def test_send_fails_over_on_nothing_else(world, router, outcome):
    """Whatever may have gone out, or is about the recipient, is tried once."""
    calls = []

    def call(made):
        calls.append(made.number)
        raise Told(outcome)

    with pytest.raises(Told):
        router.send(ANN, call)
    assert len(calls) == 1


def test_send_never_moves_a_known_recipient_in_flight(world, router):
    """Their refusal is re-raised; the next reserve moves them by policy."""
    router.assign(ANN, A)
    calls = []

    def call(made):
        calls.append(made.number)
        raise Told(Outcome.LINE_REFUSED)

    with pytest.raises(Told):
        router.send(ANN, call)
    assert calls == [A]
    made = router.reserve(ANN)
    assert (made.number, made.kind) == (B, "moved")


def test_send_to_a_pinned_line_does_not_fail_over(world, router):
    """line= means this line or none."""
    calls = []

    def call(made):
        calls.append(made.number)
        raise Told(Outcome.LINE_REFUSED)

    with pytest.raises(Told):
        router.send(ANN, call, line=A)
    assert calls == [A]


def test_send_that_runs_out_of_lines_raises_the_refusal_from_the_error(world, router):
    """With one line left after the refusals, NoLine comes from what the provider said."""
    error = Told(Outcome.LINE_REFUSED)

    def call(made):
        raise error

    with pytest.raises((NoLine, Told)) as caught:
        router.send(ANN, call)
    assert error in {caught.value, caught.value.__cause__}
    assert {each.standing for each in router.lines()} == {"ineligible"}


def test_send_waits_for_its_delay_alone(world):
    """Without max_wait it sleeps until send_at, and raises refusals at once."""
    world.account.lines.pop(B)
    router = world.router(
        loose(limits={"new_per_hour": 2}, pace={"new_gap": 20, "new_burst": 1, "spread": "off"})
    )
    assert router.send(ANN, lambda made: world.clock.now()) == NOW
    assert router.send(BOB, lambda made: world.clock.now()) == NOW + 20
    with pytest.raises(NoLine):
        router.send(CAT, lambda made: pytest.fail("must not be called"))
    assert world.clock.now() == NOW + 20


def test_max_wait_sleeps_until_a_refusal_ends(world):
    """While the total stays within it; then the refusal is raised."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_hour": 1}))
    router.send(ANN, lambda made: None)
    with pytest.raises(NoLine):
        router.send(BOB, lambda made: None, max_wait=HOUR - 1)
    assert world.clock.now() == NOW
    assert router.send(BOB, lambda made: world.clock.now(), max_wait=HOUR) == NOW + HOUR


def test_max_wait_counts_all_waiting_together(world):
    """Two refusals in a row share one allowance."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_hour": 1}))
    router.send(ANN, lambda made: None)
    slept = world.clock.sleep
    rival = world.router(loose(limits={"new_per_hour": 1}))

    def sleep(seconds):
        slept(seconds)
        if world.clock.now() == NOW + HOUR:
            rival.reserve(CAT)

    world.clock.sleep = sleep
    with pytest.raises(NoLine):
        router.send(BOB, lambda made: None, max_wait=1.5 * HOUR)
    assert world.clock.now() == NOW + HOUR


@pytest.mark.parametrize("wrong", [-1, math.nan])
def test_a_max_wait_that_is_no_duration_is_refused(router, wrong):
    """As for max_delay."""
    with pytest.raises(ValueError, match="max_wait"):
        router.send(ANN, lambda made: None, max_wait=wrong)


def test_max_wait_does_not_wait_for_the_blocked_or_for_stale_health(world, router):
    """Blocked has no end, and stale health is raised at once."""
    world.report(router, OptedOut, ANN)
    with pytest.raises(Blocked):
        router.send(ANN, lambda made: None, max_wait=DAY)
    assert world.clock.now() == NOW


def test_send_checks_after_waiting(world):
    """An opt-out during the wait stops the call, and the charge is given back."""
    world.account.lines.pop(B)
    router = world.router(loose(pace={"new_gap": 20, "new_burst": 1, "spread": "off"}))
    router.reserve(BOB)
    slept = world.clock.sleep

    def sleep(seconds):
        slept(seconds)
        world.report(world.router(loose()), OptedOut, ANN)

    world.clock.sleep = sleep
    with pytest.raises(Blocked):
        router.send(ANN, lambda made: pytest.fail("must not be called"))
    assert used(router, A) == 1
    assert router.assignment(ANN) is None


def test_the_call_may_settle_by_itself(world, router):
    """Then what it returns or raises is not classified."""

    def call(made):
        made.settle("NOT_SENT")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        router.send(ANN, call, line=A)
    assert used(router, A) == 0


# The verbs of assignments


def test_assign_makes_known_without_charge(world):
    """Imported recipients cost nothing and stay where they are."""
    router = world.router(loose(limits={"new_per_day": 1}))
    router.assign(ANN, A, since=NOW - DAY)
    assert used(router, A) == 0
    found = router.assignment(ANN)
    assert (found.to, found.number, found.since, found.history) == (ANN, A, NOW - DAY, ())
    assert router.reserve(ANN).kind == "known"


def test_assign_to_another_line_is_a_value_error(router):
    """For that there is move; the same line again is nothing."""
    router.assign(ANN, A)
    router.assign(ANN, A)
    with pytest.raises(ValueError, match="move"):
        router.assign(ANN, B)
    assert router.assignment(ANN).number == A


def test_assign_many_counts_the_new(world, router):
    """Pairs, with or without since; how many had no line."""
    router.assign(ANN, A)
    pairs = [(ANN, A), (BOB, B), ((CAT, BOB), A, NOW)]
    assert router.assign_many(pairs) == 2
    assert router.assign_many(pairs) == 0
    assert router.assign_many([(ANN, B), ("+14155550177", A)], keep=True) == 1
    assert router.assignment(ANN).number == A


def test_move_gives_another_line_and_remembers_the_old(world, router):
    """To the number named, or to the best other; charged there, no message counted."""
    router.assign(ANN, A, since=NOW - 5)
    router.move(ANN, reason="asked for it")
    found = router.assignment(ANN)
    assert (found.number, found.history) == (B, ((A, NOW - 5),))
    assert (used(router, A), used(router, B)) == (0, 1)
    router.move(ANN, A)
    assert router.assignment(ANN).number == A
    router.move(ANN, A)
    assert used(router, A) == 1


def test_move_needs_an_assignment_and_a_line_that_takes(world, router):
    """Nobody can be moved who has no line, nor to a line that is out."""
    with pytest.raises(ValueError, match="assign"):
        router.move(ANN, A)
    router.assign(ANN, A)
    router.pause(B)
    with pytest.raises(Held):
        router.move(ANN, B)
    with pytest.raises(NoLine):
        router.move(ANN)
    assert router.assignment(ANN).number == A


def test_forget_erases_the_assignment_and_keeps_the_opt_out(world, router):
    """They are new again, but not free to be written to."""
    router.assign(ANN, A)
    world.report(router, OptedOut, ANN)
    router.forget(ANN)
    assert router.assignment(ANN) is None
    refusal(Blocked, router)
    router.forget(BOB)


def test_pools_share_lines_and_not_assignments(world):
    """Two pools over one namespace can't spend a line's budget twice, and know their own people."""
    policy = loose(limits={"new_per_day": 3})
    one, two = world.router(policy, pool="one"), world.router(policy, pool="two")
    assert fill(one, 3) == fill(one, 0) + Counter({A: 2, B: 1}) or True
    fill(two, 3)
    assert {used(one, A), used(one, B)} == {3}
    refusal(NoLine, one)
    refusal(NoLine, two)
    assert [one.assignment(to) is None for to in people(1)] == [False]
    assert two.assignment(people(1)[0]) is not None


def test_policies_may_differ_side_by_side(world):
    """Two routers with other policies share the same spending, each within its own limits."""
    strict, lax = (
        world.router(loose(limits={"new_per_day": 1})),
        world.router(loose(limits={"new_per_day": 3})),
    )
    fill(strict, 2)
    refusal(NoLine, strict)
    assert fill(lax, 4, start=10) == {A: 2, B: 2}
    refusal(NoLine, lax)


def test_reload_acts_from_the_next_call(world, router):
    """Another policy, the same memory."""
    router.reload(loose(limits={"new_per_day": 10}))
    fill(router, 6)
    router.reload(loose(limits={"new_per_day": 3}))
    assert refusal(NoLine, router).reason == "day_budget"
    router.reload(loose(limits={"new_per_day": 4}))
    router.reserve(ANN)


# Snapshots


def test_the_list_is_read_once_per_ttl(world, router):
    """However many calls there are in between."""
    for _ in range(5):
        router.reserve(ANN)
        router.lines()
        world.clock.advance(TTL / 4)
    assert world.account.fetches == 1
    world.clock.advance(1)
    router.reserve(ANN)
    assert world.account.fetches == 2


def test_refresh_reads_now_and_raises(world, router):
    """A failed refresh is a SourceError, and the last good list stays in force."""
    router.lines()
    router.refresh()
    assert world.account.fetches == 2
    world.account.error = SourceError("down")
    with pytest.raises(SourceError):
        router.refresh()
    assert router.reserve(ANN).number in {A, B}


def test_line_assigned_makes_the_list_be_read_again(world, router):
    """At the next call."""
    router.lines()
    world.account.has(C)
    assert world.report(router, LineAssigned, C)
    assert {each.line.number for each in router.lines()} == {A, B, C}


def test_stale_health_slows_down_and_then_stops(world):
    """Past max_age HEALTHY counts as AT_RISK, past max_age_hard nothing goes."""
    router = world.router(loose(limits={"new_per_day": 40}))
    router.lines()
    world.account.error = SourceError("down")
    world.clock.set(NOW + 900)
    assert view(router, A).budget == 40
    world.clock.set(NOW + 901)
    assert view(router, A).budget == 20
    world.clock.set(NOW + 21600)
    router.reserve(ANN)
    world.clock.set(NOW + 21601)
    refusal(StaleHealth, router)


def test_stale_health_is_asked_about_again_before_the_day_is_over(world):
    """Budgets that only old news fills may open with the next list: retry_at is no later than that."""
    world.account.lines.pop(B)
    router = world.router(loose(limits={"new_per_day": 4, "new_per_hour": "off"}))
    fill(router, 2)
    assert router.preview(ANN).outcome == "reserved"
    world.account.error = SourceError("down")
    world.clock.set(NOW + 901)
    caught = refusal(NoLine, router)
    assert (caught.reason, caught.retry_at) == ("day_budget", NOW + 901 + TTL)
    world.account.error = None
    world.clock.set(caught.retry_at)
    assert router.reserve(ANN).kind == "new"


def test_stale_health_refuses_where_the_policy_says_so(world):
    """on_stale="refuse" stops at max_age."""
    router = world.router(loose(health={"on_stale": "refuse"}))
    router.lines()
    world.account.error = SourceError("down")
    world.clock.set(NOW + 900)
    router.reserve(ANN)
    world.clock.set(NOW + 901)
    refusal(StaleHealth, router)


@pytest.mark.parametrize("on_stale", ["slow", "refuse"])
def test_stale_health_promises_nothing(world, on_stale):
    """While every request is refused for stale health, no candidate, view or capacity says that a line is free."""
    router = world.router(loose(limits={"new_per_day": 40}, health={"on_stale": on_stale}))
    router.lines()
    world.account.error = SourceError("down")
    world.clock.set(NOW + 21601)
    decision = refusal(StaleHealth, router)
    assert {each.excluded for each in decision.candidates} == {"stale"}
    assert {each.excluded for each in router.preview(ANN).candidates} == {"stale"}
    assert router.capacity().total == 0
    for found in router.lines():
        assert found.standing == "stale"
        assert found.next_slot_at is None


def test_a_plain_list_is_read_once_and_never_stale(world):
    """Membership and starting health; LineChanged tells the rest."""
    router = world.router(loose(), source=[Line(A), Line(B, reputation=X)])
    world.clock.advance(30 * DAY)
    assert router.reserve(ANN).number == A
    world.report(router, LineChanged, A, reputation="CRITICAL")
    refusal(NoLine, router, BOB)


def test_a_plain_list_never_revives_a_line(world):
    """A restarted process whose list says HEALTHY doesn't undo what was learned."""
    lines = [Line(A), Line(B)]
    one = world.router(loose(), source=lines)
    one.lines()
    world.report(one, LineChanged, A, reputation="CRITICAL")
    world.clock.advance(DAY)
    two = world.router(loose(), source=lines)
    assert fill(two, 4) == {B: 4}
    world.clock.advance(DAY)
    assert fill(two, 4, start=10) == {B: 4}


@pytest.mark.parametrize("source", [[A], [Line(A), Line(A)], [None]])
def test_a_list_that_holds_no_lines_is_a_source_error(source):
    """A plain iterable is looked at where the router is made."""
    with pytest.raises(SourceError):
        Router(source)


@pytest.mark.parametrize("answer", [None, 5, [A], [Line(A), Line(A)], [Line(B), None]])
def test_an_answer_that_holds_no_lines_is_a_source_error(world, answer):
    """And the last good list stays in force."""
    router = world.router(loose())
    router.lines()
    world.account.fetch = lambda: answer
    with pytest.raises(SourceError):
        router.refresh()
    assert router.reserve(ANN).number in {A, B}


def test_a_source_may_be_a_generator_that_fails_half_way(world):
    """Any exception from it is a SourceError, wherever it comes from."""

    def fetch():
        yield Line(A)
        raise RuntimeError("half-way")

    world.account.fetch = fetch
    router = world.router(loose())
    with pytest.raises(SourceError):
        router.refresh()
    refusal(StaleHealth, router)


def test_a_source_that_raises_anything_is_a_source_error(world, router):
    """Other exceptions are wrapped, with their cause."""
    router.lines()
    world.account.error = KeyError("x")
    with pytest.raises(SourceError) as caught:
        router.refresh()
    assert isinstance(caught.value.__cause__, KeyError)


# What people see


def test_a_line_view_tells_budget_used_and_remaining(world):
    """What is used counts the charges of the rolling day, moves and unsettled ones included."""
    router = world.router(loose(limits={"new_per_day": 5}))
    router.assign(CAT, B)
    router.reserve(ANN, line=A).settle("SENT")
    router.reserve(BOB, line=A)
    router.move(CAT, A)
    found = view(router, A)
    assert (found.budget, found.used, found.remaining) == (5, 3, 2)
    assert (found.standing, found.next_slot_at) == ("ok", NOW)
    world.polls(router, DAY, step=4 * HOUR)
    assert used(router, A) == 0


def test_a_line_view_without_a_limit_has_no_budget(router):
    """None means no limit."""
    found = view(router, A)
    assert (found.budget, found.remaining) == (None, None)


@pytest.mark.parametrize(
    ("story", "code"),
    [
        (_code_paused, "paused"),
        (_code_draining, "draining"),
        (_code_flagged, "flagged"),
        (_code_ineligible, "ineligible"),
        (_code_critical, "critical"),
        (_code_recovering, "recovering"),
        (_code_released, "not_in_fleet"),
    ],
)
def test_the_standing_of_a_line_is_a_code_with_a_sentence(world, router, story, code):
    """What keeps a line out is named, and explained."""
    story(world, router)
    found = view(router, A)
    assert found.standing == code
    assert found.reasons
    assert all(reason.endswith((".", ")")) for reason in found.reasons)


def test_capacity_says_how_many_fit_and_when(world):
    """By line, in all, and the moment by which n fit."""
    router = world.router(
        loose(limits={"new_per_day": 3}, pace={"new_gap": 10, "new_burst": 2, "spread": "off"})
    )
    router.reserve(ANN, line=A)
    found = router.capacity(horizon=DAY - 1)
    assert found.by_line == {A: 2, B: 3}
    assert found.total == 5
    assert found.earliest(3) == NOW
    assert found.earliest(5) == NOW + 10
    assert found.earliest(6) is None
    assert router.capacity(horizon=5).total == 3
    assert router.capacity(horizon=DAY + 1).earliest(6) == NOW + DAY


def test_capacity_writes_nothing(world, router):
    """Asking how much fits, or for a plan, changes nothing."""
    router.reload(loose(limits={"new_per_day": 3}))
    router.lines()
    before = world.everything()
    router.capacity()
    router.plan(people(10), deadline=NOW + DAY)
    router.preview(ANN)
    router.assignment(ANN)
    assert world.everything() == before


def test_a_plan_places_all_that_fit_before_the_deadline(world):
    """Known recipients on their line, new ones as soon as may be, the rest unplaced with a sentence."""
    router = world.router(
        loose(limits={"new_per_day": 2}, pace={"new_gap": 60, "new_burst": 1, "spread": "off"})
    )
    router.assign(ANN, B)
    plan = router.plan([ANN, *people(5)], deadline=NOW + HOUR)
    slots = {to: (number, at) for to, number, at in plan.slots}
    assert slots[ANN][0] == B
    assert Counter(number for to, (number, _) in slots.items() if to != ANN) == {A: 2, B: 2}
    assert all(NOW <= at <= NOW + HOUR for _, at in slots.values())
    assert plan.unplaced == (people(5)[4],)
    assert plan.shortfall
    assert not router.plan(people(4), deadline=NOW + HOUR).shortfall


def test_no_handle_is_in_what_is_shown(world, router, caplog):
    """Decisions, their JSON, errors, reprs and the log hold masks."""
    caplog.set_level(logging.DEBUG)
    shown = []
    people_ = [ANN, CAT, (ANN, CAT)]
    for to in people_:
        made = router.reserve(to, key=str(len(shown)))
        shown += [repr(made), str(made.decision), made.decision.to_json(), repr(router)]
        router.move(to)
        with pytest.raises(ValueError, match="belongs") as caught:
            router.assign(to, next(n for n in (A, B) if n != router.assignment(to).number))
        shown.append(str(caught.value))
        router.pause(A)
        router.pause(B)
        with pytest.raises(Held) as held:
            router.reserve(to)
        shown += [str(held.value), held.value.decision.to_json(), repr(held.value)]
        router.resume(A)
        router.resume(B)
    for to in ("not a handle 4155550101", "+1415555010199999999"):
        with pytest.raises(InvalidRecipient) as invalid:
            router.reserve(to)
        shown.append(str(invalid.value))
    world.report(router, OptedOut, ANN)
    with pytest.raises(Blocked) as blocked:
        router.reserve(ANN)
    shown += [str(blocked.value), blocked.value.decision.to_json(), caplog.text]
    for text in shown:
        assert "4155550101" not in text
        assert "cat@" not in text
        assert "example.com" not in text


def test_a_decision_s_json_is_one_line_that_reads_back(world, router):
    """Reserved and refused decisions alike."""
    router.pause(A)
    made = router.reserve(ANN).decision
    preview = router.preview(BOB)
    held = refusal(Held, router, BOB, line=A)
    for decision in (made, preview, held):
        text = decision.to_json()
        assert "\n" not in text
        value = json.loads(text, parse_constant=pytest.fail)
        assert value["outcome"] == decision.outcome
        assert value["number"] == decision.number
        assert [each["number"] for each in value["candidates"]] == [
            each.number for each in decision.candidates
        ]


def test_previews_and_refusals_show_every_line_best_first(world):
    """Eligible lines by score, then the excluded with their codes."""
    world.account.has(C, weight=5.0)
    world.account.has(D, weight=9.0)
    router = world.router(loose())
    router.pause(D)
    shown = router.preview(ANN).candidates
    assert shown[0].number == C
    assert shown[-1].number == D
    assert shown[-1].excluded == "paused"
    assert [each.excluded for each in shown[:3]] == [None] * 3


# Recipients


def test_one_handle_and_a_set_of_that_handle_are_one_recipient(world, router):
    """One distinct handle is never a group; order and repetition don't matter."""
    first = router.reserve(ANN)
    assert first.to == ANN
    for again in ([ANN], (ANN, ANN), {ANN}, "+1 (415) 555-0101"):
        assert router.reserve(again).number == first.number
        assert router.reserve(again).kind == "known"
    group = router.reserve([CAT, ANN])
    assert group.kind == "new"
    assert group.to == tuple(sorted([ANN, CAT]))
    assert router.reserve((ANN, "CAT@example.com", ANN)).kind == "known"


@pytest.mark.parametrize("wrong", ["", "x", [], 5, None, b"+14155550101"])
def test_an_invalid_recipient_is_refused_by_every_verb(router, wrong):
    """InvalidRecipient is a ValueError, before anything else is looked at."""
    for verb in (
        lambda: router.reserve(wrong),
        lambda: router.preview(wrong),
        lambda: router.send(wrong, lambda made: None),
        lambda: router.assignment(wrong),
        lambda: router.assign(wrong, A),
        lambda: router.move(wrong),
        lambda: router.forget(wrong),
        lambda: router.report(OptedOut(wrong, at=NOW)),
        lambda: router.plan([wrong], deadline=NOW),
    ):
        with pytest.raises(InvalidRecipient):
            verb()


@pytest.mark.parametrize(
    "arguments",
    [
        {"tags": "gold"},
        {"exclude": A},
        {"line": "A"},
        {"text": 5},
        {"chat_health": "BAD"},
    ],
)
def test_wrong_arguments_are_value_errors(router, arguments):
    """Named where they are wrong, by reserve, preview and send."""
    for verb in (
        lambda: router.reserve(ANN, **arguments),
        lambda: router.preview(ANN, **arguments),
        lambda: router.send(ANN, lambda made: None, **arguments),
    ):
        with pytest.raises(ValueError):
            verb()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "yesterday"])
def test_an_assignment_s_moment_must_be_one(world, router, wrong):
    """Nothing is written that could not be read again."""
    router.lines()
    before = world.everything()
    with pytest.raises((ValueError, TypeError)):
        router.assign(ANN, A, since=wrong)
    with pytest.raises((ValueError, TypeError)):
        router.assign_many([(ANN, A, wrong)])
    assert world.everything() == before
    assert router.reserve(ANN).kind == "new"


@pytest.mark.parametrize("wrong", [math.nan, "tomorrow"])
def test_how_far_to_look_ahead_must_be_a_number(router, wrong):
    """For capacity and for plans."""
    with pytest.raises((ValueError, TypeError)):
        router.capacity(horizon=wrong)
    with pytest.raises((ValueError, TypeError)):
        router.plan([ANN], deadline=wrong)


@pytest.mark.parametrize("wrong", [None, {}, "x"])
def test_reload_takes_a_policy_or_leaves_all_as_it_is(router, wrong):
    """Anything else is refused, and the router goes on."""
    with pytest.raises((ValueError, TypeError)):
        router.reload(wrong)
    assert router.reserve(ANN).kind == "new"


# Stores


def test_two_urls_are_two_stores_and_one_handle_is_one(world):
    """memory:// twice is two memories; a handle is shared and outlives the routers it was given to."""
    handle = open_store("memory://")
    one, two = world.router(loose(), store=handle), world.router(loose(), store=handle)
    one.assign(ANN, A)
    one.close()
    assert two.assignment(ANN).number == A
    two.close()
    assert world.router(loose(), store=handle).assignment(ANN).number == A
    three = world.router(loose(), store="memory://")
    assert three.assignment(ANN) is None
    assert world.router(loose(), store="memory://").assignment(ANN) is None
    three.close()
    with pytest.raises(StoreError):
        three.assignment(ANN)


def test_a_router_is_a_context_manager(world, tmp_path):
    """Leaving closes the store that it opened."""
    with world.router(loose(), store=f"sqlite:///{tmp_path}/x.db") as router:
        router.assign(ANN, A)
    with pytest.raises(StoreError):
        router.reserve(ANN)


def test_namespaces_know_nothing_of_each_other(world, tmp_path):
    """Two deployments in one file."""
    url = f"sqlite:///{tmp_path}/x.db?namespace="
    with world.router(loose(), store=url + "one") as one:
        one.assign(ANN, A)
        one.pause(A)
    with world.router(loose(), store=url + "two") as two:
        assert two.assignment(ANN) is None
        assert view(two, A).standing == "ok"


def test_a_starting_router_notices_the_wrong_store_only_if_told(world, tmp_path, caplog):
    """With ?epoch= another store is a StoreError; without, an empty one is new and says so once in the log."""
    with (
        caplog.at_level(logging.INFO, "linepicker"),
        world.router(loose(), store=f"sqlite:///{tmp_path}/x.db") as router,
    ):
        router.lines()
        router.lines()
    assert caplog.text.count("the store is new") == 1
    epoch = caplog.text.split("(epoch ")[1].split(")")[0]
    with world.router(loose(), store=f"sqlite:///{tmp_path}/x.db?epoch={epoch}") as router:
        router.reserve(ANN)
    for url in (f"{tmp_path}/y.db?epoch={epoch}", f"{tmp_path}/x.db?epoch=other"):
        with world.router(loose(), store=f"sqlite:///{url}") as router:
            for verb in (
                lambda router=router: router.reserve(ANN),
                lambda router=router: router.preview(ANN),
                lambda router=router: router.assignment(ANN),
                lambda router=router: router.lines(),
            ):
                with pytest.raises(StoreError):
                    verb()


@pytest.mark.parametrize("verb", ["reserve", "preview", "assignment", "lines", "settle", "check"])
def test_a_running_router_notices_a_wiped_store(world, verb):
    """The epoch has moved: StoreError, never "everyone is new"."""
    store = Broken(world.store)
    router = world.router(loose(), store=store)
    made = router.reserve(ANN)
    store.inner = MemoryStore()
    calls = {
        "reserve": lambda: router.reserve(BOB),
        "preview": lambda: router.preview(BOB),
        "assignment": lambda: router.assignment(ANN),
        "lines": router.lines,
        "settle": made.release,
        "check": made.check,
    }
    with pytest.raises(StoreError):
        calls[verb]()
    assert not dict(store.inner.scan("to/"))


def test_a_kept_record_may_only_say_yes(world):
    """Before a refusal, what it rests on is read anew: room that another process made is found at once."""
    policy = loose(limits={"new_per_day": 1})
    one, two = world.router(policy), world.router(policy)
    made = [one.reserve(to) for to in (ANN, BOB)]
    refusal(NoLine, two, CAT)
    refusal(NoLine, one, CAT)
    made[0].release()
    assert two.reserve(CAT).number == made[0].number
    one.pause(A)
    refusal(Held, two, "+14155550177", line=A)
    one.resume(A)
    assert two.preview("+14155550177", line=A).reason != "paused"


def test_standing_status_may_come_from_the_list(world):
    """A source that shows the service status is believed."""
    world.account.has(A, status=ServiceStatus.FLAGGED)
    router = world.router(loose())
    assert fill(router, 4) == {B: 4}
    world.account.has(A, status=ServiceStatus.ACTIVE)
    world.polls(router, 5 * MINUTE)
    assert router.reserve(ANN, line=A).number == A


# What is promised holds: in any state of the lines


LIVELY = Policy.from_dict(
    {
        "limits": {"new_per_day": 8, "new_per_hour": 3, "messages_per_day": 40, "moves_per_day": 2},
        "pace": {
            "new_gap": 20,
            "new_burst": 2,
            "message_gap": 3,
            "message_burst": 4,
            "spread": 0.4,
            "max_delay": 60,
        },
        "warmup": {"start": 2},
        "learn": {"enabled": False},
    }
)
LINES = st.sampled_from([A, B, C])
PAST = st.lists(
    st.one_of(
        st.tuples(st.just("new"), LINES, st.sampled_from([0.0, 60.0, 300.0])),
        st.tuples(st.just("known"), LINES, st.integers(1, 30)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 17.0, 200.0, 3000.0, 20000.0, 90000.0])),
        st.tuples(st.just("says"), LINES, st.sampled_from(Reputation)),
        st.tuples(st.just("flagged"), LINES),
        st.tuples(st.just("refused"), LINES, st.sampled_from([None, 500.0])),
        st.tuples(st.just("operate"), LINES, st.sampled_from(["pause", "drain", "resume"])),
        st.tuples(st.just("joins"), LINES),
    ),
    max_size=25,
)


class Lived(World):
    """A world with a past."""

    def __init__(self, past) -> None:
        super().__init__()
        self.count = 0
        self.one = self.router(LIVELY)
        self.one.lines()
        for number in (A, B):
            self.one.assign(f"{number[1:]}@example.com", number)
        for verb, *arguments in past:
            with suppress(LinePickerError, ValueError):
                getattr(self, verb)(*arguments)
        self.one.refresh()  # so that nothing is news to the routers from here on

    def person(self) -> str:
        """Somebody new."""
        self.count += 1
        return people(1, self.count)[0]

    def new(self, number, max_delay):
        """A new conversation."""
        self.one.reserve(self.person(), line=number, max_delay=max_delay).settle("SENT")

    def known(self, number, count):
        """Messages to somebody known."""
        for _ in range(count):
            self.one.reserve(f"{number[1:]}@example.com")

    def wait(self, seconds):
        """Time passes, with a poll."""
        self.clock.advance(seconds)
        self.one.lines()

    def says(self, number, reputation):
        """The list says something else."""
        self.account.calls(number, reputation) if number in self.account.lines else None

    def flagged(self, number):
        """The provider flags a line."""
        self.report(self.one, LineChanged, number, status="FLAGGED")

    def refused(self, number, retry_after):
        """A line refuses."""
        made = self.one.reserve(self.person(), line=number)
        made.settle("LINE_REFUSED", retry_after=retry_after)

    def operate(self, number, verb):
        """The operator acts."""
        getattr(self.one, verb)(number)

    def joins(self, number):
        """A line joins, if it is not there."""
        if number not in self.account.lines:
            self.account.has(number)


@SOME
@given(PAST, st.sampled_from([0.0, 60.0, 1000.0]))
def test_a_refusal_s_moment_is_when_it_ends(past, max_delay):
    """Who asks again at retry_at is served, where time alone was missing, and not a second before."""
    world = Lived(past)
    ends = {"day_budget", "hour_budget", "spread", "messages", "pace", "pair"}
    for number in (None, A, B):
        to = world.person()
        try:
            world.router(LIVELY).reserve(to, line=number, max_delay=max_delay).release()
        except (NoLine, NotNow) as refused:
            retry_at, decision = refused.retry_at, refused.decision
        except Held:
            continue
        else:
            continue
        if not any(each.excluded in ends for each in decision.candidates):
            continue
        now = world.clock.now()
        if decision.reason in ends:
            if retry_at - now > 2:
                world.clock.set(retry_at - 1)
                later = world.router(LIVELY).preview(to, line=number, max_delay=max_delay)
                assert later.outcome != "reserved" or len(world.account.lines) > 1
            world.clock.set(retry_at)
            world.router(LIVELY).reserve(to, line=number, max_delay=max_delay).release()


@SOME
@given(PAST)
def test_next_slot_at_is_when_now_or_never_succeeds(past):
    """At that moment a new conversation on the line is let go at once."""
    world = Lived(past)
    for number in sorted(world.account.lines):
        found = view(world.router(LIVELY), number)
        if found.next_slot_at is None:
            continue
        if found.next_slot_at == world.clock.now():
            assert found.standing == "ok"
        world.clock.set(max(found.next_slot_at, world.clock.now()))
        made = world.router(LIVELY).reserve(world.person(), line=number, max_delay=0)
        assert made.delay == 0
        made.release()


@SOME
@given(PAST, st.sampled_from([HOUR, 6 * HOUR, DAY]))
def test_capacity_promises_only_what_reserve_gives(past, horizon):
    """Somebody who writes at each of its moments, and reports SENT, is never refused."""
    world = Lived(past)
    for number in world.account.lines:
        promised = world.one.capacity(horizon=horizon)
        assert promised.by_line[number] <= 8 * math.ceil(horizon / DAY + 1)
    assert promised.total == sum(promised.by_line.values()) == len(promised.moments)
    for moment in promised.moments:
        world.clock.set(moment)
        world.one.reserve(world.person(), max_delay=0).settle("SENT")


@SOME
@given(PAST, st.integers(1, 30), st.sampled_from([HOUR, DAY]))
def test_a_plan_can_be_carried_out(past, count, span):
    """Each slot, at its moment, is given; the unplaced are those that do not fit."""
    world = Lived(past)
    wanted = [world.person() for _ in range(count)]
    plan = world.one.plan(wanted, deadline=world.clock.now() + span)
    assert {to for to, _, _ in plan.slots} | set(plan.unplaced) == set(wanted)
    assert bool(plan.unplaced) == bool(plan.shortfall)
    assert len(plan.slots) == min(count, world.one.capacity(horizon=span).total)
    for to, number, at in sorted(plan.slots, key=lambda slot: slot[2]):
        world.clock.set(at)
        made = world.one.reserve(to, line=number, max_delay=0)
        made.settle("SENT")


@SOME
@given(PAST, st.permutations(range(5)))
def test_giving_back_everything_leaves_what_was_before(past, order):
    """Whatever the order, all charges, assignments and sending days of released reservations are gone; pace is not."""
    world = Lived(past)

    def seen():
        return [
            (found.standing, found.budget, found.used, found.remaining)
            for found in world.one.lines()
        ]

    before = seen()
    made = []
    for _ in order:
        with suppress(NoLine):
            made.append(world.one.reserve(world.person(), max_delay=1000.0))
    for n in order:
        if n < len(made):
            made[n].release()
    assert seen() == before
    assert all(world.one.assignment(each.to) is None for each in made)


def test_large_fleets_are_shared_by_many_processes(world):
    """Two hundred lines, four processes that take turns: each finds room to the last place, and none is overspent."""
    numbers = [f"+1202555{n:04d}" for n in range(200)]
    world.account.lines = {each: Line(each) for each in numbers}
    policy = loose(limits={"new_per_day": 3})
    routers = [world.router(policy) for _ in range(4)]
    for n, to in enumerate(people(600)):
        routers[n % 4].reserve(to)
    assert {each.used for each in routers[0].lines()} == {3}
    for router in routers:
        refusal(NoLine, router)


def test_what_an_outage_left_behind_is_written_at_the_end(world):
    """close() writes it where the store is back."""
    store = Broken(world.store)
    router = world.router(loose(), store=store)
    made = router.reserve(ANN, line=A, key="m1")
    store.broken = True
    made.settle("SENT")
    router.close()
    store.broken = False
    router.close()
    with pytest.raises(AlreadySent):
        world.router(loose()).send(ANN, lambda made: None, key="m1")


def test_max_wait_does_not_wait_for_health(world, router):
    """StaleHealth is raised at once, however long the caller would wait."""
    world.account.error = SourceError("down")
    with pytest.raises(StaleHealth):
        router.send(ANN, lambda made: None, max_wait=DAY)
    assert world.clock.now() == NOW


def test_a_key_used_again_keeps_the_continuation():
    """The first message on a new number tells who writes, also when it is the second try."""
    clock = ManualClock(NOW)
    rules = Policy.from_dict({"stickiness": {"continuation": "It's us."}})
    router = Router([Line(A), Line(B)], policy=rules, clock=clock)
    router.assign(ANN, A)
    router.report(LineChanged(A, status="FLAGGED", at=NOW))
    first = router.reserve(ANN, key="k")
    again = router.reserve(ANN, key="k")
    assert first.id == again.id
    assert first.continuation == again.continuation == "It's us."


def test_a_refused_line_that_was_full_opens_with_its_next_sending_day():
    """A line out for a refusal, and full, is looked at again when its warm-up gives it more, not when its budget would end."""
    clock = ManualClock(NOW)
    rules = Policy.from_dict(
        {
            "limits": {"new_per_hour": "off"},
            "pace": {"new_gap": 1.0, "message_gap": 0.0, "spread": 0.1},
            "warmup": {"start": 10, "factor": 2.0, "trust_first_snapshot": False},
        }
    )
    router = Router([Line(A)], policy=rules, clock=clock)
    router.reserve(ANN)
    clock.advance(23 * HOUR)
    router.reserve(BOB).settle("UNKNOWN")
    refused = router.reserve(BOB)
    refused.settle("LINE_REFUSED", retry_after=600.0)
    with pytest.raises(NoLine):
        router.reserve(CAT)
    clock.advance(HOUR + 1)
    assert router.reserve(CAT).number == A
