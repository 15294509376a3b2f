"""Pure values: what crosses the wire and the rules that need no I/O."""
