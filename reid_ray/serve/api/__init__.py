"""The HTTP API of the retrieval service: routes and schemas over its operations. Knows neither models nor Ray."""
