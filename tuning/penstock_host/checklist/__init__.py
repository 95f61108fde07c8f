"""What is looked at on a host: one entry per line of the checklist, and the knobs that some of them turn."""
