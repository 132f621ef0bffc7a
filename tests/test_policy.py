"""The policy: its defaults, its bounds, its TOML, and what it says of one line."""

import copy
import inspect
import math
import pickle
import re
import tomllib
from types import MappingProxyType

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linepicker import policy as module
from linepicker.errors import PolicyError
from linepicker.model import Line
from linepicker.policy import Health, Limits, Overrides, Pace, Policy

DEFAULTS = """
prefer = "healthiest"
on_store_error = "refuse"
store_outage = 900.0
[limits]
new_per_day = 50
new_per_hour = 15
messages_per_day = 7000
pair_per_minute = 30
moves_per_day = 20
[pace]
new_gap = 20.0
new_burst = 5
message_gap = 1.0
message_burst = 20
max_delay = 300.0
spread = 0.35
[at_risk]
weight = 0.25
budget = 0.5
pace = 0.5
[warmup]
start = 10
factor = 2.0
trust_first_snapshot = true
[health]
ttl = 60.0
max_age = 900.0
on_stale = "slow"
max_age_hard = 21600.0
[recovery]
confirmations = 2
share = 0.25
ineligible = 86400.0
[stickiness]
on_critical = "hold"
on_flagged = "move"
on_released = "move"
continuation = ""
return_home = "off"
mid_conversation = 86400.0
[conversation]
chat_health = "enforce"
at_risk_gap = 3600.0
unanswered = "shadow"
unanswered_after = 3
[failures]
mode = "enforce"
streak = 5
share = 0.3
sample = 20
window = 3600.0
time_out = 300.0
growth = 2.0
longest = 21600.0
[learn]
enabled = true
budgets = true
floor = 5
cut_at_risk = 0.85
cut_critical = 0.5
growth = 0.05
used = 0.6
hold = 86400.0
lag = 10800.0
near = 0.9
relax = 0.01
fleet = true
jump = 2.5
profile = true
nearness = true
warn = 0.9
reply_rate = 0.15
reply_sample = 20
[affinity]
area_code = 1.0
[priority]
urgent_share = 0.0
[quiet]
hours = "off"
zone = "UTC"
by_number = false
"""

MOST = 10**12
CLASSES = [getattr(module, name) for name in module.__all__]
SECTIONS = {
    name: type(value)
    for name, value in attrs.asdict(Policy(), recurse=False).items()
    if attrs.has(type(value))
}

counts = st.integers(1, MOST)
limits = counts | st.just("off") | st.none()
shares = st.floats(0, 1, exclude_min=True)
seconds = st.floats(0, MOST, exclude_min=True) | counts
seconds_or_zero = st.floats(0, MOST) | st.integers(0, MOST)
sticky = st.sampled_from(["hold", "move"])
modes = st.sampled_from(["off", "shadow", "enforce"])
times = st.times().map("{:%H:%M}".format)
windows = st.tuples(times, times).filter(lambda each: each[0] != each[1]).map("-".join)
zones = st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Chatham"])
limit_tables = st.fixed_dictionaries({}, optional=dict.fromkeys(attrs.fields_dict(Limits), limits))
overrides = st.fixed_dictionaries({}, optional={"limits": limit_tables})
line_numbers = st.from_regex(r"\+[0-9]{7,15}", fullmatch=True)
tag_names = st.text(min_size=1, max_size=12)


def table(**fields):
    """A strategy for one TOML table, any of whose *fields* may be left out."""
    return st.fixed_dictionaries({}, optional=fields)


ages = st.lists(seconds, min_size=3, max_size=3).map(sorted)
health_tables = ages.flatmap(
    lambda each: st.fixed_dictionaries(
        {"ttl": st.just(each[0]), "max_age": st.just(each[1]), "max_age_hard": st.just(each[2])},
        optional={"on_stale": st.sampled_from(["slow", "refuse"])},
    )
)
policies = table(
    prefer=st.sampled_from(["healthiest", "weighted"]),
    default_region=st.none() | st.from_regex("[A-Z]{2}", fullmatch=True),
    on_store_error=st.sampled_from(["refuse", "known_only"]),
    store_outage=seconds,
    limits=limit_tables,
    pace=table(
        new_gap=seconds_or_zero,
        new_burst=counts,
        message_gap=seconds_or_zero,
        message_burst=counts,
        max_delay=seconds_or_zero,
        spread=shares | st.just("off"),
    ),
    at_risk=table(weight=shares, budget=shares, pace=shares),
    warmup=table(start=counts, factor=st.floats(1, MOST), trust_first_snapshot=st.booleans()),
    health=health_tables,
    recovery=table(confirmations=counts, share=shares, ineligible=seconds),
    stickiness=table(
        on_critical=sticky,
        on_flagged=sticky,
        on_released=sticky,
        continuation=st.text(max_size=30),
        return_home=seconds | st.just("off"),
        mid_conversation=seconds_or_zero,
    ),
    conversation=table(
        chat_health=modes,
        at_risk_gap=seconds_or_zero,
        unanswered=modes,
        unanswered_after=counts,
    ),
    failures=st.tuples(seconds, seconds).map(
        lambda each: {"time_out": min(each), "longest": max(each)}
    ),
    learn=table(
        **dict.fromkeys(("enabled", "budgets", "fleet"), st.booleans()),
        **dict.fromkeys(("cut_at_risk", "cut_critical", "growth", "used", "near"), shares),
        **dict.fromkeys(("hold", "lag"), seconds_or_zero),
        **dict.fromkeys(("relax", "reply_rate"), st.floats(0, 1)),
        floor=counts,
        jump=st.floats(1, 1e6) | st.just("off"),
        reply_sample=counts,
    ),
    affinity=table(area_code=shares),
    priority=table(urgent_share=st.just(0) | st.floats(0.001, 0.5)),
    quiet=table(
        hours=windows | st.just("off") | st.none(),
        zone=zones,
        by_number=st.booleans(),
        prefix=st.dictionaries(
            st.from_regex(r"\+[1-9][0-9]{0,14}", fullmatch=True),
            table(hours=windows | st.just("off"), zone=zones),
            max_size=3,
        ),
    ),
    line=st.dictionaries(line_numbers, overrides, max_size=3),
    tag=st.dictionaries(tag_names, overrides, max_size=3),
)


def test_the_defaults_are_the_documented_ones():
    """`Policy()` is what the documented TOML says, name by name and value by value."""
    assert tomllib.loads(Policy().to_toml()) == tomllib.loads(DEFAULTS)
    assert Policy() == Policy.from_dict(tomllib.loads(DEFAULTS)) == Policy.from_dict({})


@given(policies)
def test_toml_gives_an_equal_policy_back(tables):
    """Written as TOML and read again, a policy is equal to itself, down to the text."""
    policy = Policy.from_dict(tables)
    text = policy.to_toml()
    again = Policy.from_dict(tomllib.loads(text))
    assert again == policy
    assert hash(again) == hash(policy)
    assert again.to_toml() == text


@given(policies)
def test_a_policy_survives_copies_and_pickles(tables):
    """Another process gets an equal policy, and so does whoever copies one."""
    policy = Policy.from_dict(tables)
    assert (
        pickle.loads(pickle.dumps(policy)) == copy.deepcopy(policy) == copy.copy(policy) == policy
    )
    for each in [*policy.line.values(), *policy.tag.values()]:
        assert pickle.loads(pickle.dumps(each)) == copy.deepcopy(each) == each


@given(policies)
def test_evolving_keeps_the_rest(tables):
    """`attrs.evolve` changes what it is told, at both levels, and nothing else."""
    policy = Policy.from_dict(tables)
    assert attrs.evolve(policy) == policy
    stricter = attrs.evolve(policy, limits=attrs.evolve(policy.limits, new_per_day=1))
    assert stricter.limits.new_per_day == 1
    assert attrs.evolve(stricter, limits=policy.limits) == policy


def test_a_file_is_read(tmp_path):
    """A policy is read from a path, given as text or not."""
    path = tmp_path / "policy.toml"
    path.write_text('prefer = "weighted"\n[limits]\nnew_per_day = "off"\n', encoding="utf-8")
    expected = Policy(prefer="weighted", limits={"new_per_day": None})
    assert Policy.from_toml(path) == Policy.from_toml(str(path)) == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "can't be read"),
        (b"[limits\n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"[pace]\nspread = 2\n", "pace.spread must be above 0"),
        (b"[pace]\nspred = 1\n", "pace.spread"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b"[limits]\nnew_per_day = " + b"9" * 5000, "is not TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, problem):
    """Missing, broken, or with a wrong value: the error names the file and the problem."""
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        Policy.from_toml(path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


def test_a_directory_is_no_policy(tmp_path):
    """A path that can't be read as a file is named, too."""
    with pytest.raises(PolicyError, match="can't be read"):
        Policy.from_toml(tmp_path)


NOT_COUNTS = [0, -1, 1.0, 1.5, "5", True, math.nan, MOST + 1, 10**400, [], {}]
NOT_SHARES = [0, -0.1, 1.01, 2, True, "0.5", math.nan, math.inf, -math.inf, [1]]
NOT_SECONDS = [-1, -0.1, True, "60", math.nan, math.inf, 10**13, 10**400, None]
NOT_STICKY = ["Hold", "stay", "", True, None, 1, ["hold"]]
WRONG = [
    *(
        ("limits", name, value)
        for name in attrs.fields_dict(Limits)
        for value in [*NOT_COUNTS, "OFF"]
    ),
    *(
        ("pace", name, value)
        for name in ("new_gap", "message_gap", "max_delay")
        for value in NOT_SECONDS
    ),
    *(("pace", name, v) for name in ("new_burst", "message_burst") for v in [*NOT_COUNTS, None]),
    *(("pace", "spread", value) for value in NOT_SHARES),
    *(("at_risk", name, v) for name in ("weight", "budget", "pace") for v in [*NOT_SHARES, None]),
    *(("warmup", "start", value) for value in [*NOT_COUNTS, "off"]),
    *(
        ("warmup", "factor", value)
        for value in [0.99, 0, -1, True, "2", math.nan, math.inf, 10**13]
    ),
    *(("warmup", "trust_first_snapshot", value) for value in (0, 1, "true", None)),
    *(
        ("health", name, v)
        for name in ("ttl", "max_age", "max_age_hard")
        for v in [0, *NOT_SECONDS]
    ),
    *(("health", "on_stale", value) for value in ("Slow", "hold", None, 1)),
    *(("recovery", "confirmations", value) for value in [*NOT_COUNTS, None]),
    *(("recovery", "share", value) for value in NOT_SHARES),
    *(("recovery", "ineligible", value) for value in [0, *NOT_SECONDS]),
    *(
        ("stickiness", name, value)
        for name in ("on_critical", "on_flagged", "on_released")
        for value in NOT_STICKY
    ),
    *(
        ("learn", name, value)
        for name in ("enabled", "budgets", "fleet")
        for value in (0, 1, "yes", None)
    ),
    *(
        ("learn", name, value)
        for name in ("reply_rate", "relax")
        for value in [-0.1, 1.1, True, "0", math.nan, None]
    ),
    *(
        ("learn", name, value)
        for name in ("reply_sample", "floor")
        for value in [*NOT_COUNTS, None]
    ),
    *(
        ("learn", name, value)
        for name in ("cut_at_risk", "cut_critical", "growth", "used", "near")
        for value in NOT_SHARES
    ),
    *(("learn", name, value) for name in ("hold", "lag") for value in NOT_SECONDS),
    *(("learn", "jump", value) for value in [0.9, 0, -1, True, "2", math.nan, math.inf]),
    *(("affinity", "area_code", value) for value in NOT_SHARES),
    *(("priority", "urgent_share", value) for value in (-0.1, 0.0001, 0.51, 1, True, "0", None)),
    *(
        ("quiet", "hours", value)
        for value in ("21-8", "21:00", "24:00-08:00", "08:00-08:00", "9:00-10:00", "21:00-08:60", 1)
    ),
    *(("quiet", "zone", value) for value in ("", "Mars/Base", "/etc/passwd", "..", 5, None)),
    *(("quiet", "by_number", value) for value in (0, 1, "yes", None)),
    *(("", "prefer", value) for value in ("Healthiest", "", None, 1, ["weighted"])),
    *(("", "default_region", value) for value in ("us", "USA", "", "U1", 1, ["US"], "ÀÉ")),
]


@pytest.mark.parametrize(("section", "name", "value"), WRONG, ids=lambda value: ascii(value)[:24])
def test_a_wrong_value_is_named_by_its_place(section, name, value):
    """Whatever is out of bounds or of another type is refused, with its dotted name and in few words, however it comes."""
    place = f"{section}.{name}" if section else name
    tables = {section: {name: value}} if section else {name: value}
    doors = [lambda: Policy.from_dict(tables), lambda: Policy(**tables)]
    if section:
        doors.append(lambda: SECTIONS[section](**{name: value}))
    for door in doors:
        with pytest.raises(PolicyError) as caught:
            door()
        assert str(caught.value).startswith(f"{place} must be ")
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("cls", [Policy, *SECTIONS.values()])
def test_tunables_are_given_by_name(cls):
    """No section takes a tunable by its position, so that new ones may come anywhere."""
    with pytest.raises(TypeError):
        cls(1)


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        (3, "quiet.prefix must be a table"),
        ({"1212": {}}, 'quiet.prefix."1212" must be named by how numbers begin, as in +1212'),
        ({"+": {}}, "must be named by how numbers begin"),
        ({"+0": {}}, "must be named by how numbers begin"),
        ({4: {}}, "quiet.prefix.4 must be named by"),
        ({"+44": 3}, 'quiet.prefix."+44" must be a table of hours and zone, got 3'),
        ({"+44": {"zones": "UTC"}}, 'quiet.prefix."+44" must be a table of hours and zone'),
        ({"+44": {"zone": "Mars"}}, 'quiet.prefix."+44": quiet_prefix.zone must be a time zone'),
        ({"+44": {"hours": "8-9"}}, 'quiet.prefix."+44": quiet_prefix.hours must be a window'),
    ],
)
def test_a_wrong_prefix_is_named(prefix, problem):
    """What is wrong with the quiet hours of one prefix is said with the prefix."""
    with pytest.raises(PolicyError, match=re.escape(problem)) as caught:
        Policy(quiet={"prefix": prefix})
    assert len(str(caught.value)) < 220


def test_a_quiet_prefix_may_be_given_as_one():
    """A prefix's entry is a table or a QuietPrefix."""
    given = module.QuietPrefix(zone="Europe/London")
    assert Policy(quiet={"prefix": {"+44": given}}) == Policy(
        quiet={"prefix": {"+44": {"zone": "Europe/London"}}}
    )


def test_bounds_belong_to_the_range():
    """The least and the most of each range are allowed."""
    assert Policy(limits={"new_per_day": 1, "new_per_hour": MOST}).limits.new_per_hour == MOST
    assert Policy(pace={"new_gap": 0, "message_gap": MOST, "spread": 1}).pace.message_gap == MOST
    assert Policy(recovery={"ineligible": MOST}, warmup={"factor": 1}).warmup.factor == 1
    assert Policy(warmup={"factor": MOST}, at_risk={"weight": 1}).warmup.factor == MOST
    assert Policy(learn={"reply_rate": 0}).learn.reply_rate == 0
    assert Policy(learn={"reply_rate": 1}).learn.reply_rate == 1


def test_a_message_says_what_to_write_and_what_was_written():
    """An error holds the place, the bounds and the value."""
    for tables, message in [
        ({"pace": {"spread": 2}}, 'pace.spread must be above 0 and at most 1, or "off", got 2'),
        ({"learn": {"reply_rate": 2}}, "learn.reply_rate must be from 0 to 1, got 2"),
        ({"warmup": {"factor": 0}}, f"warmup.factor must be from 1 to {MOST:,}, got 0"),
        ({"pace": {"new_gap": -1}}, f"pace.new_gap must be from 0 to {MOST:,}, in seconds, got -1"),
        (
            {"limits": {"new_per_day": 0}},
            f'limits.new_per_day must be a whole number from 1 to {MOST:,}, or "off", got 0',
        ),
        (
            {"stickiness": {"on_flagged": "stay"}},
            'stickiness.on_flagged must be "hold" or "move", got \'stay\'',
        ),
    ]:
        with pytest.raises(PolicyError, match=rf"^{re.escape(message)}$"):
            Policy.from_dict(tables)


def test_a_number_too_long_to_write_is_refused_all_the_same():
    """A number that Python itself would not print is refused like any other."""
    with pytest.raises(PolicyError, match="got a number of 16610 bits"):
        Policy(limits={"new_per_day": 10**5000})


@pytest.mark.parametrize(
    ("health", "problem"),
    [
        ({"ttl": 1000}, "health.max_age must be at least health.ttl (1000), got 900.0"),
        ({"max_age": 30}, "health.max_age must be at least health.ttl (60.0), got 30"),
        (
            {"max_age_hard": 600},
            "health.max_age_hard must be at least health.max_age (900.0), got 600",
        ),
    ],
)
def test_ages_stand_in_order(health, problem):
    """A list is fresh, then stale, then refused: ttl, max_age, max_age_hard in this order, equal at most."""
    with pytest.raises(PolicyError, match=re.escape(problem)):
        Policy(health=health)
    assert Health(ttl=5, max_age=5, max_age_hard=5).max_age == 5


@pytest.mark.parametrize(
    ("tables", "wrong", "nearest"),
    [
        ({"pace": {"spred": 0.5}}, "pace.spred", "pace.spread"),
        ({"limits": {"new_per_dya": 5}}, "limits.new_per_dya", "limits.new_per_day"),
        ({"pace": {"new_per_day": 5}}, "pace.new_per_day", "limits.new_per_day"),
        ({"new_per_hour": 5}, "new_per_hour", "limits.new_per_hour"),
        ({"limit": {}}, "limit", "limits"),
        ({"atrisk": {}}, "atrisk", "at_risk"),
        ({"tags": {}}, "tags", "tag"),
        ({"tag": {"vip": {"limits": {"moves": 5}}}}, "limits.moves", "limits.moves_per_day"),
        ({"tag": {"vip": {"limit": {}}}}, "limit", "limits"),
        ({3: 4}, "3", ""),
        ({"x" * 1_000_000: 4}, "xxx", ""),
        ({10**5000: 4}, "a number of", ""),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(tables, wrong, nearest):
    """A misspelt or misplaced name is an error that says which was meant, never something ignored."""
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tables)
    message = str(caught.value)
    assert f"{wrong}" in message
    assert re.search(rf"is not a name of the policy; the nearest is {nearest}[a-z_.]*$", message)
    assert not nearest or message.endswith(f" {nearest}")
    assert len(message) < 200


@pytest.mark.parametrize("value", [None, 3, "limits", [], [("new_per_day", 5)], Pace()])
@pytest.mark.parametrize("name", [*SECTIONS, "line", "tag"])
def test_a_section_is_a_table(name, value):
    """A section is its own class or a dict, and nothing else."""
    if isinstance(value, SECTIONS.get(name, ())):
        value = 3
    with pytest.raises(PolicyError, match=rf"^{name} must be a table"):
        Policy.from_dict({name: value})


@pytest.mark.parametrize("value", [None, 3, "prefer", [], Limits()])
def test_a_policy_is_a_table(value):
    """Only a mapping is read as a policy."""
    with pytest.raises(PolicyError, match="must be a table"):
        Policy.from_dict(value)


def test_a_dict_stands_for_a_section():
    """A dict in a section's place is that section, with defaults for what it leaves out."""
    assert Policy(limits={"new_per_day": 10}) == Policy(limits=Limits(new_per_day=10))
    assert Policy(pace=MappingProxyType({"spread": "off"})).pace.spread is None
    assert Policy(limits={"moves_per_day": "off"}).limits.moves_per_day is None


@pytest.mark.parametrize("section", ["line", "tag"])
def test_nothing_in_a_policy_changes(section):
    """A policy, its sections and its tables are frozen, and keep nothing of the dicts they were made from."""
    name = "+15550000001" if section == "line" else "vip"
    given = {name: {"limits": {"new_per_day": 5}}}
    policy = Policy(**{section: given})
    given[name]["limits"]["new_per_day"] = 6
    given["another"] = {}
    overrides = getattr(policy, section)
    assert dict(overrides) == {name: Overrides({"new_per_day": 5})}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.prefer = "weighted"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.limits.new_per_day = 6
    with pytest.raises(TypeError):
        overrides["another"] = Overrides({})
    with pytest.raises(TypeError):
        overrides[name].limits["new_per_day"] = 6


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"line": {"5550000001": {}}}, 'line."5550000001" must be named by an E.164 number'),
        ({"line": {"": {}}}, 'line."" must be named'),
        ({"line": {3: {}}}, "line.3 must be named"),
        ({"line": {"+15550000001": 3}}, 'line."+15550000001": what is given must be a table'),
        ({"line": {"+15550000001": {"limits": 3}}}, 'line."+15550000001": limits must be a table'),
        (
            {"line": {"+15550000001": {"limits": {"new_per_day": 0}}}},
            'line."+15550000001": limits.new_per_day must be',
        ),
        ({"tag": {"": {}}}, 'tag."" must be named'),
        (
            {"tag": {"vip": {"limits": {"moves_per_day": 1.5}}}},
            'tag."vip": limits.moves_per_day must be',
        ),
        ({"tag": {"x" * 1_000_000: 3}}, 'tag."xxx'),
        ({"line": {"x" * 1_000_000: {}}}, 'line."xxx'),
    ],
)
def test_a_wrong_override_is_named_by_its_line_or_tag(tables, problem):
    """What is said of one line or tag is checked as what is said of all, and the error names which."""
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tables)
    assert str(caught.value).startswith(problem)
    assert len(str(caught.value)) < 300


NUMBERS = ["+15550000001", "+15550000002"]
TAGS = ["a", "b", "c"]


def smallest(values):
    """The strictest of limits, where None is none at all."""
    return min(values, key=lambda value: math.inf if value is None else value)


@given(
    limit_tables,
    st.dictionaries(st.sampled_from(NUMBERS), limit_tables),
    st.dictionaries(st.sampled_from(TAGS), limit_tables),
    st.sampled_from(NUMBERS),
    st.sets(st.sampled_from(TAGS)),
)
@example({}, {}, {"a": {"new_per_day": "off"}}, NUMBERS[0], {"a"})
@example({}, {NUMBERS[0]: {"new_per_day": "off"}}, {"a": {"new_per_day": 1}}, NUMBERS[0], {"a"})
@example({}, {}, {"a": {"new_per_day": "off"}, "b": {"new_per_day": 90}}, NUMBERS[0], {"a", "b"})
def test_the_line_comes_before_its_tags_and_they_before_the_policy(
    base, by_line, by_tag, number, tags
):
    """Limit by limit: the line's own, else the smallest of its tags', else the policy's, each possibly "off"."""
    policy = Policy(
        limits=base,
        line={name: {"limits": each} for name, each in by_line.items()},
        tag={name: {"limits": each} for name, each in by_tag.items()},
    )
    got = policy.limits_for(Line(number, tags=tags))
    for name in attrs.fields_dict(Limits):
        of_tags = [by_tag[tag][name] for tag in tags if name in by_tag.get(tag, {})]
        if name in by_line.get(number, {}):
            expected = by_line[number][name]
        elif of_tags:
            expected = smallest(None if each == "off" else each for each in of_tags)
        else:
            expected = getattr(policy.limits, name)
        assert getattr(got, name) == (None if expected == "off" else expected)


def test_a_line_that_nothing_is_said_of_has_the_policys_limits():
    """Where nothing differs the policy's own limits are given, not a copy."""
    policy = Policy(tag={"vip": {"limits": {"new_per_day": 5}}})
    assert policy.limits_for(Line(NUMBERS[0])) is policy.limits
    assert policy.limits_for(Line(NUMBERS[0], tags={"other"})) is policy.limits


def test_whole_limits_may_stand_for_a_line():
    """A `Limits` given for a line or a tag says all of them."""
    policy = Policy(line={NUMBERS[0]: {"limits": Limits(new_per_day=5, moves_per_day=None)}})
    assert policy.limits_for(Line(NUMBERS[0])) == Limits(new_per_day=5, moves_per_day=None)
    assert set(policy.line[NUMBERS[0]].limits) == set(attrs.fields_dict(Limits))


def documented(cls):
    """What the docstring of *cls* says of its fields: name to (meaning, source)."""
    _, _, body = inspect.getdoc(cls).partition("\nAttributes:\n")
    entries = re.findall(r"^    (\w+): ((?:.+\n?)(?:        .*\n?)*)", body, flags=re.MULTILINE)
    said = {}
    for name, text in entries:
        meaning, _, source = " ".join(text.split()).partition(" Source: ")
        said[name] = (meaning, source)
    return said


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_tunable_has_its_meaning_and_its_source(cls):
    """The docstring of each section says of each field, in order, what it means and where its default is from."""
    said = documented(cls)
    assert list(said) == [each.name for each in attrs.fields(cls)]
    for name, (meaning, source) in said.items():
        assert re.fullmatch(r"\S.*[.,;a-z\"')0-9]", meaning), name
        assert source.endswith("."), name


def test_an_undocumented_tunable_would_be_noticed():
    """The reader of docstrings finds what is there, and misses what is not."""

    @attrs.frozen
    class Example:
        """An example.

        Attributes:
            one: of two,
                over two lines. Source: ours.
        """

        one: int = 1
        two: int = 2

    assert documented(Example) == {"one": ("of two, over two lines.", "ours.")}


def test_values_are_plain():
    """On the hot path a policy is attribute reads: every value is an int, a float, a bool, a str or None."""
    for section in SECTIONS:
        for value in attrs.astuple(getattr(Policy(), section), recurse=False):
            if isinstance(value, MappingProxyType):
                continue
            assert type(value) in (int, float, bool, str, type(None))
