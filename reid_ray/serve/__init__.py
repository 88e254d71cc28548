"""The search service on Ray Serve: schema, deployments, page."""
