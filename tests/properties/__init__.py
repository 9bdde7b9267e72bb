"""Properties that hold for any workflow, whatever happens while it runs."""
