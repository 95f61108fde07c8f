"""How a host is changed and put back: the plan, the journal, apply and revert."""
