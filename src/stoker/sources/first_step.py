"""A step of the source's own on each element, in the worker, before the user's transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker.sources.markers import SKIP

#: Makes the example of an element, or SKIP.
Step = Callable[[Any], Any]


class FirstStep:
    """Calls the source's step, then the transform, unless the step returned SKIP."""

    def __init__(self, step: Step, transform: Callable[..., Any]) -> None:
        self.step, self.transform = step, transform

    def __call__(self, element: Any, **rng: Any) -> Any:
        example = self.step(element)
        return example if example is SKIP else self.transform(example, **rng)


def after(step: Step | None, transform: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The function applied to each element of a source that has this step; None if there is neither."""
    if step is None or transform is None:
        return step or transform
    return FirstStep(step, transform)
