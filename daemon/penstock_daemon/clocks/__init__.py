"""Every clock that the daemon reads or maps to the host's, behind one seam, each reading with its source and its error."""
