"""The conversation: facts in, orders out; who decides what to say."""
