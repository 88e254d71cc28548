"""What is known of a folder's images, from their paths or from a table beside them: identities, cameras, times, columns of a user's own."""
