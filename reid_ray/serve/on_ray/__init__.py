"""The retrieval service on Ray Serve: every replica of one deployment is the application of the single process."""
