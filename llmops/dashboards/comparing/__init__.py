"""Two calls side by side: what was asked of whom, what came of it, and where they part."""
