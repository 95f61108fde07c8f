"""The multicast feed: packets of two lines become one sequence of messages, books, and ticks in a ring of the engine."""
