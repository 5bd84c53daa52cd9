"""Bad input: a clear error in the user's terms, nothing hangs, nothing is left, nothing is silently lost."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.scheduler.machine import RETRIES
from tests.examples import (
    HostileError,
    Misbehaving,
    Raising,
    Squares,
    Together,
    deep_groups,
    long_chain,
    many_lines,
    many_notes,
    one_long_line,
    wide_group,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an int of at least 1, got 0"),
        ({"batch_size": -3}, "batch_size must be an int of at least 1, got -3"),
        ({"batch_size": 2.0}, "batch_size must be an int of at least 1, got 2.0"),
        ({"batch_size": True}, "batch_size must be an int"),
        ({"workers": -1}, "workers must be an int of at least 0, got -1"),
        ({"prefetch": 0}, "prefetch must be an int of at least 1, got 0"),
        ({"seed": "7"}, "seed must be an int, got '7'"),
        ({"shuffle": 1000}, "shuffle must be True or False, got 1000"),
        ({"transform": 5}, "transform must be callable, got 5"),
        ({"batch_size": 101, "drop_remainder": True}, "leaves no batch of 100 examples"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(Squares(100), **options)


def test_sources_that_cannot_be_read_are_refused() -> None:
    class NoLength:
        def __getitem__(self, index: int) -> int:
            return index

    class NoItems:
        def __len__(self) -> int:
            return 3

    class Raises(Squares):
        def __len__(self) -> int:
            raise OSError("no such disk")

    for source, message in (
        (Squares(0), "source is empty"),
        ([], "source is empty"),
        (NoLength(), "NoLength, has no `__len__`"),
        (NoItems(), "NoItems, has no `__getitem__`"),
        (Raises(), "raised OSError: no such disk"),
        (Squares, "is the class Squares itself"),
        ({"a": 1}, "a dict is not a source"),
        (iter([1]), "has no `__len__`"),
    ):
        with pytest.raises(stoker.SourceError, match=message):
            stoker.Loader(source, batch_size=2)


def test_what_cannot_be_pickled_is_named_by_its_path() -> None:
    class Inner:
        def __init__(self) -> None:
            self.locks = {"db": [threading.Lock()]}

    class Outer(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

    with pytest.raises(stoker.ProgramError, match=r"source\.inner\.locks\['db'\]\[0\] \(a lock\) cannot be sent"):
        stoker.Loader(Outer(), batch_size=2, workers=1)

    lock = threading.Lock()

    def transform(example: Any) -> Any:
        with lock:
            return example

    with pytest.raises(stoker.ProgramError, match=r"transform\.<closure>\.lock \(a lock\)"):
        stoker.Loader(Squares(), batch_size=2, transform=transform, workers=1)
    with stoker.Loader(Squares(4), batch_size=2, transform=transform, workers=0) as loader:
        assert len(list(loader)) == 2, "inline sends nothing"


def test_a_culprit_beside_an_unassigned_variable_is_still_named() -> None:
    lock = threading.Lock()

    def transform(example: Any) -> Any:
        return example, lock, later

    with pytest.raises(stoker.ProgramError, match=r"transform\.<closure>\.lock"):
        stoker.Loader(Squares(), batch_size=2, transform=transform, workers=1)
    later = 1


def test_long_texts_in_errors_are_cut() -> None:
    def wordy(example: Any) -> Any:
        raise ValueError("\N{GRINNING FACE}\udcff" * 100_000) from KeyError("\N{GRINNING FACE}" * 10_000)

    with (
        stoker.Loader(Squares(), batch_size=8, transform=wordy, workers=1) as loader,
        pytest.raises(stoker.WorkerError, match=r"example 0 .* raised ValueError"),
    ):
        list(loader)
    with (
        stoker.Loader([(0,) * n for n in (4, 14_000)], batch_size=2, workers=1) as loader,
        pytest.raises(stoker.SpecError, match=r"example 1 .* its structure changed"),
    ):
        list(loader)


def test_a_masked_array_is_told_how_to_fill_it() -> None:
    source = [np.ma.masked_equal([1, 2], 2)]
    with (
        stoker.Loader(source, batch_size=1, workers=1) as loader,
        pytest.raises(stoker.SpecError, match="mask would be"),
    ):
        list(loader)


def test_files_beside_the_trainer_hide_no_module_of_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('not that one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])  # a Path, which Python ignores
    with stoker.Loader(Squares(4), batch_size=4, workers=1) as loader:
        assert len(list(loader)) == 1


HIDING = """
import json, os, pathlib, random, struct, sys
sys.path.insert(0, HERE)
import stoker
def where(_):
    import numpy.random
    return sys.path[0] == HERE, len(sys.argv), "STOKER_PATH" in os.environ, "PYTHONSAFEPATH" in os.environ
with stoker.Loader([0], batch_size=1, transform=where, workers=1) as loader:
    print([leaf.tolist() for leaf in next(iter(loader))], stoker.__file__.startswith(HERE))
"""


def test_files_beside_stoker_hide_no_module_of_the_standard_library(tmp_path: Path) -> None:
    """They lie in front in `sys.path`, and came there after the trainer had imported the standard library's."""
    (tmp_path / "stoker").symlink_to(Path(stoker.__file__).parent)
    for name in ("json", "pathlib", "random", "struct"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not that one')")
    done = subprocess.run(
        [sys.executable, "-c", f"HERE = {str(tmp_path)!r}{HIDING}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.stdout == "[[True], [1], [False], [False]] True\n", done


def test_a_worker_that_cannot_start_is_told_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "optree.py").write_text("raise RuntimeError('not that one')")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        stoker.Loader(Squares(4), batch_size=4, workers=1) as loader,
        pytest.raises(
            stoker.WorkerDied, match=r"exited with code 1 before it was ready\. See stderr for its last output"
        ),
    ):
        list(loader)
    assert "RuntimeError: not that one" in capfd.readouterr().err


def test_without_descriptors_the_start_fails_clearly() -> None:
    script = """
import os, resource, stoker
from tests.examples import Squares
loader = stoker.Loader(Squares(), batch_size=8, workers=2)
used = max(map(int, os.listdir("/proc/self/fd")))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + FREE, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for _ in range(2):
    try:
        print("all came", len(list(loader)) == 13)
    except (OSError, stoker.StokerError) as error:
        print(type(error).__name__, "Too many open files" in str(error))
loader.close()
"""
    for free in (0, 2, 4, 5, 6, 8, 10, 40):
        done = subprocess.run(
            [sys.executable, "-c", script.replace("FREE", str(free))],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        lines = done.stdout.splitlines()
        assert [line.endswith("True") for line in lines] == [True, True], (free, done)
        assert free != 40 or lines[-1].startswith("all came"), (free, done)


def test_a_program_that_cannot_be_loaded_is_one_error() -> None:
    class Broken(Squares):
        def __reduce__(self) -> Any:
            return (__import__, ("no_such_module",))

    with (
        stoker.Loader(Broken(), batch_size=2, workers=2) as loader,
        pytest.raises(stoker.ProgramError, match="No module named 'no_such_module'"),
    ):
        next(iter(loader))


LONG = [many_lines, one_long_line, long_chain]
if sys.version_info >= (3, 11):
    LONG += [many_notes, deep_groups, wide_group]
EXAMPLE_37 = r"example 37 \(epoch 0, batch 4(, worker \d)?\)"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("None", "its structure changed.*a single leaf unexpected|it is None"),
        ("set", "structure changed"),
        ("object", r"at \[0\] it holds a object: <object"),
        ("string", r"at \[0\] it holds string of shape \(\), expected float32 of shape \(4,\)"),
        ("structure", r"structure changed: \[0\], \[1\] missing; \['x'\], \['y'\] unexpected"),
        ("longer", r"structure changed: \[2\] unexpected"),
        ("shape", r"at \[0\] it holds float32 of shape \(3,\), expected float32 of shape \(4,\)"),
        ("dtype", r"at \[0\] it holds float64 of shape \(4,\), expected float32 of shape \(4,\)"),
        ("number", r"at \[1\] it holds float64 of shape \(\), expected int64 of shape \(\)"),
        ("huge", r"at \[1\] it holds the int 1180591620717411303424, which needs more than 64 bits"),
        ("datetime", r"at \[0\] it holds 'datetime64\[D\]'"),
    ],
)
def test_an_example_that_does_not_fit_is_named(what: str, message: str, workers: int) -> None:
    with stoker.Loader(Misbehaving(what), batch_size=8, workers=workers) as loader:
        batches = iter(loader)
        assert [next(batches)[1][0] for _ in range(4)] == [0, 64, 256, 576], "the batches before it come"
        with pytest.raises(stoker.SpecError, match=rf"(?s){EXAMPLE_37} cannot be batched: .*({message})") as caught:
            next(batches)
        assert (caught.value.example, caught.value.epoch) == (37, 0)
        assert next(batches, None) is None
        with pytest.raises(stoker.SpecError, match="epoch 1"):
            list(loader)


@pytest.mark.parametrize("what", ["None", "set", "object", "datetime", "longdouble", "huge"])
def test_a_first_example_that_no_tensor_can_hold_is_named(what: str) -> None:
    with (
        stoker.Loader(Misbehaving(what, at=0), batch_size=8, workers=1) as loader,
        pytest.raises(stoker.SpecError, match=r"example 0 \(epoch 0"),
    ):
        next(iter(loader))


def test_a_transform_that_returns_none_is_told_of_its_return() -> None:
    def forgets(example: Any) -> None:
        pass

    with (
        stoker.Loader(Squares(), batch_size=8, transform=forgets, workers=1) as loader,
        pytest.raises(stoker.SpecError, match=r"it is None.*is a `return` missing"),
    ):
        next(iter(loader))


#: What stands for the text of an exception that has none; Python 3.10 has other words for it.
NO_TEXT = r"<(exception str\(\) failed|unprintable \w+ object)>"


@pytest.mark.parametrize(
    ("what", "message", "cause"),
    [
        ("raise", "raised KeyError: 'bad digit'", KeyError),
        ("raise-unpicklable", r"raised .*UnpicklableError: this and that", None),
        ("raise-mute", rf"raised .*MuteError: {NO_TEXT}", None),
        ("raise-long", r"raised ValueError: xxxx", None),
        ("sys.exit", "raised SystemExit: 5", SystemExit),
        ("interrupt", "raised KeyboardInterrupt", KeyboardInterrupt),
    ],
)
def test_an_exception_of_the_users_is_told_with_its_traceback(what: str, message: str, cause: Any) -> None:
    with stoker.Loader(Misbehaving(what), batch_size=8, workers=2) as loader:
        with pytest.raises(stoker.WorkerError, match=rf"(?s)^{EXAMPLE_37} {message}") as caught:
            list(loader)
        text = str(caught.value)
        assert "examples.py" in text
        assert "in __getitem__" in text
        assert "stoker/worker" not in text, "frames of ours are left out"
        assert len(text.splitlines()) <= 40
        assert len(text) < 20_000
        assert cause is None or type(caught.value.__cause__) is cause
        assert caught.value.worker in (0, 1)
        assert len(list(iter_until_error(loader))) == 4, "the Loader can be iterated again"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("make", LONG, ids=lambda make: make.__name__)
def test_an_error_is_short_however_long_the_users_is(make: Callable[[], BaseException], workers: int) -> None:
    with (
        stoker.Loader(Raising(make), batch_size=8, workers=workers) as loader,
        pytest.raises(stoker.WorkerError, match=rf"(?s)^{EXAMPLE_37} raised (Value|Exception).*examples\.py") as caught,
    ):
        list(loader)
    error = caught.value
    assert len(str(error).splitlines()) <= 40
    assert len(str(error)) < 20_000
    if error.__cause__ is not None:  # Python prints it too
        assert len("".join(traceback.format_exception(error.__cause__)).splitlines()) <= 40


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("exits when it is pickled", "mine"),
        ("exits when it is unpickled", "mine"),
        ("has no truth", "mine"),
        ("has no notes", "mine"),
        ("has no text", NO_TEXT),
    ],
)
def test_an_exception_that_cannot_be_shown_kills_no_worker(how: str, text: str, workers: int) -> None:
    with stoker.Loader(Raising(functools.partial(HostileError, how)), batch_size=8, workers=workers) as loader:
        message = rf"(?s)^{EXAMPLE_37} raised [\w.]*HostileError: {text}\n.*examples\.py.*in __getitem__"
        with pytest.raises(stoker.WorkerError, match=message):
            list(loader)
        assert loader.stats().deaths == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stop_iteration_of_the_users_is_told_as_it_is(workers: int) -> None:
    def picky(example: Any) -> Any:
        return next(iter(())) if example[1] == 37**2 else example

    for options in ({"source": Raising(stopping)}, {"source": Squares(), "transform": picky}):
        with (
            stoker.Loader(**options, batch_size=8, workers=workers) as loader,
            pytest.raises(stoker.WorkerError, match=rf"(?s)^{EXAMPLE_37} raised StopIteration") as caught,
        ):
            list(loader)
        assert "stoker/worker" not in str(caught.value)
        assert type(caught.value.__cause__) is StopIteration


def stopping() -> BaseException:
    return StopIteration("mine")


def test_the_stack_of_a_stuck_worker_is_short_and_shows_the_users_frames() -> None:
    class Stuck(Squares):
        def __getitem__(self, index: int) -> Any:
            if index == 37:
                for _ in range(30):
                    threading.Thread(target=threading.Event().wait, daemon=True).start()
                threading.Event().wait()
            return super().__getitem__(index)

    with (
        stoker.Loader(Stuck(), batch_size=8, workers=1, timeout=0.5, retries=0) as loader,
        pytest.raises(stoker.WorkerDied, match=r"(?s)example 37 .*test_bad_input.py.* in __getitem__") as caught,
    ):
        list(loader)
    assert len(str(caught.value).splitlines()) <= 40


def iter_until_error(loader: stoker.Loader) -> Any:
    try:
        yield from loader
    except stoker.WorkerError:
        return


def test_the_first_of_several_bad_examples_is_reported_whoever_finds_it_first() -> None:
    def picky(example: Any) -> Any:
        if example[1] in (9**2, 14**2, 15**2):
            raise ValueError(example[1])
        return example

    for workers in (0, 1, 4):
        with (
            stoker.Loader(Squares(), batch_size=16, transform=picky, workers=workers) as loader,
            pytest.raises(stoker.WorkerError, match="example 9 "),
        ):
            list(loader)


@pytest.mark.parametrize("what", ["os._exit(0)", "SIGKILL", "SIGSEGV", "SIGTERM"])
def test_a_worker_that_dies_is_replaced_and_its_work_done_again(what: str, tmp_path: Path) -> None:
    flag = tmp_path / "times"
    flag.write_text(str(RETRIES))
    with stoker.Loader(Misbehaving(what, flag=flag), batch_size=8, workers=2) as loader:
        assert np.concatenate([batch[1] for batch in loader]).tolist() == [n * n for n in range(100)]
    assert flag.read_text() == "0"


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("os._exit(0)", r"exited with code 0\."),
        ("SIGKILL", r"was killed by SIGKILL \(often the kernel, out of memory\)\."),
        ("SIGSEGV", r"was killed by SIGSEGV \(a crash in native code\)\."),
    ],
)
@pytest.mark.parametrize("at", [0, 37])
def test_an_example_that_kills_every_worker_is_an_error(what: str, how: str, at: int) -> None:
    with stoker.Loader(Misbehaving(what, at=at), batch_size=8, workers=2) as loader:
        for epoch in (0, 1):
            told = epoch if at else 0  # the first example is looked at once, before the first epoch
            message = (
                rf"^workers died repeatedly while making example {at} \(epoch {told}, batch {at // 8}\): "
                rf"the last one {how}"
            )
            batches = iter(loader)
            assert [next(batches)[1][0] for _ in range(at // 8)] == [0, 64, 256, 576][: at // 8], "those before it come"
            with pytest.raises(stoker.WorkerDied, match=message) as caught:
                next(batches)
            assert (caught.value.example, caught.value.epoch) == (at, told)
            assert "skip" in str(caught.value)


def test_nobody_is_told_to_skip_who_does() -> None:
    def die(shard: stoker.Shard) -> Any:
        yield from range(5)
        os._exit(1)

    with (
        stoker.Loader(stoker.from_generator(die, 1), batch_size=2, workers=1, on_error="skip") as loader,
        pytest.raises(stoker.WorkerDied) as caught,
    ):
        list(loader)
    assert "skip" not in str(caught.value)


@pytest.mark.parametrize("what", ["close-stdin", "read-stdin", "fork"])
def test_odd_but_harmless_code_loses_nothing(what: str) -> None:
    with stoker.Loader(Misbehaving(what), batch_size=8, workers=2) as loader:
        assert np.concatenate([batch[1] for batch in loader]).tolist() == [n * n for n in range(100)]


def test_what_user_code_prints_reaches_the_trainers_output(capfd: pytest.CaptureFixture[str]) -> None:
    with stoker.Loader(Misbehaving("print"), batch_size=8, workers=2) as loader:
        list(loader)
    assert "hello from example 1369\n" in capfd.readouterr().out


def test_a_source_that_grows_or_shrinks_is_an_error() -> None:
    for workers in (0, 1):
        source = Squares(20)
        with stoker.Loader(source, batch_size=8, workers=workers) as loader:
            list(loader)
            for length in (21, 19):
                source.length = length
                with pytest.raises(stoker.SourceError, match=f"had 20 examples .* has {length} now"):
                    list(loader)
            source.length = 20
            assert len(list(loader)) == 3


def test_a_source_that_changes_its_length_in_the_workers_is_an_error() -> None:
    class Fickle(Squares):
        asked = 0

        def __len__(self) -> int:
            self.asked += 1
            return 20 if self.asked < 3 else 25

    with (
        stoker.Loader(Fickle(), batch_size=8, workers=1) as loader,
        pytest.raises(stoker.SourceError, match=r"had 20 examples .* has 25 now"),
    ):
        list(itertools.chain(loader, loader, loader))


def test_getitems_that_returns_too_few_is_an_error() -> None:
    class Short(Together):
        def __getitems__(self, indices: list[int]) -> Any:
            return super().__getitems__(indices)[: 3 if len(indices) > 1 else 1]

    with (
        stoker.Loader(Short(), batch_size=8, workers=1) as loader,
        pytest.raises(stoker.SourceError, match="asked for 8 examples but returned 3"),
    ):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_getitems_that_raises_names_the_example(workers: int) -> None:
    class Picky(Together):
        def __getitems__(self, indices: list[int]) -> Any:
            if {37, 39} & set(indices):
                raise KeyError("mine", len(indices))
            return super().__getitems__(indices)

    with (
        stoker.Loader(Picky(), batch_size=8, workers=workers) as loader,
        pytest.raises(stoker.WorkerError, match=rf"^{EXAMPLE_37} raised KeyError: \('mine', 1\)") as caught,
    ):
        list(loader)
    assert "During handling" not in str(caught.value)


def test_getitems_that_raises_for_no_single_example_is_told_as_it_is() -> None:
    class Crowded(Together):
        def __getitems__(self, indices: list[int]) -> Any:
            if 37 in indices and len(indices) > 1:
                raise KeyError("mine")
            return super().__getitems__(indices)

    with (
        stoker.Loader(Crowded(), batch_size=8, workers=1) as loader,
        pytest.raises(stoker.WorkerError, match=r"^the source .*raised KeyError: 'mine'") as caught,
    ):
        list(loader)
    assert caught.value.example is None


def test_getitems_that_kills_its_worker_names_the_example() -> None:
    class Deadly(Together):
        def __getitems__(self, indices: list[int]) -> Any:
            if 37 in indices:
                os._exit(3)
            return super().__getitems__(indices)

    with (
        stoker.Loader(Deadly(), batch_size=8, workers=2) as loader,
        pytest.raises(stoker.WorkerDied, match=r"making example 37 .*exited with code 3\."),
    ):
        list(loader)


# ── left out with on_error="skip" ────────────────────────────────────────────────────────────
class Custom(BaseException):
    """Of no kind that one expects."""


class Unreadable:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise OSError("truncated")


def bad(what: Any) -> Any:
    """Raises it, or returns it."""
    if isinstance(what, type):
        raise what("mine")
    return what


@pytest.mark.parametrize(
    "how", ["map", "generator", *(pytest.param(how, marks=pytest.mark.stress) for how in ("iterable", "map of many"))]
)
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (GeneratorExit, "GeneratorExit: mine"),
        (asyncio.CancelledError, "asyncio.exceptions.CancelledError: mine"),
        (Custom, "Custom: mine"),
        (MemoryError, "MemoryError: mine"),
        (Unreadable(), "OSError: truncated"),
    ],
)
def test_an_example_that_raises_is_left_out_whatever_it_raises(what: Any, reason: str, how: str) -> None:
    def transform(number: int) -> Any:
        if how == "map of many":
            return stoker.Many(bad(what) if number == 37 else number for _ in range(1))
        return bad(what) if number == 37 else number

    source = {
        "generator": stoker.from_generator(lambda shard: iter(range(50)), 1),
        "iterable": stoker.from_iterable(range(50)),
    }.get(how, range(50))
    for workers in (0, 1):
        with stoker.Loader(source, batch_size=8, transform=transform, workers=workers, on_error="skip") as loader:
            found = [number for batch in loader for number in batch.tolist()]
            (skipped,) = loader.stats().skipped
        assert found == [number for number in range(50) if number != 37]
        assert (skipped.example, skipped.reason.endswith(reason)) == (37, True)


class Stately:
    """An iterator whose own state just fits into a message, or is too long when it is quoted there."""

    def __init__(self, shard: stoker.Shard) -> None:
        self.at, self.pad = 0, '"' * (23_000 if shard.index else 11_900)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        if self.at == 1_500:
            raise StopIteration
        self.at += 1
        return self.at

    def state_dict(self) -> Any:
        return {"at": self.at, "pad": self.pad}

    def load_state_dict(self, state: Any) -> None:
        self.at = state["at"]


def test_many_examples_may_be_left_out_of_one_task() -> None:
    def wordy(number: int) -> int:
        if 100 < number <= 1_400:
            raise ValueError("\N{GRINNING FACE}\0" * 200)
        return number

    source = stoker.from_generator(Stately, shards=2)
    with stoker.Loader(source, batch_size=16, transform=wordy, workers=1, on_error="skip") as loader:
        found = sorted(number for batch in loader for number in batch.tolist())
        stats = loader.stats()
    kept = [*range(1, 101), *range(1_401, 1_501)]
    assert found == sorted(kept + kept)
    assert (stats.skips, len(stats.skipped), stats.deaths) == (2_600, 1_000, 0)
    assert stats.skipped[0].reason.startswith("ValueError: \N{GRINNING FACE}")


def test_a_worker_without_memory_is_replaced() -> None:
    def hungry(example: Any) -> Any:
        if example[1] == 37**2:
            raise MemoryError
        return (*example, os.getpid())

    with stoker.Loader(Squares(), batch_size=1, transform=hungry, workers=1, on_error="skip") as loader:
        pids = {int(batch[2][0]) for batch in loader}
        assert loader.stats().skips == 1
        assert 2 <= len(pids) <= 1 + loader.stats().deaths


def test_a_closed_loader_says_so() -> None:
    for pulled in (False, True):
        loader = stoker.Loader(Squares(), batch_size=8, workers=1)
        batches = iter(loader)
        if pulled:
            next(batches)
        loader.close()
        loader.close()
        with pytest.raises(stoker.ClosedError, match="is closed"):
            next(batches)
        with pytest.raises(stoker.ClosedError, match="is closed"):
            list(loader)
        with pytest.raises(stoker.ClosedError, match="is closed"):
            loader.to_tf()


def test_errors_can_be_pickled_and_have_one_root() -> None:
    error = pickle.loads(pickle.dumps(stoker.WorkerError("text", example=3)))
    assert (str(error), error.example) == ("text", 3)
    assert issubclass(stoker.SpecError, stoker.WorkerError)
    assert issubclass(stoker.OptionError, (stoker.StokerError, ValueError, TypeError))
