"""What a user of Loader sees, with real worker processes."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import pdb
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import optree
import pytest

import stoker
from stoker.plan.order import Plan
from tests.examples import Nested, Pair, Squares, Together, noisy


def equal(one: Any, other: Any) -> bool:
    """Same nesting, same dtypes, same bits."""
    ours, our_tree = optree.tree_flatten(one)
    theirs, their_tree = optree.tree_flatten(other)
    return our_tree == their_tree and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def epochs(loader: stoker.Loader, count: int) -> list[list[Any]]:
    with loader:
        return [list(loader) for _ in range(count)]


def test_batches_equal_those_of_a_plain_loop_for_any_number_of_workers() -> None:
    source, size, seed = Nested(203), 16, 11
    plan = Plan(len(source), size, True, seed, False)
    for workers in (0, 1, 2, 5):
        made = epochs(stoker.Loader(source, batch_size=size, shuffle=True, seed=seed, workers=workers), 3)
        for epoch, batches in enumerate(made):
            order = plan.order(epoch).indices(0, len(source))
            assert len(batches) == math.ceil(len(source) / size)
            for start, batch in zip(range(0, len(source), size), batches, strict=True):
                examples = [source[int(index)] for index in order[start : start + size]]
                assert equal(batch, optree.tree_map(lambda *leaves: np.stack(leaves), *examples))


@pytest.mark.parametrize("source", [Squares(150), Together(150)])
def test_random_code_gives_the_same_batches_for_any_number_of_workers(source: Any) -> None:
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    made = [
        epochs(stoker.Loader(source, batch_size=70, shuffle=True, seed=3, transform=noisy, workers=workers), 3)
        for workers in (0, 1, 2, 5)
    ]
    assert all(equal(made[0], other) for other in made[1:])
    assert not equal(made[0][0][0], made[0][1][0]), "epochs differ"
    assert np.array_equal(np.random.get_state()[1], numpy_state), "the trainer's own random states are its own"
    assert random.getstate() == python_state


def test_every_epoch_has_each_example_once_in_a_new_order() -> None:
    made = epochs(stoker.Loader(Squares(1000), batch_size=64, shuffle=True, workers=2), 3)
    orders = [np.concatenate([batch[1] for batch in batches]) for batches in made]
    for order in orders:
        assert sorted(order.tolist()) == [index * index for index in range(1000)]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_drop_remainder_leaves_out_the_rest() -> None:
    (batches,) = epochs(stoker.Loader(Squares(70), batch_size=32, drop_remainder=True, workers=1), 1)
    assert [len(batch[1]) for batch in batches] == [32, 32]


def test_containers_come_back_as_they_were() -> None:
    (batches,) = epochs(stoker.Loader(Nested(8), batch_size=4, workers=1), 1)
    batch = batches[0]
    assert isinstance(batch["pair"], Pair)
    assert isinstance(batch["pair"].right, list)
    assert list(batch) == ["image", "pair", "deep"]


def test_a_list_an_array_and_lambdas_are_sources_and_transforms() -> None:
    (batches,) = epochs(stoker.Loader([1, 2, 3], batch_size=2, transform=lambda x: x * 10, workers=1), 1)
    assert [batch.tolist() for batch in batches] == [[10, 20], [30]]
    (batches,) = epochs(stoker.Loader(np.arange(6).reshape(3, 2), batch_size=3, workers=1), 1)
    assert np.array_equal(batches[0], np.arange(6).reshape(3, 2))


def test_user_code_never_runs_in_the_trainer() -> None:
    (batches,) = epochs(stoker.Loader(Squares(10), batch_size=5, workers=2, transform=lambda e: os.getpid()), 1)
    pids = set(np.concatenate(batches).tolist())
    assert os.getpid() not in pids


def test_a_whole_epoch_may_be_held() -> None:
    with stoker.Loader(Squares(4000), batch_size=8, workers=2) as loader:
        held = list(loader)
        rows = [batch[0][3] for batch in loader]  # one view keeps its batch
        gc.collect()
        again = list(loader)
        assert equal(held, again)
        assert [row.tolist() for row in rows] == [[8 * number + 3] * 4 for number in range(500)]


def test_batches_outlive_their_loader() -> None:
    loader = stoker.Loader(Squares(64), batch_size=16, workers=1)
    batches = list(loader)
    loader.close()
    assert sorted(np.concatenate([batch[1] for batch in batches]).tolist()) == [n * n for n in range(64)]


def test_batches_are_read_only_and_aligned() -> None:
    with stoker.Loader(Nested(40), batch_size=4, workers=1) as loader:
        for batch in loader:
            for leaf in optree.tree_leaves(batch):
                assert leaf.ctypes.data % 64 == 0
                assert not leaf.flags.writeable


def test_an_iterator_that_is_never_read_takes_no_epoch() -> None:
    with stoker.Loader(Squares(30), batch_size=10, shuffle=True, workers=1) as loader:
        first = list(loader)
        iter(loader), iter(loader)
        second = list(loader)
    with stoker.Loader(Squares(30), batch_size=10, shuffle=True, workers=1) as loader:
        assert equal([first, second], [list(loader), list(loader)])


def test_two_iterators_at_once_and_abandoned_ones() -> None:
    with stoker.Loader(Squares(300), batch_size=10, workers=2, prefetch=2) as loader:
        for one, other in zip(loader, loader, strict=True):
            assert np.array_equal(one[1], other[1])
        for _ in range(20):
            abandoned = iter(loader)
            next(abandoned)
        paused = [iter(loader) for _ in range(5)]
        assert [next(it)[1][1] for it in paused] == [1] * 5, "more iterators than slots"
        assert len(list(loader)) == 30
        assert [next(it)[1][1] for it in paused] == [121] * 5


def test_iterators_abandoned_together_disturb_nobody() -> None:
    with stoker.Loader(Squares(300), batch_size=10, workers=2, prefetch=2) as loader:
        for _ in range(5):
            for _one, _other in zip(loader, loader, strict=True):
                break
            gc.collect()
            assert len(list(loader)) == 30


def test_an_interrupted_pull_loses_no_batch_and_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    with stoker.Loader(Squares(100), batch_size=10, workers=1, prefetch=1) as loader:
        idle = type(loader._producer._engine).idle
        for _ in range(15):
            batches = iter(loader)
            next(batches)

            def interrupted(self: Any, changed: Any) -> None:
                idle(self, changed)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(type(loader._producer._engine), "idle", interrupted)
                with contextlib.suppress(KeyboardInterrupt):
                    next(batches)
            if loader.state_dict(consumed=0)["epoch"] % 2:
                del batches  # with, maybe, a batch that was delivered and never taken
            else:
                list(batches)
        assert len(list(loader)) == 10
        gc.collect()
        assert len(list(loader)) == 10


def test_closing_while_others_pull_gives_them_a_clear_end() -> None:
    for _ in range(5):
        loader = stoker.Loader(Squares(100_000), batch_size=2, workers=2)
        ends: list[BaseException] = []

        def pull(loader: Any = loader, ends: Any = ends) -> None:
            try:
                list(loader)
            except BaseException as error:
                ends.append(error)

        threads = [threading.Thread(target=pull) for _ in range(3)]
        for thread in threads:
            thread.start()
        next(iter(loader))
        loader.close()
        for thread in threads:
            thread.join(timeout=5)
        assert [type(end) for end in ends] == [stoker.ClosedError] * 3


def test_code_that_returns_the_same_array_again_and_again_is_read_in_time() -> None:
    class Reusing(Squares):
        def __init__(self) -> None:
            super().__init__(40)
            self.buffers: Any = None

        def __getitem__(self, index: int) -> Any:
            if self.buffers is None:
                self.buffers = np.zeros((2, 6))  # two in turn
            buffer = self.buffers[index % 2]
            buffer[:] = index
            return buffer[index % 3 :][:3]

    class Reuses:
        buffer: Any = None

        def __call__(self, example: Any) -> Any:
            if self.buffer is None:
                self.buffer = np.zeros(4, np.float32)
            self.buffer[:] = example[0]
            return self.buffer

    for workers in (0, 2):
        (batches,) = epochs(stoker.Loader(Reusing(), batch_size=16, workers=workers), 1)
        assert [row[0] for batch in batches for row in batch] == list(range(40))
        (batches,) = epochs(stoker.Loader(Squares(40), batch_size=16, transform=Reuses(), workers=workers), 1)
        assert [row[0] for batch in batches for row in batch] == list(range(40))


def test_a_wrapper_that_delegates_unknown_attributes_is_not_bypassed() -> None:
    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __len__(self) -> int:
            return len(self.inner)

        def __getitem__(self, index: int) -> Any:
            return index * 100

        def __getattr__(self, name: str) -> Any:
            if name == "inner":
                raise AttributeError(name)
            return getattr(self.inner, name)

    (batches,) = epochs(stoker.Loader(Wrapper(Together(4)), batch_size=4, workers=1), 1)
    assert batches[0].tolist() == [0, 100, 200, 300]


def test_large_batches_of_small_rows_arrive_whole() -> None:
    class Many(Squares):
        def __getitems__(self, indices: list[int]) -> Any:
            return [float(index) for index in indices]

    made = epochs(stoker.Loader(Many(70_300), batch_size=70_000, workers=2), 4)
    for batches in made:
        assert np.array_equal(np.concatenate(batches), np.arange(70_300.0))


def test_many_threads_may_pull() -> None:
    with stoker.Loader(Squares(1000), batch_size=10, workers=2, prefetch=2) as loader:
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(len(list(loader)))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [100] * 5


def test_inline_runs_in_the_pulling_thread_only_when_pulled() -> None:
    made: list[tuple[int, int]] = []

    class Watched(Squares):
        def __getitem__(self, index: int) -> Any:
            made.append((index, threading.get_ident()))
            return super().__getitem__(index)

    with stoker.Loader(Watched(40), batch_size=10, workers=0) as loader:
        batches = iter(loader)
        next(batches)
        assert {index for index, _ in made} == set(range(10))
        assert {thread for _, thread in made} == {threading.get_ident()}


def test_a_debugger_stops_in_user_code_with_the_inline_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[str] = []
    monkeypatch.setattr(pdb, "set_trace", lambda *, header=None: stops.append(sys._getframe(1).f_code.co_name))
    monkeypatch.setattr(sys, "breakpointhook", pdb.set_trace)

    def augment(example: Any) -> Any:
        breakpoint()
        return example

    with stoker.Loader(Squares(2), batch_size=2, workers=0, transform=augment) as loader:
        list(loader)
    assert stops.count("augment") >= 2


def test_ctrl_c_in_inline_code_loses_nothing() -> None:
    interrupted = iter([False, False, True])

    class Slow(Squares):
        def __getitem__(self, index: int) -> Any:
            if index == 12 and next(interrupted, False):
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with stoker.Loader(Slow(30), batch_size=10, workers=0) as loader:
        for _ in range(2):
            list(loader)
        batches = iter(loader)
        got = [next(batches)]
        with pytest.raises(KeyboardInterrupt):
            next(batches)
        got += batches
        assert np.concatenate([batch[1] for batch in got]).tolist() == [n * n for n in range(30)]


def test_arrays_of_the_source_are_shared_not_copied() -> None:
    class Holder(Squares):
        def __init__(self) -> None:
            super().__init__(20)
            self.table = np.arange(1_000_000)

        def __getitem__(self, index: int) -> Any:
            lines = Path("/proc/self/smaps").read_text().split("\n")
            mapped = next((n for n, line in enumerate(lines) if "stoker-program" in line), None)
            return mapped is not None, not self.table.flags.writeable, self.table[index]

    (batches,) = epochs(stoker.Loader(Holder(), batch_size=20, workers=1), 1)
    mapped, read_only, values = batches[0]
    assert mapped.all()
    assert read_only.all()
    assert values.tolist() == list(range(20))


def test_workers_start_where_the_trainer_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_the_script.py").write_text("def value(): return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "somewhere")

    def where(_: int) -> Any:
        import beside_the_script  # type: ignore[import-not-found]

        ours = (Path.cwd() == tmp_path, sys.path == path, os.environ["PYTHONPATH"] == "somewhere")
        return beside_the_script.value(), *ours

    path = list(sys.path)
    (batches,) = epochs(stoker.Loader([0], batch_size=1, transform=where, workers=1), 1)
    assert [leaf.tolist() for leaf in batches[0]] == [[42], [True], [True], [True]]


def test_a_script_needs_no_guard_and_may_define_its_classes_itself(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def scale(x): return x * 3\n")
    (tmp_path / "script.py").write_text(
        "import stoker, beside\n"
        "from typing import NamedTuple\n"
        "class Point(NamedTuple):\n    x: float\n    y: int\n"
        "class Source:\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i): return Point(beside.scale(i) / 2, i)\n"
        "loader = stoker.Loader(Source(), batch_size=2, transform=lambda p: p._replace(y=p.y + 1), workers=2)\n"
        "for batch in loader: print(isinstance(batch, Point), batch.x.tolist(), batch.y.tolist())\n"
    )
    # The script's directory is the interpreter's own doing; the way to stoker must come from elsewhere.
    environment = {**os.environ, "PYTHONPATH": str(Path(stoker.__file__).parents[1])}
    shown = subprocess.check_output([sys.executable, tmp_path / "script.py"], text=True, env=environment, cwd="/")
    assert shown.splitlines() == ["True [0.0, 1.5] [1, 2]", "True [3.0, 4.5] [3, 4]"]


def test_length_is_the_number_of_batches() -> None:
    with stoker.Loader(Squares(70), batch_size=32, workers=0) as loader:
        assert len(loader) == 3


def test_workers_read_the_source_and_the_trainer_keeps_no_copy_of_it() -> None:
    source = Squares()
    alive = weakref.ref(source)
    with stoker.Loader(source, batch_size=4, workers=1) as loader:
        del source
        gc.collect()
        assert alive() is None
        assert len(list(loader)) > 0
