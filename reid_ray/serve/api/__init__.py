"""The HTTP API of the retrieval service: routes and schemas over a desk. Knows neither models nor Ray."""
