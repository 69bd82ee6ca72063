"""What the on-call dashboards share: a page of tiles, charts and tables that follows by itself."""
