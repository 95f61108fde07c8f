"""The process: rings, engine thread, gRPC services, sessions, recorder, config."""
