"""What happens to one tick, as pure computation: features, reservoir, readout, model file."""
