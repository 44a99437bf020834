"""The command ``invrep``: overrides in, a job or one sentence out. Nothing here imports torch before a job starts."""
