"""Makes the dataset's iterator for the next epoch of `fit` while this one is read.

TensorFlow needs 10 to 40 ms to create an iterator, and Keras creates two between the last step of an epoch and the
first one of the next. An iterator that is not read costs nothing else.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from stoker.feed import keras_frames

log = logging.getLogger("stoker")

#: The iterators that were made ahead, by Keras' epoch iterator.
_made_ahead: weakref.WeakKeyDictionary[Any, _MadeAhead] = weakref.WeakKeyDictionary()


def iterator(frame: FrameType, make: Callable[[], Any]) -> Any:
    """An iterator that is not read yet.

    Args:
        frame: where it is asked for.
        make: creates one.
    """
    loop = keras_frames.epoch_iterator(frame, "TFEpochIterator")  # others read ahead from the iterators that they make
    if loop is None:
        return make()
    ahead = _made_ahead.get(loop)
    found = ahead.taken() if ahead is not None else make()
    if keras_frames.asks_again(loop):
        return found  # and once more then
    _made_ahead.pop(loop, None)
    if keras_frames.another_epoch_follows(frame, loop):
        _made_ahead[loop] = _MadeAhead(make)
    return found


class _MadeAhead:
    """An iterator that is made in a thread. The interpreter waits for that thread before it exits.

    Args:
        make: creates the iterator.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None
        self._thread = threading.Thread(target=self._run, name="stoker-iterator")
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started
            self._run()

    def taken(self) -> Any:
        """The iterator."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._made is None:
            self._made = self._make()
        return self._made

    def _run(self) -> None:
        try:
            self._made = self._make()
        except Exception as error:  # raised again by the call that needs an iterator
            log.debug("an iterator could not be made ahead: %s", error)
