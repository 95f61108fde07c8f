"""What a strategy installs: sessions, resume, tick-file readers, replay and its report."""
