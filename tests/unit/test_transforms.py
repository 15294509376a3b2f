"""Transforms: what JSONata gives, what its processes hold, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.transforms import Transforms, check_expressions, sandbox
from integration_service.activities.transforms.child import Child
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.worker import event_loop

MARKER = "planted-secret-9f"
AMPLE = timedelta(seconds=30)
FOREVER = "($f := function(){ $f() }; $f())"
PROC = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")


@pytest.fixture(scope="module")
async def transforms() -> AsyncIterator[Transforms]:
    transforms = Transforms()
    await transforms.open()
    yield transforms
    await transforms.close()


@pytest.fixture
async def single() -> AsyncIterator[Transforms]:
    transforms = Transforms(processes=1)
    await transforms.open()
    yield transforms
    await transforms.close()


def pids() -> set[int]:
    """The sandboxes that run under this process."""
    return {child.pid for child in psutil.Process().children() if any("sandbox.py" in part for part in _argv(child))}


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def refused(transforms: Transforms, expression: str, data: Any = None, **options: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        await transforms.evaluate(expression, data, at="methods[0].requestTransform", **options)
    assert error.value.path == "methods[0].requestTransform"
    return error.value


@pytest.mark.parametrize(
    ("expression", "data", "value"),
    [
        ("a.b", {"a": {"b": 1}}, 1),
        ("a.b", {"a": 1}, None),
        ("a", {"a": None}, None),
        ('{"a": a, "gone": b}', {"a": None}, {"a": None}),
        ("items.id", {"items": [{"id": 1}, {"id": 2}]}, [1, 2]),
        ("items.id", {"items": [{"id": 1}]}, 1),
        ("items.id[]", {"items": [{"id": 1}]}, [1]),
        ("[items.id]", {"items": []}, []),
        ("$", [{"a": 1}, 2], [{"a": 1}, 2]),
        ("$[a > 1]", [{"a": 1}, {"a": 2}], {"a": 2}),
        ("$sum(items.(price * quantity))", {"items": [{"price": 2, "quantity": 3}, {"price": 1, "quantity": 4}]}, 10),
        ("items^(>n).n", {"items": [{"n": 1}, {"n": 3}, {"n": 2}]}, [3, 2, 1]),
        ("items{kind: $sum(n)}", {"items": [{"kind": "a", "n": 1}, {"kind": "a", "n": 2}]}, {"a": 3}),
        ('$replace(t, /(\\d+)/, "<$1>")', {"t": "a1b22"}, "a<1>b<22>"),
        ("$toMillis('1970-01-01T00:00:01Z')", None, 1000),
        ("$fromMillis(0)", None, "1970-01-01T00:00:00.000Z"),
        ("$ ~> |a|{'b': 2}|", {"a": {"b": 1}}, {"a": {"b": 2}}),
        ("[1..3].($ * 2)", None, [2, 4, 6]),
        ("big", {"big": 2**60 + 1}, 2**60 + 1),
        ("'😀' & a", {"a": "é"}, "😀é"),
        ('"\\uD83D\\uDE00"', None, "😀"),
    ],
)
async def test_what_jsonata_gives(transforms: Transforms, expression: str, data: Any, value: Any) -> None:
    assert await transforms.evaluate(expression, data, at="x", within=AMPLE) == value


async def test_bindings_are_variables(transforms: Transforms) -> None:
    bindings = {"config": {"region": "eu"}, "params": [1]}
    value = await transforms.evaluate("$config.region & $params", {}, at="x", bindings=bindings, within=AMPLE)
    assert value == "eu[1]"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON)
@settings(max_examples=200, deadline=None)
async def test_json_passes_through_unchanged(transforms: Transforms, value: Any) -> None:
    assert await transforms.evaluate("$v", None, at="x", bindings={"v": value}, within=AMPLE) == value


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}, 10**5000, {1, 2}], ids=list("012345")
)
async def test_what_is_no_json_does_not_go_in(transforms: Transforms, value: Any) -> None:
    assert (await refused(transforms, "1", {"a": value})).details["reason"] == "NOT_JSON"
    assert await transforms.evaluate("1", {}, at="x") == 1


@pytest.mark.parametrize(
    ("expression", "reason", "position", "token"),
    [
        ('a & $number("x")', "D3030", 12, "$number("),
        ("v + 1", "T2001", 3, "+"),
        ("$map([1,2], function($v){ $v + 'x' })", "T2002", 30, "+"),
        ("$nothing(1)", "T1006", 9, "$nothing("),
        ("a.(b + )", "S0211", 8, ")"),
        ("v ~> 5", "T2006", 4, "~>"),
    ],
)
async def test_a_failure_points_into_the_expression_and_quotes_no_value(
    transforms: Transforms, expression: str, reason: str, position: int, token: str
) -> None:
    error = await refused(transforms, expression, {"v": MARKER}, within=AMPLE)
    assert error.code == ErrorCode.TRANSFORM_ERROR
    assert error.details == {"path": "methods[0].requestTransform", "reason": reason, "position": position}
    assert error.message.endswith(f"({reason}) at position {position}, at `{token}`")
    assert MARKER not in f"{error} {error.details}"


@pytest.mark.parametrize(
    "expression", ["$error(v)", "$assert(false, v)", "$number(v)", "v^(1)+1", "{v: 1, v: 2}", "-v"]
)
async def test_messages_with_values_stay_inside(transforms: Transforms, expression: str) -> None:
    error = await refused(transforms, expression, {"v": MARKER}, within=AMPLE)
    assert MARKER not in f"{error} {error.details}"


async def test_nothing_is_left_for_the_next_call(single: Transforms) -> None:
    for _ in range(3):
        assert await single.evaluate("$kept", {}, at="x", within=AMPLE) is None
        await single.evaluate("$kept := v", {"v": MARKER}, at="x", within=AMPLE)
        await single.evaluate("($kept := v; $sum := $count; $kept)", {"v": MARKER}, at="x", within=AMPLE)
        await single.evaluate("$kept", {}, at="x", bindings={"kept": MARKER}, within=AMPLE)
        await refused(single, "($kept := v; $number(v))", {"v": MARKER}, within=AMPLE)
        assert await single.evaluate("$sum([2, 3])", {}, at="x", within=AMPLE) == 5


@PROC
async def test_a_call_is_as_cheap_after_a_thousand_others(single: Transforms) -> None:
    process = psutil.Process(single._children[0].pid)

    async def cost() -> float:
        before = sum(process.cpu_times()[:2])
        for _ in range(300):
            await single.evaluate('{"id": a.b, "n": $sum(c)}', {"a": {"b": 1}, "c": [1, 2]}, at="x", within=AMPLE)
        return float(sum(process.cpu_times()[:2]) - before)

    first = await cost()
    for _ in range(3):
        last = await cost()
    # The engine left to itself builds each call upon the last one's frame: the fourth took five times the first.
    assert last < 3 * first + 0.1


async def test_a_larger_result_than_asked_for_is_refused(transforms: Transforms) -> None:
    text = '"' + "a" * 100 + '"'
    assert await transforms.evaluate(text, None, at="x", max_bytes=102, within=AMPLE) == "a" * 100
    assert (await refused(transforms, text, max_bytes=101, within=AMPLE)).details["reason"] == "TOO_LARGE"
    assert (await refused(transforms, "[1..1000001]", within=AMPLE)).details["reason"] == "TOO_LARGE"


async def test_a_memory_hog_dies_inside_its_own_limit(single: Transforms) -> None:
    before = single._children[0].pid
    assert (await refused(single, '$pad("", 10000000000)', within=AMPLE)).details["reason"] == "MEMORY"
    assert await single.evaluate("1", None, at="x", within=AMPLE) == 1
    assert single._children[0].pid != before


async def test_eight_mebibytes_go_in_and_out(transforms: Transforms) -> None:
    rows = [{"id": index, "text": "x" * 1000} for index in range(8000)]
    assert await transforms.evaluate("$", rows, at="x", within=AMPLE) == rows


@pytest.mark.slow
async def test_many_long_expressions_do_not_fill_the_process(single: Transforms) -> None:
    pid = single._children[0].pid
    for index in range(14):
        expression = f"[{','.join(['a'] * 5000)}][{index}]"
        assert await single.evaluate(expression, {}, at="x", within=AMPLE) is None
    assert single._children[0].pid == pid


async def test_a_hostile_expression_costs_its_own_caller_only(transforms: Transforms) -> None:
    hostile = asyncio.create_task(transforms.evaluate(FOREVER, None, at="x", within=timedelta(seconds=5)))
    await asyncio.sleep(0)
    values = await asyncio.gather(*(transforms.evaluate(f"{n}", None, at="x", within=AMPLE) for n in range(100)))
    assert values == list(range(100))
    assert not hostile.done()
    hostile.cancel()
    await asyncio.wait([hostile])


async def test_time_runs_out_inside_a_regular_expression(single: Transforms) -> None:
    error = await refused(single, "$match(t, /^(a+)+$/)", {"t": "a" * 40 + "!"}, within=timedelta(milliseconds=100))
    assert error.details["reason"] == "TIMEOUT"
    assert await single.evaluate("1", None, at="x", within=AMPLE) == 1


async def test_a_cancelled_caller_leaves_no_answer_to_the_next(single: Transforms) -> None:
    for step in range(8):
        task = asyncio.create_task(single.evaluate("$pad('', 100000)", None, at="x", within=AMPLE))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await single.evaluate(f"{step}", None, at="x", within=AMPLE) == step


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_one_that_is_killed_is_replaced(single: Transforms, number: signal.Signals) -> None:
    task = asyncio.create_task(refused(single, FOREVER, within=AMPLE))
    await asyncio.sleep(0.05)
    os.kill(single._children[0].pid or 0, number)
    assert (await task).details["reason"] == "CRASHED"
    assert await single.evaluate("2", None, at="x", within=AMPLE) == 2
    idle = psutil.Process(single._children[0].pid)
    idle.send_signal(number)
    while single._children[0].alive:
        await asyncio.sleep(0.005)
    assert await single.evaluate("3", None, at="x", within=AMPLE) == 3


async def test_one_that_cannot_be_started_again_holds_up_nobody_while_others_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transforms = Transforms(processes=3)
    await transforms.open()
    try:
        last = transforms._children[-1]
        os.kill(last.pid or 0, signal.SIGKILL)
        while last.alive:
            await asyncio.sleep(0.005)

        async def fails(_: Child) -> None:
            raise OSError("no more processes")

        monkeypatch.setattr(Child, "start", fails)
        assert (await refused_plain(transforms)).code == ErrorCode.UNAVAILABLE
        for number in range(6):
            assert await transforms.evaluate(f"{number}", None, at="x", within=AMPLE) == number
    finally:
        monkeypatch.undo()
        await transforms.close()


def test_each_request_has_its_own_processor_time_and_some_for_what_comes_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used, limits = 0.0, [0]
    monkeypatch.setattr(sandbox.signal, "setitimer", lambda *_: None)
    monkeypatch.setattr(sandbox.time, "process_time", lambda: used)
    monkeypatch.setattr(sandbox, "_limit", lambda _, soft, __: limits.append(soft))
    clock = sandbox.Clock()
    for tenths in range(100):
        used = tenths / 10
        clock.start(1000)
        assert limits[-1] >= used + 1 + 2
    assert len(limits) < 10


async def test_waiting_is_bounded_and_not_counted() -> None:
    transforms = Transforms(processes=1, queue=timedelta(milliseconds=100))
    await transforms.open()
    try:
        busy = asyncio.create_task(refused(transforms, FOREVER, within=timedelta(milliseconds=700)))
        await asyncio.sleep(0)
        error = await refused_plain(transforms)
        assert error.code == ErrorCode.UNAVAILABLE
        assert (await busy).details["reason"] == "TIMEOUT"
    finally:
        await transforms.close()


async def refused_plain(transforms: Transforms) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        await transforms.evaluate("1", None, at="x")
    return error.value


async def test_close_leaves_no_process(transforms: Transforms) -> None:
    others = pids()
    closing = Transforms(processes=3)
    await closing.open()
    started = pids() - others
    assert len(started) == 3
    under_way = [asyncio.create_task(refused(closing, FOREVER, within=AMPLE)) for _ in range(3)]
    await asyncio.sleep(0.02)
    await closing.close()
    assert not pids() & started
    assert {error.code for error in await asyncio.gather(*under_way)} == {ErrorCode.TRANSFORM_ERROR}
    assert pids() == others


WORKER = f"""
import asyncio, datetime
from integration_service.activities.transforms import Transforms
async def main():
    transforms = Transforms(processes=2)
    await transforms.open()
    print(*(child.pid for child in transforms._children), flush=True)
    await transforms.evaluate({FOREVER!r}, None, at="x", within=datetime.timedelta(seconds=1))
asyncio.run(main())
"""


def test_no_process_outlives_a_worker_that_was_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / ".dev")}
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None
        children = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        worker.kill()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


@PROC
async def test_a_process_holds_nothing_of_the_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await _holds_nothing(monkeypatch, tmp_path)


def test_nor_does_it_on_the_loop_of_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """uvloop hands on to a new process what the worker holds open."""
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(_holds_nothing(monkeypatch, tmp_path))


async def _holds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTEGRATIONS_KEYRING", MARKER)
    held_open = (tmp_path / "held").open("w")
    os.set_inheritable(held_open.fileno(), True)
    transforms = Transforms(processes=1)
    await transforms.open()
    try:
        await transforms.evaluate("1", None, at="x", within=AMPLE)
        proc = Path(f"/proc/{transforms._children[0].pid}")
        assert (proc / "environ").read_bytes().strip(b"\0") in (b"", b"LC_CTYPE=C.UTF-8")
        assert MARKER.encode() not in (proc / "cmdline").read_bytes()
        assert os.readlink(proc / "cwd") == "/"
        files = sorted(os.listdir(proc / "fd"))
        assert files == ["0", "1", "2"]
        assert os.readlink(proc / "fd" / "2") == "/dev/null"
        maps = (proc / "maps").read_text()
        for library in ("psycopg", "temporal", "cryptography", "pydantic", "libcrypto", "libpq"):
            assert library not in maps
        assert MARKER.encode() not in _memory(proc)
    finally:
        held_open.close()
        await transforms.close()


def _memory(proc: Path) -> bytes:
    held = b""
    with (proc / "mem").open("rb", buffering=0) as memory:
        for line in (proc / "maps").read_text().splitlines():
            span, mode = line.split()[:2]
            if "rw" in mode:
                start, end = (int(part, 16) for part in span.split("-"))
                memory.seek(start)
                held += memory.read(end - start)
    assert b"jsonata" in held
    return held


@PROC
async def test_the_limits_are_set(single: Transforms) -> None:
    limits = Path(f"/proc/{single._children[0].pid}/limits").read_text()
    rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()[1:]}
    assert rows["Max address space"] == [str(512 * 1024 * 1024)] * 2
    assert rows["Max file size"] == ["0", "0"]
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max processes"] == ["0", "0"]
    assert rows["Max open files"] == ["16", "16"]


def test_expressions_that_parse_pass() -> None:
    check_expressions([])
    check_expressions([("a", "a.b"), ("b", '{"x": $sum(items.(p * q))}'), ("c", "$map($, function($v){ $v })")])
    check_expressions([(f"methods[{index}].requestTransform", f"a.b[{index}]") for index in range(400)])


@pytest.mark.parametrize(
    ("text", "reason", "position"),
    [
        ("(1 + ", "S0203", None),
        ("a.(b + )", "S0211", 8),
        ("'abc", "S0101", 4),
        ("$f(", "S0203", None),
        ("", "S0207", None),
        ("%", "S0217", None),
        ("a" * 10_241, "TOO_LONG", None),
        ("é" * 5_121, "TOO_LONG", None),
        ("[" * 5000, "D1011", None),
        ("'\ud800'", "NOT_JSON", None),
    ],
)
def test_the_first_that_does_not_parse_is_named(text: str, reason: str, position: int | None) -> None:
    with pytest.raises(IntegrationError) as refused:
        check_expressions([("good", "a.b"), ("methods[1].responseTransform", text), ("later", "((")])
    error = refused.value
    assert (error.code, error.path) == (ErrorCode.VALIDATION_ERROR, "methods[1].responseTransform")
    assert error.details["reason"] == reason
    if position is not None:
        assert error.details["position"] == position
        assert f"at position {position}" in error.message


def test_no_process_is_left_of_a_check() -> None:
    before = pids()
    check_expressions([("a", "a")])
    with pytest.raises(IntegrationError):
        check_expressions([("a", "(")])
    assert pids() == before
