"""The market room: a documented, seeded simulator of bursty markets, for demonstrations and tests."""
