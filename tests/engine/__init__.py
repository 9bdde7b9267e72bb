"""The engine, by what users see of it, and where the world around it fails."""
