"""What `tf.distribute` and `keras.distribution` do with a Loader: run in processes of their own, by test_hosts.

Each step notes the examples that its replicas saw.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

LENGTH, SIZE = 52, 8


def main(how: str, *arguments: str) -> None:
    if how == "many":
        index, *ports = arguments
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": int(index)}})
        print(json.dumps(many()))
    else:
        print(json.dumps(one()))


def loader(**options: Any) -> Any:
    import numpy as np

    import stoker

    source = [(np.full(2, n, np.float32), np.float32(n)) for n in range(LENGTH)]
    return stoker.Loader(source, batch_size=SIZE, shuffle=True, workers=1, **options)


def expected(epoch: int = 0) -> list[list[int]]:
    with loader() as plain:
        for _ in range(epoch):
            list(plain)
        return [sorted(int(y) for y in batch[1]) for batch in plain]


def noting(steps: list[list[int]], lock: Any) -> Any:
    """A model that notes what it sees, for each of its optimizer's steps."""
    import keras
    import tensorflow as tf

    class Model(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            def note(step: Any, y: Any) -> None:
                with lock:
                    while len(steps) <= step:
                        steps.append([])
                    steps[step] += [int(one) for one in y]

            tf.numpy_function(note, [self.optimizer.iterations.value, data[1]], [])
            return super().train_step(data)

    model = Model([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def fitted(strategy: Any, data: Any) -> list[list[int]]:
    import threading

    steps: list[list[int]] = []
    with strategy.scope():
        model = noting(steps, threading.Lock())
    model.fit(data, epochs=1, verbose=0)
    return [sorted(step) for step in steps]


def by_function(strategy: Any, train: Any) -> list[list[int]]:
    dataset = strategy.distribute_datasets_from_function(train.to_tf_shard)
    return [
        sorted(int(y) for part in strategy.experimental_local_results(batch[1]) for y in part.numpy())
        for batch in dataset
    ]


def by_dataset(strategy: Any, train: Any) -> list[list[int]]:
    dataset = strategy.experimental_distribute_dataset(train.to_tf())
    return [
        sorted(int(y) for part in strategy.experimental_local_results(batch[1]) for y in part.numpy())
        for batch in dataset
    ]


def one() -> dict[str, bool]:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    right = expected()
    with loader() as train:  # Keras has looked at a batch before, to build the model: of an epoch that it leaves there
        fit = fitted(strategy, train.to_tf()) == expected(epoch=1)
    with loader() as train:
        function = by_function(strategy, train) == right
    with loader() as train:
        dataset = by_dataset(strategy, train) == right
    return {"fit": fit, "function": function, "dataset": dataset, "data_parallel": data_parallel(right)}


def data_parallel(right: list[list[int]]) -> bool | None:
    import threading

    import keras

    if sys.version_info < (3, 11):
        return None  # the last Keras for Python 3.10 has no DataParallel for TensorFlow
    steps: list[list[int]] = []
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    model = noting(steps, threading.Lock())
    with loader() as train:
        model.fit(train.to_tf(), epochs=1, verbose=0)
    return [sorted(step) for step in steps] == right


def many() -> dict[str, Any]:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with loader() as train:
        dataset = by_dataset(strategy, train)
    with loader() as train:
        function = by_function(strategy, train)
    return {"dataset": dataset, "function": function, "expected": expected()}


if __name__ == "__main__":
    main(*sys.argv[1:])
