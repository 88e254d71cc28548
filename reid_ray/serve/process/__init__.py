"""The retrieval service in one process: uvicorn in front of the application, without Ray."""
