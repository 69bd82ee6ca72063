"""What is tried at providers, after what, and over which connection."""
