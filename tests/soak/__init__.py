"""Real workers under real faults, at random: what comes is what would have come undisturbed."""
