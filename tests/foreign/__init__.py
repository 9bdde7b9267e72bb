"""A project of plain tasks, run as they are and as steps side by side."""
