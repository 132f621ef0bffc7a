"""Handles: one form, one key and one mask for each set of people."""

import re
import string
import subprocess
import sys
from itertools import count, repeat

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linepicker.errors import InvalidRecipient, PolicyError
from linepicker.recipients import MAX_GROUP, area_code, mask, mask_all, parse

numbers = st.from_regex(r"\+[0-9]{7,15}", fullmatch=True)
emails = st.from_regex(r"[a-z0-9.+_-]{1,20}@([a-z0-9]{1,10}\.){1,3}[a-z]{2,6}", fullmatch=True)
handles = numbers | emails
groups = st.lists(handles, min_size=2, max_size=MAX_GROUP, unique=True)

HOSTILE = [
    "",
    "   ",
    "\0",
    "+1555123\x004567",
    "+1555123\n4567",
    "\u202e+15551234567",
    "+1555123456\u0667",
    "\uff0b15551234567",
    "+\uff11\uff15\uff15\uff15\uff11\uff12\uff13\uff14\uff15\uff16\uff17",
    "\ud800",
    "+",
    "+123456",
    "+1234567890123456",
    "+1 555 123 4567 ext 8",
    "+1-800-FLOWERS",
    "++15551234567",
    "+44 (0)20 7946 0958",
    "tel:+15551234567",
    "5551234567",
    "(555) 123-4567",
    "12345",
    "@",
    "a@",
    "@example.com",
    "a@b",
    "a@b@example.com",
    "a b@example.com",
    "a,b@example.com",
    "a;b@example.com",
    "<a@example.com>",
    '"a"@example.com',
    "a@example..com",
    "a@.example.com",
    "a@example.com.",
    "a@-example.com",
    "a@127.0.0.1",
    "\u0430@example.com",
    "a@ex\u0430mple.com",
    "a@" + "b" * 64 + ".com",
    "a" * 250 + "@example.com",
    "https://example.com/@a",
    "+1" * 500_000,
    "a" * 1_000_000,
    "@" * 1_000_000,
    "a@" + "b." * 500_000,
    " " * 1_000_000,
]


@given(numbers)
def test_an_e164_number_is_itself(number):
    """A number that is E.164 already is its own form and its own key."""
    recipient = parse(number)
    assert recipient.to == number
    assert recipient.key == number
    assert recipient.handles == (number,)
    assert not recipient.is_group


@given(numbers, st.data())
def test_decoration_after_the_plus_does_not_matter(number, data):
    """Spaces, dots, dashes and brackets after the '+', and whitespace around, name the same recipient."""
    decorated = "".join(
        digit + data.draw(st.text(" .-()[]", max_size=2)) for digit in number
    ).replace("(0)", "0")
    assert parse(f"\t {decorated} \n") == parse(number)


@given(emails)
def test_an_email_is_lower_case(email):
    """The case of an email does not matter, nor does whitespace around it."""
    assert parse(f" {email.upper()} ").to == email


@given(groups, st.randoms(use_true_random=False))
def test_a_group_is_a_set(group, chance):
    """Neither order nor repetition nor the kind of iterable makes another group."""
    shuffled = [*group, *group]
    chance.shuffle(shuffled)
    recipient = parse(group)
    for same in (
        shuffled,
        tuple(shuffled),
        set(group),
        iter(shuffled),
        (each for each in shuffled),
    ):
        again = parse(same)
        assert again == recipient
        assert again.key == recipient.key
        assert hash(again) == hash(recipient)
    assert recipient.is_group
    assert recipient.to == tuple(sorted(group))


@given(handles)
def test_one_distinct_handle_is_never_a_group(handle):
    """A group of one person, however often named, is that person."""
    for same in ([handle], (handle, handle), {handle}, iter([f" {handle}", handle])):
        recipient = parse(same)
        assert recipient == parse(handle)
        assert recipient.key == recipient.to == handle


@given(
    st.lists(handles, min_size=1, max_size=4, unique=True),
    st.lists(handles, min_size=1, max_size=4, unique=True),
)
def test_two_sets_never_share_a_key(one, other):
    """Keys are equal where the sets are, and nowhere else."""
    assert (parse(one).key == parse(other).key) == (set(one) == set(other))


@given(st.lists(handles, min_size=1, max_size=MAX_GROUP, unique=True))
def test_a_key_gives_the_handles_back(group):
    """Nothing is lost in a key: cut at its commas it is the sorted set, so no two sets can share one."""
    assert parse(group).key.split(",") == sorted(group)


@given(handles | groups)
def test_what_was_parsed_parses_to_itself(to):
    """Normalising twice changes nothing."""
    recipient = parse(to)
    assert parse(recipient.to) == recipient


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:24]))
def test_a_hostile_handle_is_refused_in_few_words(text):
    """What is no handle is refused alone and in a group, with a short message that doesn't repeat it."""
    for to in (text, [text], ["+15551234567", text]):
        with pytest.raises(InvalidRecipient) as caught:
            parse(to)
        message = str(caught.value)
        assert len(message) < 200
        assert message.isprintable()
        assert "5551234567" not in message
        assert "example" not in message


@pytest.mark.parametrize(
    "to", [None, 15551234567, 1.5, b"+15551234567", bytearray(b"a@b.co"), object(), True]
)
def test_a_wrong_type_is_refused_by_its_name(to):
    """Whatever is neither text nor an iterable of text is refused, and the message names its type."""
    with pytest.raises(InvalidRecipient, match=type(to).__name__):
        parse(to)


@pytest.mark.parametrize("entry", [None, 15551234567, b"a@b.co", ["a@b.co"], ("a@b.co",)])
def test_a_group_of_other_things_is_refused(entry):
    """A group's entries are text: nothing nested, no bytes, no numbers; the message says which entry is wrong."""
    with pytest.raises(InvalidRecipient, match=rf"entry 2 .*{type(entry).__name__}"):
        parse(["+15551234567", entry])


def test_an_empty_group_is_refused():
    """There is nobody in an empty list."""
    with pytest.raises(InvalidRecipient, match="at least one"):
        parse([])


def test_a_group_has_at_most_31_handles():
    """31 distinct handles are a group, 32 are too many."""
    people = [f"+1555000{n:04}" for n in range(MAX_GROUP + 1)]
    assert len(parse(people[:MAX_GROUP]).handles) == MAX_GROUP == 31
    with pytest.raises(InvalidRecipient, match="at most 31"):
        parse(people)


@pytest.mark.parametrize(
    "endless", [repeat("+15551234567"), (f"+1555{n:07}" for n in count())], ids=["same", "new"]
)
def test_an_endless_group_is_refused(endless):
    """An iterable that never ends is refused after a bounded number of entries."""
    with pytest.raises(InvalidRecipient, match="at most 31"):
        parse(endless)


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("(415) 555-0100", "US", "+14155550100"),
        ("415.555.0100", "US", "+14155550100"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("011 44 20 7946 0958", "US", "+442079460958"),
        ("06 12 34 56 78", "FR", "+33612345678"),
    ],
)
def test_a_national_number_needs_a_region(text, region, number):
    """With a default region, numbers are read as they are dialled there; without one they are refused."""
    assert parse(text, default_region=region).to == number
    assert parse([text, number], default_region=region).to == number
    with pytest.raises(InvalidRecipient, match="default_region"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["12345", "555-0100", "1-800-FLOWERS", "415 555 0100 x5", "tel:415-555-0100"]
)
def test_a_region_does_not_make_everything_a_number(text):
    """Short codes, local numbers, words, extensions and URIs stay refused."""
    with pytest.raises(InvalidRecipient):
        parse(text, default_region="US")


@given(handles)
def test_a_region_does_not_touch_other_handles(handle):
    """E.164 and emails mean the same under any default region."""
    assert parse(handle, default_region="DE") == parse(handle)


@pytest.mark.parametrize("region", ["ZZ", "us", "", "U" * 1000])
def test_an_unknown_region_is_the_policys_fault(region):
    """A default region that is none is a `PolicyError`, in few words."""
    with pytest.raises(PolicyError, match="default_region") as caught:
        parse("415 555 0100", default_region=region)
    assert len(str(caught.value)) < 100


def test_without_the_package_a_region_says_what_to_install():
    """The telephone package is optional: without it only national numbers fail, and the error is the fix."""
    script = (
        "import sys; sys.modules['phonenumbers'] = None\n"
        "from linepicker.recipients import parse\n"
        "assert parse('+14155550100', default_region='US').to == '+14155550100'\n"
        "try: parse('415 555 0100', default_region='US')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("PolicyError")
    assert "pip install 'linepicker[phone]'" in said.stdout


@pytest.mark.parametrize(
    ("handle", "masked"),
    [
        ("+15551234123", "+1•••••••123"),
        ("+442079460958", "+4••••••••958"),
        ("+1234567", "+1•••567"),
        ("anna@example.com", "a•••@•••.com"),
        ("a@b.co.uk", "a•••@•••.uk"),
        ("5551234567", "•••"),
        ("+1 555 123 4567", "•••"),
        ("Anna Smith", "•••"),
        ("", "•••"),
        (None, "•••"),
        (b"+15551234123", "•••"),
    ],
)
def test_a_mask_shows_just_enough(handle, masked):
    """A number keeps '+', its first and its last three digits; an email its first letter and its last label."""
    assert mask(handle) == masked


@given(st.text() | st.binary() | st.none() | st.integers() | handles)
@example("+1" * 500_000)
@example("a@" + "b." * 500_000 + "com")
@example("\ud800")
def test_a_mask_is_total_and_short(handle):
    """Anything has a mask of at most 72 characters, and masking never raises."""
    masked = mask(handle)
    assert len(masked) <= 72
    assert "•" in masked
    assert re.fullmatch(r"\+\d•+\d{3}|.•••@•••\.[a-z0-9-]+|•••", masked)


@given(handles | groups)
def test_nothing_that_is_shown_holds_a_handle(to):
    """Neither the repr of a recipient nor its mask contains a handle."""
    recipient = parse(to)
    for shown in (repr(recipient), str(recipient), recipient.masked, mask_all(to)):
        assert not any(handle in shown for handle in recipient.handles)


@given(groups)
def test_a_groups_mask_is_one_per_person(group):
    """A group shows as its masks, separated by commas."""
    recipient = parse(group)
    assert recipient.masked == ", ".join(mask(handle) for handle in recipient.handles)


def test_an_email_has_at_most_254_characters():
    """The longest email there may be is accepted, one more character is not."""
    email = f"{'a' * 242}@example.com"
    assert len(parse(email).to) == 254
    with pytest.raises(InvalidRecipient, match="254"):
        parse(f"a{email}")


def test_the_largest_group_is_shown_whole():
    """31 handles show as 31 masks, with nothing left out."""
    people = [f"+1555000{n:04}" for n in range(MAX_GROUP)]
    assert parse(people).masked == ", ".join(mask(each) for each in people)


def test_a_crowd_is_cut_short():
    """Masking an endless iterable ends, and says that more follows."""
    masked = mask_all(repeat("+15551234123"))
    assert masked == ", ".join(["+1•••••••123"] * MAX_GROUP + ["…"])


@pytest.mark.parametrize("to", [None, 3, b"abc", object()])
def test_what_is_no_recipient_has_a_mask_too(to):
    """Masking a recipient of a wrong type hides it."""
    assert mask_all(to) == "•••"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("+14155550100", "415"),
        ("+15551234567", "555"),
        ("+442079460958", None),
        ("+1415555010", None),
        ("+141555501000", None),
        ("+1ab@cdef.com", None),
        ("anna@example.com", None),
    ],
)
def test_an_area_code_is_north_american(number, code):
    """Numbers of +1 and ten digits have an area code, other handles none."""
    assert area_code(number) == code


def test_a_recipient_does_not_change():
    """A recipient is frozen."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        parse("+15551234567").handles = ()


@given(st.text(string.printable, max_size=40))
@example("+1 (555) 123-4567")
def test_any_text_is_a_recipient_or_refused(text):
    """Parsing either gives a handle of ASCII without commas or spaces, or raises `InvalidRecipient`, nothing else."""
    try:
        recipient = parse(text)
    except InvalidRecipient:
        return
    assert re.fullmatch(r"[!-~]+", recipient.key)
    assert "," not in recipient.key
