"""Provide the command ``invrep``. No module of this package imports torch before a job starts."""
