"""WHICH examples make WHICH batch, in which order. Pure: numbers in, numbers out.

permutation   a shuffle of n examples in O(1) memory
batches       the batches of an epoch, and the examples in each
"""

from stoker.plan.batches import Order, Plan

__all__ = ["Order", "Plan"]
