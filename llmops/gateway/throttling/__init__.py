"""How much at once, and how often: of a key, a project, a target."""
