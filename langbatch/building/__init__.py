"""Requests made from rows: tables, templates, images and the answers' form."""
