"""The codec: what travels, and what comes out on the other side."""
