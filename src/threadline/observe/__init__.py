"""Measurements: histograms, metrics, turns, reports, pictures."""
