"""Mu-law, levels, resampling, WAV files."""
