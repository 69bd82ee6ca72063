"""From journals to the database. ``follower.py`` is the page to read first."""
