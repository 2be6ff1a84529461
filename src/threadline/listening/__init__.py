"""Whether the caller speaks, and when a turn is over."""
