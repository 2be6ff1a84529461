"""What carriers speak: sans-I/O codecs, from messages to events and back."""
