"""The service's verbs, without HTTP: searching a gallery, and changing it."""
