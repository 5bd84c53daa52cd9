"""Data sources of TensorFlow Datasets give the examples that its tf.data pipeline gives, without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

import stoker
from tests.moving.compare import assert_same, plain

ROWS, SIZE = 22, 4

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf's generated code


class Tiny(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """A dataset that needs no download."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # it looks there for the checksums of downloads

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(shape=(4, 3, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
            "name": tfds.features.Text(),
            "vector": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "box": {"left": np.int32, "ids": tfds.features.Sequence(np.int64)},
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples(ROWS), "test": self._generate_examples(3)}

    def _generate_examples(self, count: int) -> Any:
        rng = np.random.default_rng(count)
        for number in range(count):
            yield (
                number,
                {
                    "image": rng.integers(0, 255, (4, 3, 3), np.uint8),
                    "label": number % 3,
                    "name": f"né{number}",
                    "vector": rng.normal(size=2).astype(np.float32),
                    "box": {"left": number, "ids": [number, number + 1]},
                },
            )


def prepared(folder: Path, file_format: str) -> Any:
    made = Tiny(data_dir=folder, file_format=file_format)
    made.download_and_prepare()
    return made


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tfds.disable_progress_bar()
    return prepared(tmp_path_factory.mktemp("records"), "array_record")


def test_batches_are_those_of_its_tf_data_pipeline(builder: Any, tmp_path: Path) -> None:
    for_tensorflow = prepared(tmp_path, "tfrecord")  # which reads no array records
    read = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = for_tensorflow.as_dataset(split="train", batch_size=SIZE, read_config=read)
    expected = [plain(batch) for batch in tfds.as_numpy(dataset)]
    assert type(builder.as_data_source("train")[0]["box"]["left"]) is int  # where the pipeline has int32
    for batch in expected:
        batch["box"]["left"] = batch["box"]["left"].astype(np.int64)
    source = builder.as_data_source("train")
    for workers in (0, 2):
        with stoker.Loader(source, batch_size=SIZE, workers=workers) as loader:
            assert len(loader) == len(expected)
            assert_same(list(loader), expected)
    pairs = stoker.from_tfds(source, columns=("image", "label"))
    with stoker.Loader(pairs, batch_size=SIZE, workers=0) as loader:
        assert_same(list(loader), [(batch["image"], batch["label"]) for batch in expected])


def test_columns_and_sources_that_are_wrong_are_named(builder: Any) -> None:
    with pytest.raises(stoker.OptionError, match="columns names 'labels', but there is only 'image', 'label'"):
        stoker.from_tfds(builder.as_data_source("train"), columns=("image", "labels"))
    with pytest.raises(stoker.SourceError, match=r"needs a data source .*`tfds\.data_source\(name, split=\.\.\.\)`"):
        stoker.from_tfds(builder.as_data_source())  # a dict of all splits


def test_neither_the_trainer_nor_its_workers_import_tensorflow(builder: Any, tmp_path: Path) -> None:
    script = f"""
import sys
import tensorflow_datasets as tfds
import stoker

def imported(example):
    return example["label"], "tensorflow" in sys.modules

source = tfds.builder_from_directory({str(builder.data_path)!r}).as_data_source("train")
with stoker.Loader(source, batch_size=11, transform=imported, workers=2) as loader:
    assert [any(flags) for _, flags in loader] == [False, False]
assert "tensorflow" not in sys.modules
"""
    (tmp_path / "script.py").write_text(script)
    subprocess.run([sys.executable, "-W", "ignore", str(tmp_path / "script.py")], check=True, timeout=120)
