"""What is nearest to a query in a whole gallery: exactly or by candidates, page by page, like some items and unlike others."""
