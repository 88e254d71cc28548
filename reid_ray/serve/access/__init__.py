"""Access control of the search service: tokens, roles, sessions, the gatekeeper in front of the application, the audit log."""
