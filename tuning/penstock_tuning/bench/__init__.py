"""Every published number: one file per benchmark, the machine named beside it, raw times that give the figures again."""
