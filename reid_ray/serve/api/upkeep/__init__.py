"""Routes of the service that change its gallery, and how a change is answered."""
