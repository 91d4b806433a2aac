"""Laws of ca/audit.py: what we record is what we read, nothing else is an event, no change to the log goes unseen."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import audit
from ca.audit import GENESIS, AuditError, Entry, append, chain, line, moment, parse, record, text, verify_chain, visible

NOW = datetime(2026, 11, 23, 12, 0, 0, 42, tzinfo=UTC)

odd = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["a\x1b[2J", "\u202e", "\x00", "é😀"]
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """What a field of this type may hold."""
    if get_origin(kind) is tuple:
        return st.lists(values(get_args(kind)[0]), max_size=3).map(tuple)
    if get_args(kind)[-1:] == (type(None),):
        return st.none() | values(get_args(kind)[0])
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(0, (1 << 63) - 1)
    if kind == audit.Digest:
        return st.text("0123456789abcdef", min_size=64, max_size=64)
    if kind == audit.Moment:
        return st.datetimes(timezones=st.just(UTC)).map(moment)
    if kind in (audit.Word, audit.Text, audit.Path, audit.Command):
        return odd
    return st.dictionaries(odd, values(get_args(kind)[1]), max_size=3)


def some(kind: type[audit.Event]) -> st.SearchStrategy[audit.Event]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{one.name: values(hints[one.name]) for one in fields(kind)})


events = st.sampled_from(sorted(audit.EVENTS)).flatmap(lambda code: some(audit.EVENTS[code]))
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


# --- events ---------------------------------------------------------------------------------------------------


@given(events)
def test_what_we_record_is_what_we_read(event):
    assert parse(event.code, json.loads(json.dumps(record(event)))) == event


@given(st.sampled_from(sorted(audit.EVENTS)) | st.text(), st.dictionaries(st.text(), junk, max_size=4))
def test_anything_is_an_event_or_an_audit_error(code, fields):
    with suppress(AuditError):
        parse(code, fields)


@given(events, junk, st.data())
def test_a_field_with_another_value_is_still_within_its_bounds_or_refused(event, value, data):
    told = record(event)
    if not told:
        return
    told[data.draw(st.sampled_from(sorted(told)))] = value
    try:
        changed = parse(event.code, told)
    except AuditError:
        return
    assert record(changed) == told


@given(events, st.data())
def test_a_missing_or_an_extra_field_is_refused(event, data):
    told = record(event)
    with pytest.raises(AuditError, match="unknown field 'more'"):
        parse(event.code, told | {"more": 1})
    if told:
        told.pop(data.draw(st.sampled_from(sorted(told))))
        with pytest.raises(AuditError, match="is missing"):
            parse(event.code, told)


def told(**changed: object) -> dict[str, object]:
    good: dict[str, object] = {
        "session": "s1",
        "channel": 0,
        "operation": "write",
        "path": "/tmp/x",
        "target": None,
        "size": 3,
        "sha256": "0" * 64,
        "outcome": "ok",
    }
    return good | changed


@pytest.mark.parametrize(
    ("code", "fields", "problem"),
    [
        ("session.fil", told(), "no event has the code 'session.fil'"),
        ("session.file\n", told(), r"no event has the code 'session.file\\n'"),
        ("session.file", told(mode=1), "session.file: unknown field 'mode', expected session, channel"),
        ("session.file", told(channel="0"), "session.file: channel is '0', expected a whole number of at least 0"),
        ("session.file", told(channel=True), "session.file: channel is True, expected a whole number"),
        ("session.file", told(channel=-1), "session.file: channel is -1, expected a whole number"),
        ("session.file", told(channel=1.0), "session.file: channel is a float, expected a whole number"),
        ("session.file", told(channel=None), "session.file: channel is None, expected a whole number"),
        ("session.file", told(size=1 << 63), "session.file: size is 9223372036854775808, expected a whole number"),
        ("session.file", told(path=None), "session.file: path is None, expected text"),
        ("session.file", told(path=["/"]), "session.file: path is a list, expected text"),
        ("session.file", told(path="x" * 4_097), "session.file: path is longer than 4096 characters"),
        ("session.file", told(path="\ud800"), "session.file: path is not Unicode text"),
        ("session.file", told(session="s" * 257), "session.file: session is longer than 256 characters"),
        ("session.file", told(sha256="0" * 63), "session.file: sha256 is '0"),
        ("session.file", told(sha256="A" * 64), "session.file: sha256 is 'A"),
        ("session.file", told(sha256="0" * 64 + "\n"), "session.file: sha256 is '0"),
        (
            "bastion_token.made",
            {"expires": "tomorrow"},
            "bastion_token.made: expires is 'tomorrow', expected the shape",
        ),
        ("user.added", {"user": "a", "roles": "dev"}, "user.added: roles is 'dev', expected a list"),
        ("user.added", {"user": "a", "roles": [1]}, r"user.added: roles\[0\] is 1, expected text"),
        ("user.added", {"user": "a", "roles": ["r"] * 1_001}, "user.added: roles has more than 1000 items"),
        ("user.password_set", {"user": "a", "reset": 1}, "user.password_set: reset is 1, expected true or false"),
    ],
)
def test_what_is_not_exactly_an_event_is_refused_and_told(code, fields, problem):
    with pytest.raises(AuditError, match=problem) as caught:
        parse(code, fields)
    assert caught.value.code == "audit_invalid"


def test_a_bastion_reports_what_only_it_sees():
    assert audit.parse_from_bastion("session.file", told()) == parse("session.file", told())
    for code in sorted(audit.EVENTS.keys() - audit.BASTION_EVENTS):
        with pytest.raises(AuditError, match="a bastion may not report"):
            audit.parse_from_bastion(code, {})
    with pytest.raises(AuditError, match="no event has the code"):
        audit.parse_from_bastion("session.files", {})


def test_every_event_has_a_stable_code_of_its_own_and_says_what_it_means():
    assert len(audit.EVENTS) == len({kind.__name__ for kind in audit.EVENTS.values()})
    for code, kind in audit.EVENTS.items():
        noun, verb = code.split(".")
        assert noun.replace("_", "").isalpha()
        assert verb.replace("_", "").isalpha()
        assert kind.__name__.lower() == (noun + verb).replace("_", "")
        assert kind.__doc__ is not None
        assert not kind.__doc__.startswith(f"{kind.__name__}(")  # the one that dataclass() makes up


def test_codes_once_released_stay():
    """Scripts match on these. Add; never take away, never rename."""
    released = {
        "auth.failed", "certificate.denied", "certificate.issued", "certificate.revoked", "certificate.voided",
        "lock.added", "lock.removed", "login.failed", "login.locked_out", "login.succeeded", "node.added",
        "node.certified", "node.joined", "node.removed", "recording.deleted", "recording.exported",
        "recording.viewed", "roles.applied", "session.attest_missing", "session.channel", "session.denied",
        "session.ended", "session.file", "session.refused", "session.sealed", "session.started",
        "session.terminated", "upstream.failed", "upstream.hostkey_failed", "user.added", "user.changed",
        "user.disabled", "user.invited", "user.password_set",
    }  # fmt: skip
    assert released <= audit.EVENTS.keys()


def test_an_event_cannot_be_changed():
    event = audit.NodeAdded("n1", "web1", "10.0.0.1:22", {"env": "dev"})
    with pytest.raises(FrozenInstanceError):
        event.node = "db1"  # type: ignore[misc]
    with pytest.raises(TypeError):
        event.labels["env"] = "prod"  # type: ignore[index]


def test_an_event_of_our_own_cuts_what_came_from_outside_and_refuses_its_own_mistakes():
    event = audit.SessionChannel("s1", 0, "exec", "exec", False, "x" * 20_000)
    assert len(event.command or "") == 16_384
    assert (event.command or "").endswith("…[20000 characters]")
    with pytest.raises(AuditError):
        audit.SessionChannel("s" * 257, 0, "exec", "exec", False)
    with pytest.raises(AuditError):
        audit.SessionChannel("s1", -1, "exec", "exec", False)


@given(st.binary(max_size=50) | st.text(max_size=50), st.integers(40, 60))
def test_whatever_came_from_outside_becomes_text_that_an_event_takes(raw, most):
    told = text(raw, most)
    assert len(told) <= most
    told.encode()


def test_bytes_that_are_not_utf8_stay_readable():
    assert text(b"caf\xe9 \xc3\xa9") == r"caf\xe9 é"
    assert text("a\ud800b") == r"a\ud800b"


@given(st.text())
def test_what_is_shown_moves_no_cursor_and_hides_nothing(value):
    shown = visible(value)
    assert shown.isprintable()
    assert len(shown) >= len(value)


def test_control_characters_are_kept_and_escaped_only_where_shown():
    event = audit.AuthFailed("b1", "evil\x1b[2J\r\n\u202eresu", "192.0.2.1", "unknown")
    assert record(event)["user"] == "evil\x1b[2J\r\n\u202eresu"
    assert visible(event.user) == r"evil\x1b[2J\r\n\u202eresu"
    assert visible("é 日本 😀") == "é 日本 😀"


# --- the chain ------------------------------------------------------------------------------------------------


def log(*told: audit.Event) -> list[Entry]:
    entries: list[Entry] = []
    for number, event in enumerate(told):
        last = entries[-1] if entries else None
        entries.append(append(last, event, at=NOW + timedelta(seconds=number), actor="user:alice"))
    return entries


@given(st.lists(events, max_size=4))
def test_a_log_as_we_write_it_holds(told):
    assert verify_chain(log(*told)) is None


@given(st.lists(events, min_size=1, max_size=4), st.data())
def test_a_record_that_was_altered_is_named(told, data):
    """LOG-03."""
    entries = log(*told)
    index = data.draw(st.integers(0, len(entries) - 1))
    entry = entries[index]
    entries[index] = data.draw(
        st.sampled_from(
            [
                replace(entry, at=entry.at + timedelta(microseconds=1)),
                replace(entry, code=entry.code + "x"),
                replace(entry, actor="user:bob"),
                replace(entry, fields={**entry.fields, "more": 1}),
                replace(entry, prev="f" * 64),
                replace(entry, hash="f" * 64),
            ]
        )
    )
    broken = verify_chain(entries)
    assert broken is not None
    assert broken.seq == index + 1


@given(st.integers(0, 3), st.integers(0, 3))
def test_a_record_that_was_taken_out_put_in_or_moved_is_named(first, second):
    """LOG-03."""
    entries = log(*[audit.UserDisabled(name) for name in ("a", "b", "c", "d", "e")])
    taken = entries[:first] + entries[first + 1 :]
    broken = verify_chain(taken)
    assert broken is not None
    assert broken.seq == first + 1
    assert verify_chain([*entries[: first + 1], *entries[first:]]) is not None
    if first != second:
        entries[first], entries[second] = entries[second], entries[first]
        broken = verify_chain(entries)
        assert broken is not None
        assert broken.seq == min(first, second) + 1


def test_a_record_with_a_new_hash_of_its_own_breaks_the_next_one():
    """LOG-03."""
    entries = log(*[audit.UserDisabled(name) for name in ("a", "b", "c")])
    forged = append(entries[0], audit.UserDisabled("x"), at=entries[1].at, actor=entries[1].actor)
    broken = verify_chain([entries[0], forged, entries[2]])
    assert broken == audit.Broken(3, "it does not name the hash of the record before it")


def test_a_long_log_is_checked_piece_by_piece():
    entries = log(*[audit.UserDisabled(name) for name in ("a", "b", "c", "d")])
    assert verify_chain(entries[:2]) is None
    assert verify_chain(entries[2:], first=3, prev=entries[1].hash) is None
    assert verify_chain(entries[2:], first=3, prev=entries[0].hash) is not None


def test_a_record_that_cannot_be_hashed_is_named_and_not_a_crash():
    [entry] = log(audit.UserDisabled("a"))
    for odd_fields in ({"x": float("nan")}, {"x": object()}, {1: 2, "a": 3}):
        broken = verify_chain([replace(entry, fields=odd_fields)])
        assert broken is not None
        assert broken.seq == 1


def test_the_chain_is_checked_with_stock_tools():
    entry = append(None, audit.UserAdded("zoë\n", ("developer",)), at=NOW, actor="socket")
    told = line(entry.seq, entry.at, entry.code, entry.actor, entry.fields)
    assert told == (
        '{"actor":"socket","at":"2026-11-23T12:00:00.000042Z","code":"user.added",'
        '"fields":{"roles":["developer"],"user":"zo\\u00eb\\n"},"seq":1}'
    )
    out = subprocess.run(
        ["sh", "-c", 'printf "%s\\n%s" "$1" "$2" | sha256sum', "sh", GENESIS, told],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.split()[0] == entry.hash


def test_the_hash_does_not_depend_on_the_order_of_fields_or_the_zone_of_the_time():
    there = NOW.astimezone(timezone(timedelta(hours=5)))
    assert chain(GENESIS, 1, NOW, "c", "a", {"x": 1, "y": 2}) == chain(GENESIS, 1, there, "c", "a", {"y": 2, "x": 1})
    with pytest.raises(AuditError):
        moment(NOW.replace(tzinfo=None))


def test_the_hash_of_a_known_record_never_changes():
    """A log must still verify after an upgrade."""
    entry = append(None, audit.UserDisabled("alice"), at=NOW, actor="socket")
    assert entry.hash == "2cba46f4c81b9ad511aa09614772d1ac167a259f292bcb33c24360355ff7779a"


def test_nothing_in_a_log_line_acts_on_a_terminal() -> None:
    """SSH-26"""
    words = {"event": "bug", "path": "/\x1b[2J\r\u202e", "port": 22, "exception": "Traceback\n  x"}
    said = audit.harmless(None, "error", words)
    assert said == {"event": "bug", "path": "/\\x1b[2J\\r\\u202e", "port": 22, "exception": "Traceback\\n  x"}


def test_traits_that_changed_are_told_and_others_are_not_repeated():
    told = audit.IdentityChanged("alice", "corp", ("dev",), ("dev",), {"team": ("blue", "red")})
    assert record(told)["traits"] == {"team": ["blue", "red"]}
    assert record(audit.IdentityChanged("alice", "corp", ("dev",), ()))["traits"] is None
