"""Everything that leaves: one sender, one egress policy."""
