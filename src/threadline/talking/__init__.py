"""From text to clauses, and from marks to what was heard."""
