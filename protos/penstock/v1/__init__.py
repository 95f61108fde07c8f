"""Version 1 of the contract: messages, records and layouts, without behaviour."""
