"""A bundle behind an endpoint: rows that are answered together, and the HTTP interface in front of them."""
