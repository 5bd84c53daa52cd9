"""WHICH examples make WHICH batch, in which order. Pure: numbers in, numbers out.

permutation   a shuffle of n examples in O(1) memory
deal          the rows of a batch that are this trainer's
shuffle       a buffer for runs of unknown length
batches       the batches of an epoch, and the examples in each
state         how far training has come
"""

from stoker.plan.batches import Order, Plan
from stoker.plan.deal import ALL, Deal, Filled
from stoker.plan.permutation import Permutation, mix
from stoker.plan.shuffle import shuffled
from stoker.plan.state import Iteration, Position

__all__ = ["ALL", "Deal", "Filled", "Iteration", "Order", "Permutation", "Plan", "Position", "mix", "shuffled"]
