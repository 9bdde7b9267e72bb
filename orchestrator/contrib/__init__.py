"""Integrations with frameworks and other systems. Nothing here is imported unasked."""
