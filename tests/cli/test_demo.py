"""`stoker demo`, run as a user runs it, on fewer digits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stoker.cli.app import app
from stoker.cli.demo import digits, race, story


def few(split: digits.Split) -> digits.Split:
    """The same split with 192 digits to learn from and 64 held out."""
    train, held_out = split.train, split.held_out
    return digits.Split(
        digits.Digits(train.images[:192], train.labels[:192]),
        digits.Digits(held_out.images[:64], held_out.labels[:64]),
    )


def stoker(*arguments: str, without: str) -> subprocess.CompletedProcess[str]:
    """The command in a fresh interpreter that finds no package of the name `without`."""
    code = f"import sys; sys.modules[{without!r}] = None; from stoker.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demo_shows_both_contenders_and_saves_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = few(digits.load())
    monkeypatch.setattr(story, "load", lambda: split)
    out = tmp_path / "demo.png"

    result = CliRunner().invoke(app, ["demo", "--epochs", "2", "--workers", "2", "--out", str(out)])

    assert result.exit_code == 0, result.output
    for line in ("from_generator, one process", "stoker.Loader, 2 workers", "as fast"):
        assert line in result.output
    assert "epoch 2/2" in result.output
    assert "below the 97%" in result.output  # two epochs of 192 digits reach no 97 %, and the demo says so
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_what_is_missing_is_told_in_one_line() -> None:
    for without, command in (("typer", []), ("scipy", ["demo"])):
        result = stoker(*command, without=without)
        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert without in result.stderr
        assert 'pip install "stoker[demo]"' in result.stderr


def test_a_picture_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "nowhere" / "demo.png")])
    assert result.exit_code == 1
    assert "no such folder" in result.output


def test_augmentation_keeps_the_label_and_bends_the_image_anew_each_time() -> None:
    source = digits.load().train
    first, label = digits.augment(source[3], np.random.default_rng(1))
    again, _ = digits.augment(source[3], np.random.default_rng(1))
    other, _ = digits.augment(source[3], np.random.default_rng(2))

    assert label == source.labels[3]
    assert first.shape == (digits.SIDE, digits.SIDE, 1)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_first_epoch_does_not_count_where_there_are_more() -> None:
    slow = race.RaceEpoch(seconds=9.0, waiting=5.0, stepping=4.0, examples=10)
    fast = race.RaceEpoch(seconds=1.0, waiting=0.3, stepping=0.6, examples=10)
    result = race.Result("a", "one process", (slow, fast, fast), accuracy=1.0)

    assert result.epoch_seconds == 1.0
    assert result.rate == 10.0
    assert result.waiting == pytest.approx(1 / 3)
    assert race.Result("a", "one process", (slow,), accuracy=1.0).epoch_seconds == 9.0
