"""Text: reviews of the Internet Movie Database, as characters or bytes."""
