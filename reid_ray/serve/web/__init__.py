"""The page of the search service: files that a browser reads, and the routes that serve them."""
