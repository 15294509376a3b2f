"""The stores against a model in memory: rules that let several writers at one row at the same time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from integration_service.contracts.definitions import DefinitionFile, IntegrationDefinition, IntegrationDefinitionStatus
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.instances import (
    ConnectInstanceInput,
    IntegrationInstance,
    IntegrationInstanceStatus,
)
from integration_service.contracts.wire import JsonObject, parse
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.vault.keyring import KeyProvider
from tests.store_model import Held, Model, Published, racing, secret_payload, together, told_both
from tests.world import definition_file

Answer = TypeVar("Answer")
_Status = IntegrationDefinitionStatus
_VERSIONS, _NAMES = ("1.0.0", "1.1.0", "2.0.0"), ("a", "b", "c", "d")
_STATUSES = st.sampled_from(list(IntegrationInstanceStatus))
_WRITERS = st.integers(2, 5)
_MOST_RETRIES = 50


class StoreMachine(RuleBasedStateMachine):
    """Each run has a definition and instances of its own in one shared database. `steps` counts the rules of all runs.

    `url` and `provider` are set by whoever runs it.
    """

    url: ClassVar[str]
    provider: ClassVar[KeyProvider]
    steps: ClassVar[int] = 0
    conflicts: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._mark = uuid.uuid4().hex[:10]
        self._model = Model()
        self._do(self._open())

    async def _open(self) -> None:
        self._database = await Database(self.url, max_connections=6).open()
        self._definitions, self._instances = Definitions(self._database), Instances(self._database)
        self._credentials = Credentials(self._database, self.provider)

    def teardown(self) -> None:
        try:
            self._do(self._compare_all())
        finally:
            self._do(self._database.close())
            self._runner.close()

    def _do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self._runner.run(work)

    def _step(self, work: Coroutine[Any, Any, None]) -> None:
        type(self).steps += 1
        self._do(work)

    # Definitions

    @rule(
        version=st.sampled_from(_VERSIONS),
        texts=st.lists(st.sampled_from("xy"), min_size=1, max_size=4),
        publish=st.booleans(),
    )
    def apply(self, version: str, texts: list[str], publish: bool) -> None:
        self._step(self._apply(version, texts, publish=publish))

    async def _apply(self, version: str, texts: list[str], *, publish: bool) -> None:
        before = self._model.definitions.get(version)

        async def one(text: str) -> IntegrationDefinition:
            content = definition_file(f"m{self._mark}", version=version, description=text)
            return await self._definitions.apply(parse(DefinitionFile, content), publish=publish)

        done, failed = await together(one, texts)
        found = await self._definitions.find("global", f"m{self._mark}", version)
        assert found is not None
        frozen = before is not None and before.status is not _Status.DRAFT
        for code, text in zip(failed, texts, strict=True):
            if code is None:
                continue
            # Refused: other content of what was published once, or a step back to PUBLISHED.
            assert publish or frozen
            assert code == ("VERSION_CONFLICT" if found.description != text else "VALIDATION_ERROR"), code
        if frozen and before is not None:
            assert (found.description, found.status) == (before.description, before.status)
        elif publish:
            assert found.status is _Status.PUBLISHED
            assert {one.description for one in done} == {found.description}
            assert len(done) == texts.count(found.description)
        else:
            assert len(done) == len(texts)
            assert found.description in texts
        assert {one.id for one in done} <= {found.id}
        assert before is None or before.id == found.id
        self._model.definitions[version] = Published(found.id, found.status, found.description)

    @rule(version=st.sampled_from(_VERSIONS), to=st.sampled_from((_Status.DEPRECATED, _Status.ARCHIVED)))
    def retire(self, version: str, to: IntegrationDefinitionStatus) -> None:
        self._step(self._move(version, to))

    async def _move(self, version: str, to: IntegrationDefinitionStatus) -> None:
        held = self._model.definitions.get(version)
        used = held is not None and any(one.definition_id == held.id for one in self._model.instances)
        move = self._definitions.move
        _, failed = await together(lambda _: move("global", f"m{self._mark}", version, to), range(2))
        if held is None:
            assert set(failed) == {"DEFINITION_NOT_FOUND"}
        elif held.status is to or (held.status.may_become(to) and not (to is _Status.ARCHIVED and used)):
            assert set(failed) == {None}
            held.status = to
        else:
            assert set(failed) == {"VALIDATION_ERROR"}

    # Instances

    @precondition(lambda self: self._model.published)
    @rule(name=st.sampled_from(_NAMES), writers=_WRITERS)
    def connect(self, name: str, writers: int) -> None:
        self._step(self._connect(name, writers))

    async def _connect(self, name: str, writers: int) -> None:
        definition = await self._definitions.get(self._model.published[-1].id)
        full = f"{self._mark} {name}"

        async def one(_: int) -> IntegrationInstance:
            wanted = ConnectInstanceInput(
                instance_id=str(uuid.uuid4()), definition=definition.name, name=full, config={"n": 0}
            )
            return await self._instances.add(wanted, definition)

        done, failed = await together(one, range(writers))
        taken = any(held.name == full for held in self._model.instances)
        assert len(done) == (0 if taken else 1)
        assert set(failed) <= {None, "VALIDATION_ERROR"}
        for made in done:
            self._model.instances.append(Held(made.id, full, definition.id, 1, made.status, {"n": 0}))

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data(), writers=_WRITERS, status=_STATUSES)
    def write_at_once(self, data: st.DataObject, writers: int, status: IntegrationInstanceStatus) -> None:
        self._step(self._write(self._one(data), writers, status))

    async def _write(self, held: Held, writers: int, status: IntegrationInstanceStatus) -> None:
        """All of them read the same version: one writes."""
        read = await self._instances.get(held.id)

        async def write(number: int) -> IntegrationInstance:
            return await self._update(read, {"n": held.config["n"], "by": number}, status)

        done, conflicts = await racing(write, range(writers))
        assert len(done) == 1
        both = {"path": "version", "expected": held.version, "current": held.version + 1}
        assert conflicts == [both] * (writers - 1)
        type(self).conflicts += len(conflicts)
        held.version, held.status, held.config = held.version + 1, status, done[0].config
        await self._compare(held)

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data(), writers=_WRITERS)
    def count_together(self, data: st.DataObject, writers: int) -> None:
        self._step(self._count(self._one(data), writers))

    async def _count(self, held: Held, writers: int) -> None:
        """Each reads, adds one, writes, and reads again when another came between: nobody's is lost."""

        async def one() -> int:
            for tries in range(_MOST_RETRIES):
                read = await self._instances.get(held.id)
                try:
                    await self._update(read, {**read.config, "n": read.config["n"] + 1}, read.status)
                except IntegrationError as error:
                    if error.code != "VERSION_CONFLICT" or not told_both(error, read.version):
                        raise
                else:
                    return tries
            raise AssertionError("it never got through")

        type(self).conflicts += sum(await asyncio.gather(*(one() for _ in range(writers))))
        held.version, held.config = held.version + writers, {**held.config, "n": held.config["n"] + writers}
        await self._compare(held)

    async def _update(
        self, read: IntegrationInstance, config: JsonObject, status: IntegrationInstanceStatus
    ) -> IntegrationInstance:
        return await self._instances.update(
            read, status=status, error=None, config=config, definition_id=read.integration_definition_id
        )

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self._step(self._delete(self._one(data)))

    async def _delete(self, held: Held) -> None:
        read = await self._instances.get(held.id)
        await self._instances.delete(held.id)
        self._model.instances.remove(held)

        async def write(what: str) -> None:
            if what == "instance":
                await self._update(read, read.config, read.status)
            else:
                await self._keep(held, "late", held.generation, False)

        _, failed = await together(write, ("instance", "credential"))
        assert failed == ["INSTANCE_NOT_FOUND"] * 2

    # Credentials

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data(), writers=_WRITERS, renewal=st.booleans())
    def store_at_once(self, data: st.DataObject, writers: int, renewal: bool) -> None:
        self._step(self._store(self._one(data), writers, renewal))

    async def _store(self, held: Held, writers: int, renewal: bool) -> None:
        """All of them replace the same generation: one does."""
        before, renewal = held.generation, renewal and held.generation > 0
        secrets = [uuid.uuid4().hex for _ in range(writers)]

        async def write(secret: str) -> tuple[int, str]:
            return await self._keep(held, secret, before, renewal)

        done, conflicts = await racing(write, secrets)
        assert len(done) == 1
        held.generation = held.reached = held.reached + 1
        assert conflicts == [{"expected": before, "current": held.generation}] * (writers - 1)
        type(self).conflicts += len(conflicts)
        held.secret, held.epoch = done[0][1], held.epoch if renewal else held.generation
        assert done[0][0] == held.generation
        await self._compare(held)

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data(), back=st.integers(1, 3))
    def store_late(self, data: st.DataObject, back: int) -> None:
        held = self._one(data)
        if (seen := held.reached - back) >= 1:
            self._step(self._late(held, seen))

    async def _late(self, held: Held, seen: int) -> None:
        """Whoever read an older generation does not write: neither over a newer one, nor after an erasure."""
        done, conflicts = await racing(lambda secret: self._keep(held, secret, seen, True), ["late"])
        assert (done, conflicts) == ([], [{"expected": seen, "current": held.generation}])
        await self._compare(held)

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data(), writers=_WRITERS)
    def erase(self, data: st.DataObject, writers: int) -> None:
        self._step(self._erase(self._one(data), writers))

    async def _erase(self, held: Held, writers: int) -> None:
        await asyncio.gather(*(self._credentials.erase(held.id) for _ in range(writers)))
        held.generation, held.epoch, held.secret = 0, 0, ""
        await self._compare(held)

    async def _keep(self, held: Held, secret: str, expected: int, renewal: bool) -> tuple[int, str]:
        generation = await self._credentials.store(
            instance_id=held.id, scope="global", payload=secret_payload(secret), expected=expected, renewal=renewal
        )
        return generation, secret

    # What must be so

    def _one(self, data: st.DataObject) -> Held:
        return data.draw(st.sampled_from(self._model.instances))

    async def _compare(self, held: Held) -> None:
        found, stored = await self._instances.get(held.id), await self._credentials.load(held.id)
        assert found.name == held.name
        assert (found.version, found.status, found.config) == (held.version, held.status, held.config)
        if stored is None:
            assert held.generation == 0
            return
        assert (stored.generation, stored.epoch) == (held.generation, held.epoch)
        opened = (await self._credentials.open(stored)).custom
        assert opened == {"secret": held.secret}

    async def _compare_all(self) -> None:
        for held in self._model.instances:
            await self._compare(held)
        kept = await self._definitions.list(name=f"m{self._mark}")
        assert {one.version: Published(one.id, one.status, one.description) for one in kept} == self._model.definitions
        rows = await self._database.all(
            "SELECT id FROM integrations.instances WHERE name LIKE %(mine)s", {"mine": f"{self._mark} %"}
        )
        assert {str(row["id"]) for row in rows} == {held.id for held in self._model.instances}
