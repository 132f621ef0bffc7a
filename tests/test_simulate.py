"""The simulation: its worlds, its rivals, its oracle, and that a run is played as it says."""

import ast
import math
import subprocess
import sys
from collections import Counter, deque
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker.model import Line, LineChanged, OptedOut, Reputation
from linepicker.policy import Learn, Limits, Policy
from linepicker.simulate import (
    Linepicker,
    Oracle,
    Scenario,
    ScenarioError,
    ablations,
    picture,
    play,
    report,
    score,
)
from linepicker.simulate.choosers import Gone, Offer, Setting, Wait
from linepicker.simulate.clock import SimulatedClock
from linepicker.simulate.engine import Run
from linepicker.simulate.measures import Measures, fairness, median
from linepicker.simulate.page import page
from linepicker.simulate.provider import Provider
from linepicker.simulate.rivals import RIVALS, FixedCap, PlainSwitch, Rival, RoundRobin, Seen
from linepicker.simulate.scenario import DAY, HOUR, START
from linepicker.simulate.strains import Leak, Recent
from linepicker.simulate.traffic import people

SMALL = Scenario(days=6, lines=3, newcomers=1)
HARSH = attrs.evolve(SMALL, demand=2.0, outages=7.0, false_alarms=0.2, days=8)
DAILY = score.WORLDS["daily"]
MAKERS = {"linepicker": Linepicker, "oracle": Oracle, **RIVALS}
HEALTHY, AT_RISK, CRITICAL = Reputation


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Simulated outages are not told."""
    caplog.set_level("ERROR", "linepicker")


class Watched:
    """A chooser that keeps what was asked of another, and what came of it."""

    def __init__(self, make):
        self.make, self.sent, self.refused = make, [], []

    def __call__(self, setting):
        """It, in this setting."""
        self.setting, self.inner = setting, self.make(setting)
        return self

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def settle(self, to, offer, *, sent):
        """Keep it, and pass it on."""
        now = self.setting.clock.now()
        (self.sent if sent else self.refused).append((now, to, offer.number))
        self.inner.settle(to, offer, sent=sent)


# One run


@pytest.mark.parametrize("name", MAKERS)
def test_a_run_is_the_same_each_time(name):
    """The same scenario, chooser and seed give the same trace and measures; another seed gives others."""
    one = play(SMALL, DAILY, MAKERS[name], seed=1)
    assert play(SMALL, DAILY, MAKERS[name], seed=1) == one
    assert play(SMALL, DAILY, MAKERS[name], seed=2).measures.trace != one.measures.trace


def test_a_run_with_outages_is_the_same_each_time():
    """The pauses between tries to read the list are drawn by the seed as well."""
    often = attrs.evolve(SMALL, outages=30.0, outage_hours=6.0, demand=1.3)
    runs = [play(often, DAILY, MAKERS["linepicker"], seed=1).measures.trace for _ in range(4)]
    assert len(set(runs)) == 1


@pytest.mark.parametrize("world", score.WORLDS)
def test_a_run_is_the_same_in_another_process(world):
    """Runs of several processes are those of one, to the byte of their traces."""
    scenario = attrs.evolve(SMALL, days=2, world=world)
    matches = [
        score.Match(contender, scenario, seed)
        for contender in score.field()[:3]
        for seed in range(2)
    ]
    alone, together = score.run(matches), score.run(matches, processes=2)
    assert [each.measures for each in alone] == [each.measures for each in together]
    assert [each.match for each in together] == matches


@pytest.mark.parametrize("name", MAKERS)
def test_nobody_is_reached_twice(name):
    """Everybody gets one first message at most, and no follow-up that was not owed."""
    watched = Watched(MAKERS[name])
    measures = play(HARSH, DAILY, watched, seed=3).measures
    firsts = {to for _, to, _ in watched.sent}
    assert measures.reached + measures.late <= len(firsts) <= measures.people
    assert len(watched.sent) == measures.messages <= len(firsts) + measures.due
    assert len(watched.refused) == measures.refused
    assert measures.answered <= measures.due


@pytest.mark.parametrize("world", score.WORLDS)
def test_what_was_sent_is_what_the_router_charged(world):
    """Each conversation that opened, and no other, is on the record of its line."""
    watched = Watched(Linepicker)
    views = {}

    class Closing:
        """Looks at the lines before the router is closed."""

        def __init__(self, setting):
            self.inner = watched(setting)

        def __getattr__(self, name):
            return getattr(watched, name)

        def close(self):
            """Keep the views."""
            views.update({view.line.number: view for view in watched.inner.router.lines()})
            watched.inner.close()

    measures = play(
        attrs.evolve(SMALL, world=world, outages=0), score.WORLDS[world], Closing, seed=4
    )
    sent = Counter(number for _, _, number in watched.sent)
    assert {n: view.outcomes["sent"] for n, view in views.items() if sent[n]} == dict(sent)
    opened = sum(view.outcomes["opened"] for view in views.values())
    assert opened == measures.measures.opened > 100


@pytest.mark.parametrize("world", score.WORLDS)
@pytest.mark.parametrize("limits", [Limits(), Limits(new_per_day=20, new_per_hour=4)])
def test_the_oracle_obeys_the_caps(world, limits):
    """No line opens more in any rolling day or hour than the policy's limits say."""
    watched = Watched(Oracle)
    scenario = attrs.evolve(SMALL, world=world, demand=1.5)
    play(scenario, score.WORLDS[world], watched, seed=5, policy=Policy(limits=limits))
    known, opened = set(), {}
    for now, to, number in watched.sent:
        if to not in known:
            known.add(to)
            opened.setdefault(number, []).append(now)
    assert opened
    for times in opened.values():
        for cap, window in ((limits.new_per_day, DAY), (limits.new_per_hour, HOUR)):
            spans = zip(times, times[cap:], strict=False)
            assert all(later - first >= window for first, later in spans)


@pytest.mark.parametrize("world", score.WORLDS)
def test_the_oracle_is_an_upper_bound(world):
    """It keeps every line below the edge, and nobody serves more people over some weeks."""
    scenario = Scenario(world=world, days=12, lines=3, newcomers=1, false_alarms=0.0)
    best = play(scenario, score.WORLDS[world], Oracle, seed=6).measures
    assert best.critical_days == best.flagged_days == best.on_critical == best.on_flagged == 0
    assert best.at_risk_days <= 1.5
    for make in RIVALS.values():
        assert play(scenario, score.WORLDS[world], make, seed=6).measures.served <= best.served


@pytest.mark.parametrize("world", score.WORLDS)
def test_linepicker_sends_nothing_on_a_line_known_to_be_bad(world):
    """Not on one shown as CRITICAL, not on one that refused or is told to be FLAGGED, not to who opted out."""
    harsh = attrs.evolve(HARSH, world=world, opt_outs=0.1)
    measures = play(harsh, score.WORLDS[world], Linepicker, seed=7).measures
    assert (measures.on_critical, measures.on_flagged, measures.after_opt_out) == (0, 0, 0)
    assert measures.at_risk_days > 0


def test_a_rival_that_does_not_look_burns_its_lines():
    """The measures of harm count: by lot, messages leave on lines that are known to be CRITICAL, and lines are flagged."""
    measures = play(HARSH, DAILY, RIVALS["random"], seed=8).measures
    assert measures.on_critical > 0
    assert measures.flagged_days > 0
    assert measures.refused > 0


def test_everybody_meets_the_same_people_and_lines():
    """What chance decides and no chooser can change is the same for all: people, limits, outages, alarms."""
    first, second = (Provider(DAILY, SMALL, SimulatedClock(START), 9) for _ in range(2))
    assert people(SMALL, first.bears, 9) == people(SMALL, second.bears, 9)
    assert first.outages == second.outages
    for number, line in first.lines.items():
        assert line.factors == second.lines[number].factors
        assert line.alarms == second.lines[number].alarms


def test_demand_is_what_the_lines_bear():
    """At a demand of 1, as many people come as the hidden limits add up to, on average."""
    scenario = Scenario(days=70, newcomers=0)
    provider = Provider(DAILY, scenario, SimulatedClock(START), 10)
    expected = 70 * sum(line.base for line in provider.lines.values())
    assert len(people(scenario, provider.bears, 10)) == pytest.approx(expected, rel=0.03)
    low, high = scenario.limits
    assert all(low <= line.base <= high for line in provider.lines.values())


def test_an_outage_hides_the_list():
    """During one the list of lines can't be read, and the simulation goes on."""
    scenario = attrs.evolve(SMALL, outages=7.0, outage_hours=20.0)
    watched = Watched(Linepicker)
    assert play(scenario, DAILY, watched, seed=11).measures.reached > 0
    provider = watched.setting.provider
    begin, end = provider.outages[0]
    assert any(begin <= now < end for now, _, _ in watched.sent)


# Worlds


@given(
    data=st.data(),
    limit=st.floats(5, 120),
    gaps=st.lists(st.floats(60, 20000), min_size=200, max_size=400),
)
@pytest.mark.parametrize("name", score.WORLDS)
@settings(max_examples=15, deadline=None)
def test_who_asks_before_each_stays_below_the_edge(name, data, limit, gaps):
    """In every world a line stays under a stress of 1 if one more is opened only where that is said to be under 1."""
    strain = score.WORLDS[name].strain(limit, 0.4)
    now, opened, due = START, 0, 0.0
    for gap in gaps:
        now += gap
        if strain.with_one_more(now, limit) < 1.0:
            strain.opened(now)
            strain.messaged(now)
            opened, due = opened + 1, due + 0.8
        if due >= 1.0:
            strain.replied(now)
            due -= 1.0
        assert strain.stress(now, limit) < 1.02
    assert opened > 0


@pytest.mark.parametrize("name", score.WORLDS)
def test_twice_the_limit_is_too_much(name):
    """In every world a line that opens twice its limit a day, all day long, is strained within some days."""
    strain, limit = score.WORLDS[name].strain(40.0, 0.4), 40.0
    worst, due = 0.0, 0.0
    for step in range(80 * 10):
        now = START + step * DAY / 80
        strain.opened(now)
        strain.messaged(now)
        due += 0.8
        if due >= 1.0:
            strain.replied(now)
            due -= 1.0
        worst = max(worst, strain.stress(now, limit))
    assert worst > 1.2


def test_only_the_scoring_run_reads_the_held_out_worlds():
    """No module of the library but the scoring run imports them."""
    library = Path(score.__file__).parents[1]
    readers = [
        path.name
        for path in library.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "linepicker.simulate.heldout"
    ]
    assert readers == ["score.py"]


def test_each_world_says_what_it_assumes():
    """By a sentence, and by the docstring of what its verdict comes from."""
    for world in score.WORLDS.values():
        assert world.about.endswith(".")
        assert world.strain.__doc__.startswith("Assumes: ")
    assert [name for name in score.WORLDS if score.is_held_out(name)] == [
        "crowds",
        "silence",
        "scars",
    ]


def test_a_rolling_count_forgets_and_a_leak_fades():
    """A count holds for its window, a leak is down to e^-1 after its span and never below 0."""
    recent, leak = Recent(10.0), Leak(10.0, 2.0, 0.0)
    recent.add(0.0)
    recent.add(5.0)
    assert [recent.count(at) for at in (5.0, 9.9, 10.0, 15.0)] == [2, 2, 1, 0]
    assert leak.value(10.0) == pytest.approx(2.0 / math.e)
    leak.add(-5.0, 10.0)
    assert leak.value(10.0) == 0.0


# Rivals


def setting(lines, policy=None):
    """A setting whose source shows *lines*."""

    class Source:
        """Shows the lines."""

        def fetch(self):
            """As they are."""
            return list(lines)

    clock = SimulatedClock(START)
    return Setting(Source(), clock, policy or Policy(), 0, Provider(DAILY, SMALL, clock, 0))


def numbered(*reputations):
    """Lines of these reputations."""
    return [
        Line(f"+1202555010{i}", reputation=reputation) for i, reputation in enumerate(reputations)
    ]


def chosen(name, *reputations, times=6):
    """The last digits of the lines that a rival gives to so many new people in turn."""
    given_ = setting(numbered(*reputations))
    chooser, found = RIVALS[name](given_), ""
    for i in range(times):
        to = f"+1646000000{i}"
        answer = chooser.choose(to)
        if isinstance(answer, Wait):
            found += "-"
            continue
        chooser.settle(to, answer, sent=True)
        found += answer.number[-1]
        given_.clock.moment += 1.0
    return found


@pytest.mark.parametrize(
    ("name", "reputations", "found"),
    [
        ("round robin", (HEALTHY, AT_RISK, CRITICAL), "120120"),
        ("skip unhealthy", (HEALTHY, AT_RISK, HEALTHY), "202020"),
        ("skip unhealthy", (AT_RISK, CRITICAL), "------"),
        ("least recently used", (HEALTHY, HEALTHY, AT_RISK), "010101"),
        ("least recently used", (AT_RISK, CRITICAL, AT_RISK), "020202"),
        ("plain switch", (AT_RISK, HEALTHY, HEALTHY), "111111"),
        ("plain switch", (CRITICAL, AT_RISK), "111111"),
        ("plain switch", (CRITICAL, CRITICAL), "------"),
        ("fixed cap of 50", (CRITICAL, HEALTHY), "010101"),
        ("additive-multiplicative", (HEALTHY, CRITICAL, HEALTHY), "020202"),
    ],
)
def test_a_rival_does_what_it_is_called(name, reputations, found):
    """Each gives new people the lines that its description says."""
    assert chosen(name, *reputations) == found


def test_random_draws_every_line():
    """By lot, whatever the reputation."""
    assert set(chosen("random", HEALTHY, AT_RISK, CRITICAL, times=10)) == set("012")


def test_consistent_hashing_gives_a_person_the_same_line_and_moves_few():
    """The choice depends on the person and the lines alone; without a line only its own people go elsewhere."""
    people_ = [f"+1646{i:07d}" for i in range(60)]

    def lines_of(count):
        chooser = RIVALS["consistent hashing"](setting(numbered(*[HEALTHY] * count)))
        return [chooser.choose(to).number for to in people_]

    four, three = lines_of(4), lines_of(3)
    assert lines_of(4) == four
    assert all(a == b for a, b in zip(four, three, strict=True) if a != "+12025550103")
    assert len(set(four)) == 4


def test_the_plain_switch_goes_on_from_where_it_was():
    """When its line is AT_RISK it takes the next one that is HEALTHY, and begins anew after the last."""
    rule, lines = PlainSwitch(), [Seen(f"+1202555010{i}") for i in range(3)]
    assert rule.pick("", lines, 0.0) is lines[0]
    lines[0].reputation = AT_RISK
    assert rule.pick("", lines, 0.0) is lines[1]
    lines[0].reputation = HEALTHY
    assert rule.pick("", lines, 0.0) is lines[1]
    lines[1].reputation = lines[2].reputation = AT_RISK
    assert rule.pick("", lines, 0.0) is lines[0]


def test_a_fixed_cap_is_full_for_a_day():
    """A line at its cap takes nobody until the first of its day has gone."""
    line = Seen("+12025550100", opened=deque([10.0, 20.0]))
    assert FixedCap(2).pick("", [line], 30.0) is None
    assert FixedCap(2).pick("", [line], 10.0 + DAY) is line


def test_an_additive_budget_halves_and_grows():
    """Half of it when its line gets worse; two more after a HEALTHY day on which half was used, and none else."""
    given_ = setting(numbered(HEALTHY), Policy(limits=Limits(new_per_day=20)))
    chooser = RIVALS["additive-multiplicative"](given_)
    number, clock = "+12025550100", given_.clock
    chooser.choose("+16460000000")
    assert chooser.budgets() == {number: 20}
    chooser.report(LineChanged(number, reputation=AT_RISK, at=clock.moment))
    chooser.choose("+16460000000")
    chooser.choose("+16460000000")
    assert chooser.budgets() == {number: 10}
    chooser.report(LineChanged(number, reputation=HEALTHY, at=clock.moment))
    clock.moment += DAY
    chooser.choose("+16460000000")
    assert chooser.budgets() == {number: 10}
    for i in range(5):
        chooser.settle(f"+1646000000{i}", Offer(number, clock.moment), sent=True)
    clock.moment += DAY - 1
    for i in range(5, 10):
        chooser.settle(f"+1646000000{i}", Offer(number, clock.moment), sent=True)
    clock.moment += 1
    chooser.choose("+16460000099")
    assert chooser.budgets() == {number: 12}


def test_a_sticky_rival_keeps_people_on_their_line():
    """Until it can't send: then the rule picks again. One that holds lets them wait while it is CRITICAL."""
    given_ = setting(numbered(HEALTHY, HEALTHY))
    chooser = Rival(given_, RoundRobin(), holds=True)
    offer = chooser.choose("+16460000000")
    chooser.settle("+16460000000", offer, sent=True)
    assert chooser.choose("+16460000000").number == offer.number
    chooser.report(LineChanged(offer.number, reputation=CRITICAL, at=START))
    assert isinstance(chooser.choose("+16460000000"), Wait)
    chooser.settle("+16460000000", offer, sent=False)
    assert chooser.choose("+16460000000").number != offer.number
    chooser.report(OptedOut("+16460000000", at=START))
    assert chooser.choose("+16460000000") == Gone()


# Scenarios


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("days = 0", "days must be a whole number from 1 to 366, got 0"),
        ("days = 2.5", "days must be a whole number from 1 to 366, got 2.5"),
        ("days = true", "days must be a whole number from 1 to 366, got True"),
        ("demand = 'much'", "demand must be a number from 0.01 to 10, got 'much'"),
        ("noise = nan", "noise must be a number from 0 to 1, got nan"),
        ("limits = [60, 20]", "limits must be two numbers, the lower first, from 1 to 1000"),
        ("limits = 40", "limits must be two numbers, the lower first, from 1 to 1000, got 40"),
        ("limits = ['a', 'b']", "limits must be two numbers"),
        ("world = ''", "world must be the name of a world, got ''"),
        ("dayz = 3", "dayz is not a name of a scenario; the nearest is days"),
        ("days = ", "is not TOML"),
    ],
)
def test_a_wrong_scenario_says_what_is_wrong(tmp_path, text, said):
    """The error names the file, the field, what was expected and what was found."""
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_toml(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_scenario_is_read_from_toml(tmp_path):
    """What the file says holds; the rest keeps its default."""
    path = tmp_path / "s.toml"
    path.write_text('world = "crowds"\nlimits = [8, 120]\ndemand = 1.3\n')
    scenario = Scenario.from_toml(path)
    assert scenario == Scenario(world="crowds", limits=(8, 120), demand=1.3)
    assert scenario.end == START + 30 * DAY


def test_an_unknown_world_is_named_with_the_nearest():
    """Worlds are found by name."""
    assert score.world("daily") is DAILY
    with pytest.raises(ScenarioError, match="got 'dally'; the nearest is daily"):
        score.world("dally")


# Scores


def played(contender, world, seed, condition="", **measures):
    """A played match with these measures."""
    match = score.Match(contender, attrs.evolve(SMALL, world=world), seed, condition)
    none = dict.fromkeys((each.name for each in attrs.fields(Measures)), 0)
    return score.Played(match, Measures(**{**none, "trace": "", **measures}))


def test_an_estimate_is_a_mean_with_its_interval():
    """Half its width is t times the standard error; of a single value it is not known."""
    two = report.estimate([1.0, 3.0])
    assert (two.mean, two.half) == (2.0, pytest.approx(12.71))
    many = report.estimate([0.0, 2.0] * 50)
    assert many.half == pytest.approx(1.96 * 1.00504 / 10, rel=1e-4)
    assert report.estimate([5.0]) == report.Estimate(5.0, None)
    with pytest.raises(ValueError, match="must not be empty"):
        report.estimate([])


def test_shares_are_of_the_oracle_with_the_same_seed():
    """Seed by seed, and worlds of a group weigh alike."""
    oracle = score.Contender(score.ORACLE, score.ORACLE)
    mine = score.Contender("mine")
    rows = report.summary(
        [
            played(oracle, "daily", 0, reached=100, answered=100),
            played(mine, "daily", 0, reached=50, answered=50),
            played(oracle, "daily", 1, reached=40, answered=10),
            played(mine, "daily", 1, reached=40, answered=10),
            played(oracle, "crowds", 0, reached=10, answered=0),
            played(mine, "crowds", 0, reached=9, answered=0),
            played(oracle, "jumps", 0, reached=100, answered=0),
            played(mine, "jumps", 0, reached=100, answered=0),
        ],
        report.by_group,
    )
    shares = {(row.group, row.contender): row.share.mean for row in rows}
    assert shares["tuned", "mine"] == pytest.approx((75.0 + 100.0) / 2)
    assert shares["held out", "mine"] == pytest.approx(90.0)
    assert shares["tuned", "oracle"] == 100.0


def test_without_an_oracle_there_is_no_share():
    """A table shows a dash."""
    (row,) = report.summary([played(score.Contender("mine"), "daily", 0, wait=150.0)])
    assert row.share is None
    assert report.shown("share", row.share) == "-"
    assert report.shown("wait", row.values["wait"]) == "2"
    assert report.shown("share", report.Estimate(98.04, 1.26)) == "98.0 ± 1.3"


def test_a_table_in_markdown_and_a_page_name_everybody():
    """Both hold each contender and each column."""
    rows = report.summary([played(score.Contender("mine <b>"), "daily", 0)])
    columns = {"share": "of oracle", "reached": "people"}
    table = report.markdown(rows, columns)
    assert table.splitlines()[0] == "|  | of oracle | people |"
    assert table.splitlines()[2].startswith("| mine <b> | - | ")
    text = page("A & B", rows, columns)
    assert "mine &lt;b&gt;" in text
    assert "<title>A &amp; B</title>" in text


def test_every_mechanism_can_be_switched_off_alone():
    """Each ablation is a policy that differs from the whole in what it names, and no two are alike."""
    whole = Policy()
    policies = [each.applied(whole) for each in ablations.ABLATIONS]
    assert whole not in policies
    assert len({policy.to_toml() for policy in policies}) == len(policies)
    assert ablations.Ablation("x", {"pace": {"spread": "off"}}).toml == 'pace.spread = "off"'
    assert ablations.Ablation("x", {"prefer": "weighted"}).toml == 'prefer = "weighted"'
    names = [each.name for each in ablations.contenders(whole)]
    assert names[:2] == ["oracle", "linepicker"]
    assert len(names) == len(policies) + 2


def test_the_conditions_are_laid_on_the_policy():
    """A condition's limits are the match's, and its hidden limits the scenario's."""
    wide = score.CONDITIONS[-1]
    (one,) = score.score([score.Contender("x")], 1, worlds=["daily"], conditions=[wide])
    assert one.scenario == Scenario(limits=(8.0, 120.0))
    watched = {}

    def make(given_):
        watched["policy"] = given_.policy
        return Oracle(given_)

    play(
        attrs.evolve(SMALL, days=1),
        DAILY,
        make,
        seed=0,
        policy=Policy(limits=Limits(new_per_day=9)),
    )
    assert watched["policy"].limits.new_per_day == 9
    assert watched["policy"].health.ttl == SMALL.poll
    play(attrs.evolve(SMALL, days=1, poll=0), DAILY, make, seed=0)
    assert watched["policy"].health == Policy().health


def test_small_numbers():
    """A median of none is 0, of two their middle; fairness is 1 where all were used alike, 1/n where one was."""
    assert [median([]), median([3.0]), median([1.0, 2.0]), median([5.0, 1.0, 3.0])] == [
        0,
        3,
        1.5,
        3,
    ]
    assert fairness(Counter(a=2, b=4), {"a": 10.0, "b": 20.0}) == pytest.approx(1.0)
    assert fairness(Counter(a=2), {"a": 10.0, "b": 20.0}) == pytest.approx(0.5)
    assert fairness(Counter(), {"a": 10.0}) == 1.0


# Pictures


@pytest.fixture(scope="module")
def drawn():
    """A run that is worth drawing."""
    harsh = attrs.evolve(HARSH, days=6)
    fixed = Policy(learn=Learn(enabled=False))
    return {
        "ours": play(harsh, DAILY, Linepicker, seed=1, policy=fixed),
        "plain switch": play(harsh, DAILY, RIVALS["plain switch"], seed=1),
    }


def test_a_picture_is_drawn(tmp_path, drawn):
    """As a PNG of some size."""
    path = tmp_path / "p.png"
    picture.save(drawn, path, title="a title")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000


def test_a_picture_as_svg_needs_nothing_else(drawn):
    """It is one element, the same each time, and refers to nothing outside itself."""
    text = picture.svg(drawn)
    assert text == picture.svg(drawn)
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
    for outside in ('href="http', "src=", "@import", "<metadata"):
        assert outside not in text


def _grey(colour: str) -> float:
    """How bright a colour is in black and white, from 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def test_a_picture_is_readable_without_colours():
    """Curves and bands that may be mistaken for each other differ in brightness by a sixth, and in hatching or stroke."""
    bands = sorted(_grey(colour) for _, colour, _ in picture._BANDS)
    assert all(other - one > 1 / 6 for one, other in pairwise(bands))
    assert len({hatch for _, _, hatch in picture._BANDS}) == len(picture._BANDS)
    solid = [_grey(picture._OPENED["color"]), _grey(picture._BUDGET["color"])]
    assert solid[1] - solid[0] > 1 / 6
    assert "linestyle" in picture._LIMIT


def test_a_picture_of_nothing_is_drawn_too(tmp_path):
    """A run without samples has empty panels."""
    run = Run(play(attrs.evolve(SMALL, days=1), DAILY, Oracle, seed=1).measures, ())
    picture.save({"none": run}, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 0


def test_the_library_and_the_simulation_need_no_matplotlib():
    """Neither imports it; only drawing does, and says what to install where it is missing."""
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "import linepicker, linepicker.simulate, linepicker.cli\n"
        "from linepicker.simulate import picture, score\n"
        "try: picture.save({}, 'x.png')\n"
        "except picture.MissingExtra as error: print(error)\n"
        "print([name for name in sys.modules if name.startswith('matplotlib.')])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "pictures are drawn with matplotlib: pip install 'linepicker[sim]'",
        "['matplotlib.figure']",
    ]
