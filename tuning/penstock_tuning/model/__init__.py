"""The model room: train, describe; evaluate and search build on the same parts. Command penstock-train."""
