"""ca/api/recordings.py and sessions.py: who sees which sessions, and who takes a recording away."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from ca.housekeeping import delete_old, watch_disk
from ca.settings import Address, Settings
from recordings import reader, seal, sshsig
from recordings.format import Header, Output
from recordings.writer import Recording
from tests.ca.house import ROLES, BastionKeys, House, house
from tests.ca.test_sessions import ending
from tests.ca.visit import visit

NARROW = ROLES + '  - name: webauditor\n    audit: {recordings: "web*"}\n'


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        await made.roles(NARROW)
        for name, role in (("alice", "developer"), ("eve", "auditor"), ("walter", "webauditor"), ("boss", "admin")):
            await made.user(name, role)
        await made.node("web1", env="dev")
        await made.node("db1", env="dev")
        (tmp_path / "recordings").mkdir()
        yield made


async def recorded(home: House, bastion: BastionKeys, node: str = "web1") -> str:
    """A session from its beginning to its countersigned recording."""
    session: str = (await (await visit(home, bastion, node=node)).ask()).json()["session"]
    recording = Recording.create(
        home.authority.settings.recordings_folder,
        session,
        meta={"user": "alice", "node": node},
        now=home.clock.now,
        sign=lambda data: sshsig.sign(bastion.recording_key, data, namespace=seal.NAMESPACE),
    )
    recording.open_channel(0, Header(), limit=1 << 20, pty=False, record_input=False)
    recording.write(0, Output(0.5, b"hello"))
    recording.close_channel(0)
    manifest = recording.seal(home.clock.now, "closed")
    answer = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(manifest))
    assert answer.status_code == 200, answer.text
    return session


async def test_an_exported_recording_holds_all_that_is_needed_to_check_it(home: House, tmp_path: Path) -> None:
    bastion = await home.bastion()
    session = await recorded(home, bastion)
    eve = await home.person("eve")
    answer = await eve.get(f"/v1/recordings/{session}/archive")
    assert answer.status_code == 200
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as bundle:
        assert all(one.isfile() and "/" not in one.name for one in bundle.getmembers())
        bundle.extractall(tmp_path / "out", filter="data")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"allowed_signers", "manifest.json", "manifest.json.sig", "c0.000001.cast.zst"} <= names
    recorders, authorities = seal.signers((tmp_path / "out" / "allowed_signers").read_text())
    verdict = reader.verify(tmp_path / "out", recorder_keys=recorders, authority_keys=authorities)
    assert not [problem for problem in verdict.problems if "authority" not in str(problem)]
    (told,) = await home.events("recording.exported")
    assert (told.fields["session"], told.fields["by"]) == (session, "user:eve")
    assert (await eve.get(f"/v1/recordings/{session}/archive?purpose=play")).status_code == 200
    assert len(await home.events("recording.viewed")) == 1
    assert (await eve.get(f"/v1/recordings/{session}/archive?purpose=fun")).status_code == 400


async def test_who_may_not_read_a_recording_hears_the_same_as_for_one_that_is_not_there(home: House) -> None:
    """WEB-10"""
    session = await recorded(home, await home.bastion(), node="db1")
    for name in ("alice", "walter", "boss"):
        person = await home.person(name)
        answers = [await person.get(f"/v1/recordings/{id}/archive") for id in (session, "s" + "0" * 25, "..", "%2e%2e")]
        assert answers[0].status_code == 403
        assert answers[0].content == answers[1].content
    assert len(await home.events("recording.denied")) >= 6


async def test_everyone_sees_their_own_sessions_and_auditors_what_they_may_read(home: House) -> None:
    bastion = await home.bastion()
    web, db = await recorded(home, bastion), await recorded(home, bastion, node="db1")
    seen = {}
    for name in ("alice", "eve", "walter", "boss"):
        person = await home.person(name)
        sessions = (await person.get("/v1/sessions")).json()
        recordings = (await person.get("/v1/recordings")).json()
        seen[name] = ({one["id"] for one in sessions}, {one["id"] for one in recordings})
    assert seen == {
        "alice": ({web, db}, set()),
        "eve": ({web, db}, {web, db}),
        "walter": ({web}, {web}),
        "boss": ({web, db}, set()),
    }
    listed = (await (await home.person("eve")).get("/v1/recordings")).json()
    assert [one["how"] for one in listed] == ["closed", "closed"]
    eve = await home.person("eve")
    assert [one["id"] for one in (await eve.get("/v1/sessions?node=web1&user=alice")).json()] == [web]
    assert (await eve.get("/v1/sessions?live=true")).json() == []


async def test_recordings_older_than_the_rule_are_deleted_with_an_event_each(home: House, tmp_path: Path) -> None:
    session = await recorded(home, await home.bastion())
    place = Address("127.0.0.1", 1)
    settings = Settings(data=home.authority.settings.data, web=place, public_ssh=place, recordings_keep_days=30)
    store, metrics = home.authority.store, home.authority.metrics
    await delete_old(settings, store, metrics)
    assert reader.find(settings.recordings_folder, session) is not None
    home.clock.now += timedelta(days=31)
    for _ in range(2):
        await delete_old(settings, store, metrics)
    assert reader.find(settings.recordings_folder, session) is None
    (told,) = await home.events("recording.deleted")
    assert told.fields["session"] == session
    answer = await home.operator.get(f"/v1/recordings/{session}/archive")
    assert (answer.status_code, answer.json()["error"]) == (404, "recording_deleted")
    assert (await home.operator.get("/v1/recordings")).json() == []


async def test_a_disk_that_fills_up_is_told_once(home: House) -> None:
    place = Address("127.0.0.1", 1)
    low = Settings(data=home.authority.settings.data, web=place, public_ssh=place, disk_warning_percent=1)
    told = False
    for _ in range(3):
        told = await watch_disk(low, home.authority.store, home.authority.metrics, told=told)
    assert len(await home.events("recording.space_low")) == 1
    assert "bartizan_recordings_disk_low 1.0" in home.authority.metrics.text().decode()


async def test_what_a_bastion_left_beside_a_recording_is_not_handed_out(home: House, tmp_path: Path) -> None:
    """A second allowed_signers would overwrite ours when the archive is unpacked; a link would lead to our secrets."""
    session = await recorded(home, await home.bastion())
    folder = reader.find(home.authority.settings.recordings_folder, session)
    assert folder is not None
    (folder / "allowed_signers").write_text("forged")
    (folder / "zz.txt").write_text("more")
    (folder / "c9.000001.cast.zst").symlink_to(tmp_path / "admin.token")
    (folder / "c0.000001.cast.zst").replace(folder / "kept")
    os.mkfifo(folder / "c0.000001.cast.zst")
    answer = await home.operator.get(f"/v1/recordings/{session}/archive")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as bundle:
        names = bundle.getnames()
    assert sorted(names) == ["allowed_signers", "manifest.json", "manifest.json.sig"]


async def test_the_rule_asks_our_own_clock_when_a_session_ended(home: House) -> None:
    """A bastion whose clock is years behind, or that is in foreign hands, must not have recordings deleted."""
    bastion = await home.bastion()
    session: str = (await (await visit(home, bastion)).ask()).json()["session"]
    old = home.clock.now - timedelta(days=400)
    for name in (session, "s" + "1" * 25):
        made = Recording.create(
            home.authority.settings.recordings_folder, name, meta={}, now=old,
            sign=lambda data: sshsig.sign(bastion.recording_key, data, namespace=seal.NAMESPACE),
        )  # fmt: skip
        manifest = made.seal(old, "closed")
        if name == session:
            answer = await bastion.http.post(f"/v1/sessions/{session}/end", json=ending(manifest))
            assert answer.status_code == 200, answer.text
    place = Address("127.0.0.1", 1)
    settings = Settings(data=home.authority.settings.data, web=place, public_ssh=place, recordings_keep_days=30)
    await delete_old(settings, home.authority.store, home.authority.metrics)
    assert {entry.session for entry in reader.listing(settings.recordings_folder)} == {session, "s" + "1" * 25}
    assert not await home.events("recording.deleted")
