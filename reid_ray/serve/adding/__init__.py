"""Add jobs of the service: what was uploaded becomes items of the gallery, beside the searches, however often the service is killed."""
