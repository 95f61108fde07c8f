"""One page for people: the check, the plan, the journal and the measurements."""
