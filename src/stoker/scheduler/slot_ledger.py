"""Which slots are free, and which consumers hold. All others hold a batch that is being made or is ready."""

from __future__ import annotations

#: Slots reserved for streams that are pulled while the other streams hold all slots.
SPARE = 1


class SlotLedger:
    """The account of all slots.

    Attributes:
        most: slots in which batches are made.
        leases: additional slots that consumers may hold.
        free: the free slots. They form a stack, because the most recently used slot is the warmest.
    """

    def __init__(self, slots: int, leases: int) -> None:
        self.most, self.leases = slots, leases
        self._total = slots + leases + SPARE
        self.free = list(range(self._total - 1, -1, -1))
        self._leased: set[int] = set()
        self._lent: set[int] = set()  # until their batch is copied out

    def resize(self, slots: int, leases: int | None) -> None:
        """Set the number of slots in which batches are made and, unless it is None, that of the leases."""
        self.most = slots
        self.leases = self.leases if leases is None else leases

    def hand_out(self, slot: int) -> bool:
        """Give a slot to a consumer. Returns whether it is only lent, since all leases are in use."""
        is_lent = len(self._leased) >= self.leases
        (self._lent if is_lent else self._leased).add(slot)
        return is_lent

    def released(self, slot: int) -> None:
        """Take back a slot from a consumer."""
        self._leased.discard(slot)
        self._lent.discard(slot)
        self.free.append(slot)

    def in_use(self) -> int:
        """Number of slots that are not free."""
        return self._total - len(self.free)

    def not_leased(self) -> int:
        """Number of slots in use that are not leased."""
        return self._total - len(self.free) - len(self._leased)

    def is_at_hand(self) -> bool:
        """True if a batch may be started without the spare slot."""
        return bool(self.free) and self.not_leased() < self.most
