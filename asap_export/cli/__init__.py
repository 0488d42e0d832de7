"""The command line; it turns options into calls and shows what comes back. Nothing else here prints."""
