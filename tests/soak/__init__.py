"""Real workers under random faults: every batch is the one that an undisturbed run delivers."""
